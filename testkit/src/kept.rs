//! `fuzz/inputs.txt`: the inputs that the fuzzers found worth keeping.

use std::{fs, path::Path};

/// The inputs, one per line of the file: the target, what is special about the input, its bytes.
///
/// The file is in the repository and not in a package of this crate, where a line on stdout says that it is missing.
///
/// # Panics
/// Panics if the repository has no such file, or a line is malformed.
pub fn inputs() -> Vec<(String, String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../fuzz/inputs.txt");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if is_package(root) => {
            println!("skipped: a package has no {} ({error})", path.display());
            return Vec::new();
        }
        Err(error) => panic!("{}: {error}", path.display()),
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let inputs = lines.map(|line| {
        let (target, rest) = line.split_once(' ').expect("a line has three words");
        let (name, hex) = rest.rsplit_once(' ').expect("a line has three words");
        (target.to_owned(), name.to_owned(), bytes(hex))
    });
    let inputs: Vec<_> = inputs.collect();
    assert!(!inputs.is_empty(), "{} has no inputs", path.display());
    inputs
}

/// `cargo package` writes this file.
fn is_package(root: &Path) -> bool {
    root.join("Cargo.toml.orig").exists()
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).expect("ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("two digits")).collect()
}
