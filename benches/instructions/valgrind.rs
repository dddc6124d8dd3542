//! Runs this program again under valgrind, once for each benchmark, and reads what it counted.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{Bench, book::Count};

/// All counts, in order. `how` is `--measure`, or `--measure-late` where making what is needed would take minutes if it were
/// instrumented.
pub(crate) fn count(benches: &[&'static Bench], how: &str) -> Result<Vec<Count>, String> {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(benches.len());
    let (next, counts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(bench) = benches.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let count = callgrind(bench.name, how, "/dev/null")
                        .map(|instructions| Count::new(bench, instructions));
                    counts.lock().expect("not poisoned").push((bench.name, count));
                }
            });
        }
    });
    let mut counts = counts.into_inner().expect("not poisoned");
    counts.sort_by_key(|(name, _)| benches.iter().position(|bench| bench.name == *name));
    counts.into_iter().map(|(_, count)| count).collect()
}

/// Writes a profile, and says how to read it.
pub(crate) fn profile(name: &str) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let file = program.with_file_name(format!("callgrind.{}.out", name.replace('/', "-")));
    let file = file.display().to_string();
    let instructions = callgrind(name, "--measure", &file)?;
    println!("{instructions} instructions; see callgrind_annotate --auto=yes {file}");
    Ok(())
}

/// Asks the valgrind that runs this program to instrument it.
pub(crate) fn count_from_here() -> Result<(), String> {
    let pid = std::process::id().to_string();
    let output = Command::new("callgrind_control").args(["-i", "on", &pid]).output();
    let output = output.map_err(|error| format!("callgrind_control does not start: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if said.contains("OK") { Ok(()) } else { Err(format!("callgrind_control: {said}")) }
}

fn callgrind(name: &str, how: &str, file: &str) -> Result<u64, String> {
    let program: PathBuf = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=instructions::measured*"])
        .arg(format!("--callgrind-out-file={file}"))
        .args((how == "--measure-late").then_some("--instr-atstart=no"))
        .arg(program)
        .args([how, name])
        // What lies on the stack moves what is above it, and copies depend a little on how they are aligned.
        .env_clear()
        // glibc copies from 2 KiB on by `rep movsb`, of which every byte would count as an instruction.
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-ERMS")
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind does not start: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    match collected {
        Some(instructions @ 1..) if output.status.success() => Ok(instructions),
        _ => Err(format!("{name} was not counted, {}:\n{said}", output.status)),
    }
}
