//! The documents name tests; each of them must exist.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const PAGE: &str = include_str!("../docs/how_a_connection_ends.md");

/// What stands in backticks in the last section of the page and is spelled as a test's name is.
fn named() -> BTreeSet<&'static str> {
    let (_, section) = PAGE.split_once("\n## 8. ").expect("the page ends with its list of tests");
    let quoted = section.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted.filter(|word| is_test_name(word)).collect()
}

/// Settings and types have fewer words, and paths have other characters.
fn is_test_name(word: &str) -> bool {
    word.matches('_').count() >= 1
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !word.ends_with('_')
}

/// The functions that the files of a directory define, in Rust or in Python.
fn defined(directory: &Path, functions: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path: PathBuf = entry.expect("an entry").path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_dir() && !path.ends_with("foreign") {
            defined(&path, functions);
        } else if matches!(extension, Some("rs" | "py")) {
            let text = fs::read_to_string(&path).expect("source is text");
            functions.extend(text.lines().filter_map(|line| {
                let line = line.trim_start();
                let name = line.strip_prefix("fn ").or_else(|| line.strip_prefix("def "))?;
                Some(name.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()?.to_owned())
            }));
        }
    }
}

#[test]
fn every_test_that_the_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut functions = BTreeSet::new();
    defined(&root.join("tests"), &mut functions);
    defined(&root.join("src"), &mut functions);
    defined(&root.join("testkit"), &mut functions);
    let named = named();
    assert!(named.len() > 150, "the list was found: {} names", named.len());
    let missing: Vec<_> = named.iter().filter(|name| !functions.contains(**name)).collect();
    assert!(missing.is_empty(), "docs/how_a_connection_ends.md names tests that do not exist: {missing:?}");
}

/// The black-box tests that carry the number of a section are the proof of that section: each is in the list.
#[test]
fn every_numbered_test_is_named_by_the_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut functions = BTreeSet::new();
    defined(&root.join("tests/lab"), &mut functions);
    let named = named();
    let numbered = functions.iter().filter(|name| {
        let digits = name.strip_prefix('s').map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
        digits.is_some_and(|rest| rest.len() < name.len() - 1 && rest.starts_with('_'))
    });
    // Compression is not there yet.
    let missing: Vec<_> =
        numbered.filter(|name| !name.starts_with("s11_deflate_") && !named.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/how_a_connection_ends.md, section 8, does not name {missing:?}");
}
