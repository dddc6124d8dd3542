//! What a server holds for clients that do not read, and how much of it is left when they have disconnected.

use crate::lab::{Lab, Memory, Report, Result, Work, float};
use crate::modes::drop_all;
use std::io::Write as _;
use std::time::Duration;

/// How long what was held may take to go back to the system.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// `--conns` clients join a broadcast and read nothing. A speaker sends `--fill` bytes, most of which the kernel takes, then
/// `--excess` bytes more, in messages of `--size` bytes; then all of them leave. Measured is the growth of the server's
/// memory, when all was sent and five seconds after they left.
pub fn slow(lab: &mut Lab) -> Result<()> {
    let conns: usize = lab.options.number("conns", 500)?;
    let (fill, excess): (usize, usize) =
        (lab.options.number("fill", 4_000_000)?, lab.options.number("excess", 4_000_000)?);
    let work = Work::from_options(&lab.options)?;
    lab.open(16, 16, "/echo", None)?;
    for index in 0..16 {
        lab.exchange(index, &work)?;
    }
    lab.check_sizes(0)?;
    drop_all(lab);
    let rest = |lab: &Lab| -> Result<Memory> {
        lab.settle(Duration::from_millis(500))?;
        lab.memory()
    };
    let before = rest(lab)?;
    // The speaker is the first. A small receive buffer lets the kernel take less.
    lab.open(1, 1, "/broadcast", None)?;
    lab.open(conns, 64, "/broadcast", Some(4096))?;
    let frames = work.frame.repeat(100);
    for _ in 0..(fill + excess) / frames.len() {
        lab.conns[0].stream.write_all(&frames)?;
    }
    let held = rest(lab)?;
    drop_all(lab);
    std::thread::sleep(AFTERWARDS);
    let left = rest(lab)?;
    let mut report = Report::default();
    report.number("units", float(conns as u64));
    report.number("mib_held", (held.anonymous - before.anonymous) / 1_048_576.0);
    report.number("mib_left", (left.anonymous - before.anonymous) / 1_048_576.0);
    report.print();
    Ok(())
}
