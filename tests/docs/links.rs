//! The pages for people: each link leads somewhere, on the host of the repository and on docs.rs, and no line is meant for
//! rustdoc alone. Links to docs.rs itself are checked by `.ci/links`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const GUIDE: &str = include_str!("../../src/guide.rs");
const LIB: &str = include_str!("../../src/lib.rs");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Markdown files below a directory, without what is built or installed.
fn pages(directory: &Path, found: &mut Vec<PathBuf>) {
    const NOT_OURS: [&str; 7] = ["target", "node_modules", "venv", "corpus", ".git", "artifacts", "coverage"];
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !NOT_OURS.contains(&name) {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The lines outside of code, and those of code in Rust.
fn split(text: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut prose, mut rust, mut fence) = (Vec::new(), Vec::new(), None);
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), fence) {
            (Some(language), None) => fence = Some(language),
            (Some(_), Some(_)) => fence = None,
            (None, Some(language)) if language.starts_with("rust") => rust.push(line),
            (None, Some(_)) => {}
            (None, None) => prose.push(line),
        }
    }
    (prose, rust)
}

/// `target` of each `](target)`.
fn inline_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// `[label]: target`.
fn definition(line: &str) -> Option<(&str, &str)> {
    let (label, target) = line.strip_prefix('[')?.split_once("]: ")?;
    Some((label, target.trim()))
}

/// `label` of each `][label]`.
fn labels(line: &str) -> impl Iterator<Item = &str> {
    line.split("][").skip(1).filter_map(|rest| rest.split(']').next())
}

fn is_file(target: &str) -> bool {
    !target.starts_with('#') && !target.contains("://") && !target.starts_with("mailto:")
}

/// What is wrong with a page; `overlay` are the labels that docs.rs has another target for, if it shows the page.
fn faults(page: &Path, text: &str, overlay: Option<&BTreeSet<&str>>) -> Vec<String> {
    let (prose, rust) = split(text);
    let mut faults: Vec<String> = rust
        .iter()
        .filter(|line| line.starts_with("# ") || **line == "#")
        .map(|line| format!("a line for rustdoc alone: {line}"))
        .collect();
    let exists = |target: &str| {
        let file = target.split('#').next().unwrap_or(target);
        page.parent().is_some_and(|directory| directory.join(file).exists())
    };
    let mut defined = BTreeSet::new();
    for (label, target) in prose.iter().filter_map(|line| definition(line)) {
        defined.insert(label);
        if is_file(target) && !exists(target) {
            faults.push(format!("no such file: {target}"));
        }
        if is_file(target) && overlay.is_some_and(|overlay| !overlay.contains(label)) {
            faults.push(format!("dead on docs.rs: [{label}]: {target}"));
        }
    }
    for line in &prose {
        for target in inline_targets(line).filter(|target| is_file(target)) {
            if overlay.is_some() {
                faults.push(format!("dead on docs.rs, which needs a label: {target}"));
            } else if !exists(target) {
                faults.push(format!("no such file: {target}"));
            }
        }
        let undefined = labels(line).filter(|label| !defined.contains(label));
        faults.extend(undefined.map(|label| format!("no definition of [{label}]")));
    }
    faults
}

/// The labels that a source file of the documentation defines before it includes a page.
fn overlay(source: &str) -> BTreeSet<&str> {
    let lines = source.lines().map(|line| line.trim_start_matches(['/', '!', ' ', '"']));
    lines.filter_map(|line| definition(line).map(|(label, _)| label)).collect()
}

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    pages(root(), &mut found);
    assert!(found.len() > 15, "pages were found");
    let (of_guide, of_readme) = (overlay(GUIDE), overlay(LIB));
    for page in found {
        let name = page.strip_prefix(root()).expect("below the root");
        let shown = if name == Path::new("README.md") {
            Some(&of_readme)
        } else {
            name.starts_with("docs").then_some(&of_guide)
        };
        let text = fs::read_to_string(&page).expect("a page is text");
        wrong.extend(faults(&page, &text, shown).iter().map(|fault| format!("{}: {fault}", name.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_example_is_on_the_page_of_examples() {
    let page = include_str!("../../docs/which_example.md");
    let named: BTreeSet<_> = page.lines().filter_map(definition).map(|(label, _)| label.to_owned()).collect();
    let there: BTreeSet<_> = fs::read_dir(root().join("examples"))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(format!("example_{}", path.file_stem()?.to_str()?)))
        .collect();
    assert_eq!(named, there, "docs/which_example.md and src/guide.rs name every example");
}

/// Of a manifest, but `default`.
fn features(manifest: &str) -> BTreeSet<&str> {
    let (_, rest) = manifest.split_once("\n[features]\n").expect("the section of features");
    let section = rest.split("\n[").next().unwrap_or(rest);
    let names = section.lines().filter_map(|line| line.split_once(" = ").map(|(name, _)| name));
    names.filter(|name| !name.starts_with('#') && *name != "default").collect()
}

#[test]
fn every_feature_is_in_the_readme() {
    let readme = include_str!("../../README.md");
    let there = features(include_str!("../../Cargo.toml"));
    assert!(there.contains("deflate"), "features were found");
    let missing: Vec<_> = there.iter().filter(|name| !readme.contains(&format!("\n| `{name}` | "))).collect();
    assert!(missing.is_empty(), "no row in the table of README.md: {missing:?}");
}

#[test]
fn each_of_these_checks_can_fail() {
    assert_eq!(features("x\n[features]\ndefault = []\n# b = c\na = []\n\n[other]\nz = 1\n"), ["a"].into());
    let page = root().join("docs/page.md");
    let text = "[a](nowhere.md) [b][gone] [c][kept]\n\n[kept]: ../README.md\n[far]: https://example.com\n\n```rust\n# hidden\n```\n";
    let of = |overlay: &[&'static str]| faults(&page, text, Some(&overlay.iter().copied().collect()));
    let usual = [
        "a line for rustdoc alone: # hidden",
        "dead on docs.rs, which needs a label: nowhere.md",
        "no definition of [gone]",
    ];
    assert_eq!(of(&["kept"]), usual);
    assert!(of(&[]).contains(&"dead on docs.rs: [kept]: ../README.md".to_owned()));
    assert!(faults(&page, text, None).contains(&"no such file: nowhere.md".to_owned()));
    assert!(faults(&page, "[kept]: nowhere.md", None).contains(&"no such file: nowhere.md".to_owned()));
}
