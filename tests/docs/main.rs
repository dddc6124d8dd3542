//! The specification, the table of its tests, and the tests themselves agree.
//! So do links and what they lead to.

mod links;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

const SPECIFICATION: &str = include_str!("../../docs/specification.md");
const TESTS: &str = include_str!("../../docs/rules_and_tests.md");
const SESSIONS: &str = include_str!("../../socketio/docs/specification.md");
const ARCHITECTURE: &str = include_str!("../../docs/architecture.md");

/// A row of a table: the rules that it is about, and what its last column quotes.
struct Row<'a> {
    rules: Vec<&'a str>,
    names: Vec<&'a str>,
}

/// The rows of all tables in `text` that begin with rules, or with `-` for none.
fn rows(text: &str) -> Vec<Row<'_>> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let &[first, _, last] = &cells[..] else { panic!("a row has three cells: {line}") };
        if first.starts_with(|c: char| c.is_ascii_digit() || c == '-') && !first.starts_with("---") {
            let rules = first.split(", ").filter(|rule| *rule != "-").collect();
            found.push(Row { rules, names: last.split('`').skip(1).step_by(2).collect() });
        }
    }
    found
}

/// The numbers of the headings `### 3.2 ...`.
fn rules(specification: &str) -> Vec<&str> {
    specification
        .lines()
        .filter_map(|line| line.strip_prefix("### ")?.split(' ').next())
        .filter(|number| number.starts_with(|c: char| c.is_ascii_digit()))
        .collect()
}

/// The rows under a heading.
fn rows_under<'a>(heading: &str, text: &'a str) -> Vec<Row<'a>> {
    let (_, rest) = text.split_once(&format!("\n## {heading}\n")).expect("the section of that table");
    rows(rest.split("\n## ").next().expect("a section"))
}

/// The rows under "Not implemented yet".
fn missing(specification: &str) -> Vec<Row<'_>> {
    rows_under("Not implemented yet", specification)
}

/// A specification: its rules, which tests stand for them, and which rules wait for their code.
struct Specification {
    rules: Vec<&'static str>,
    rows: Vec<Row<'static>>,
    missing: Vec<Row<'static>>,
}

impl Specification {
    /// How connections end.
    fn of_closing() -> Self {
        Self { rules: rules(SPECIFICATION), rows: rows(TESTS), missing: missing(SPECIFICATION) }
    }

    /// What `adjourn-socketio` promises.
    fn of_sessions() -> Self {
        let rows = rows_under("Which test stands for which rule", SESSIONS);
        Self { rules: rules(SESSIONS), rows, missing: missing(SESSIONS) }
    }

    /// Rules that have neither a test nor a mark, and rules of rows that do not exist.
    fn wrong(&self) -> (Vec<&str>, Vec<&str>) {
        let marked: BTreeSet<_> = self.missing.iter().flat_map(|row| &row.rules).collect();
        let unproved = uncovered(&self.rules, &self.rows);
        let unknown = [unheard_of(&self.rules, &self.rows), unheard_of(&self.rules, &self.missing)].concat();
        (unproved.into_iter().filter(|rule| !marked.contains(rule)).collect(), unknown)
    }
}

/// Rules are numbered 1.1, 1.2, ..., 2.1, ..., without a gap and without repetition.
fn misnumbered<'a>(rules: &[&'a str]) -> Vec<&'a str> {
    let mut last = (1, 0);
    let mut wrong = Vec::new();
    for rule in rules {
        let parts = rule.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        match parts {
            Some((section, number))
                if (section, number) == (last.0, last.1 + 1) || (section, number) == (last.0 + 1, 1) =>
            {
                last = (section, number);
            }
            _ => wrong.push(*rule),
        }
    }
    wrong
}

/// Rules that no row is about.
fn uncovered<'a>(rules: &[&'a str], rows: &[Row<'_>]) -> Vec<&'a str> {
    let covered: BTreeSet<_> =
        rows.iter().filter(|row| !row.names.is_empty()).flat_map(|row| &row.rules).collect();
    rules.iter().copied().filter(|rule| !covered.contains(rule)).collect()
}

/// Rules of rows that the specification does not have.
fn unheard_of<'a>(rules: &[&str], rows: &[Row<'a>]) -> Vec<&'a str> {
    rows.iter().flat_map(|row| row.rules.iter().copied()).filter(|rule| !rules.contains(rule)).collect()
}

/// Names that are not the names of tests.
fn no_tests<'a>(rows: &[Row<'a>], tests: &BTreeSet<String>) -> Vec<&'a str> {
    rows.iter().flat_map(|row| row.names.iter().copied()).filter(|name| !tests.contains(*name)).collect()
}

/// Tests that no row of their section names; those without a number: that no row names.
fn unnamed<'a>(tests: &'a BTreeSet<String>, rows: &[Row<'_>]) -> Vec<&'a str> {
    let mut sections: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for row in rows {
        for name in &row.names {
            let of_row = row.rules.iter().filter_map(|rule| rule.split('.').next());
            sections.entry(name).or_default().extend(of_row);
        }
    }
    let is_named = |test: &&String| {
        sections.get(test.as_str()).is_some_and(|found| section(test).is_none_or(|of| found.contains(of)))
    };
    tests.iter().filter(|test| !is_named(test)).map(String::as_str).collect()
}

/// `4` of `s4_open_data`.
fn section(test: &str) -> Option<&str> {
    let (number, _) = test.strip_prefix('s')?.split_once('_')?;
    (!number.is_empty() && number.chars().all(|c| c.is_ascii_digit())).then_some(number)
}

/// What `text` quotes as `file.rs::function` and is not a function of that file.
fn no_functions(text: &str, source: impl Fn(&str) -> Option<String>) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|word| {
            word.split_once(".rs::").is_some_and(|(file, function)| {
                let defines = |source: String| {
                    let mut found = source.split("fn ").skip(1);
                    found.any(|rest| identifier(rest) == function)
                };
                !source(&format!("{file}.rs")).is_some_and(defines)
            })
        })
        .collect()
}

/// Rules or sections that comments name as "specification 3" or "specification 3.1, 4", and that do not exist.
fn no_rules(text: &str, rules: &[&str]) -> Vec<String> {
    let exists = |number: &str| {
        rules.iter().any(|rule| *rule == number || rule.split('.').next() == Some(number))
            || number == "23"
            || number == "24"
    };
    let lists = text.split("specification ").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && !", .".contains(c)).unwrap_or(rest.len());
        &rest[..end]
    });
    lists
        .flat_map(|list| list.split(", "))
        .map(|number| number.trim().trim_end_matches('.'))
        .filter(|number| number.starts_with(|c: char| c.is_ascii_digit()) && !exists(number))
        .map(str::to_owned)
        .collect()
}

/// The functions with `#[test]` in the files below a directory, and those that a macro makes tests of for each store.
fn rust_tests(directory: &Path, tests: &mut BTreeSet<String>) {
    for path in files(directory) {
        if path.is_dir() {
            rust_tests(&path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("source is text");
            let mut is_test = false;
            for line in text.lines().map(str::trim_start) {
                is_test |= line == "#[test]" || (line.starts_with("fn ") && line.ends_with("(disk) {"));
                if let Some(name) = line.strip_prefix("fn ").filter(|_| is_test) {
                    tests.insert(identifier(name));
                    is_test = false;
                }
            }
        }
    }
}

/// The tests of the official client: their names are sentences.
fn official_tests(directory: &Path) -> BTreeSet<String> {
    let scripts = files(directory).into_iter().filter(|path| path.extension().is_some_and(|end| end == "js"));
    let texts = scripts.map(|path| fs::read_to_string(path).expect("source is text"));
    let names = |text: String| {
        let begins = ["test('", "each('"].into_iter().flat_map(|call| text.split(call).skip(1));
        begins
            .map(|rest| rest.split("', async").next().expect("a name").replace("\\'", "'"))
            .collect::<Vec<_>>()
    };
    texts.flat_map(names).collect()
}

/// What `tests/lab/run.py` takes for a test.
fn lab_tests(directory: &Path) -> BTreeSet<String> {
    let is_test =
        |name: &String| section(name).is_some() || name.starts_with("lab_") || name.starts_with("hostile_");
    files(directory)
        .into_iter()
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("test_") && path.extension().is_some_and(|extension| extension == "py")
        })
        .flat_map(|path| {
            let text = fs::read_to_string(&path).expect("source is text");
            text.lines()
                .filter_map(|line| line.strip_prefix("def ").map(identifier))
                .filter(is_test)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The attacks of `tests/lab/attacks.py`.
fn attacks(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).expect("source is text");
    let mut is_attack = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        is_attack |= line.starts_with("@attack(");
        if let Some(name) = line.strip_prefix("def ").filter(|_| is_attack) {
            found.insert(identifier(name));
            is_attack = false;
        }
    }
    found
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The rows of both pages of the closing specification.
fn all_rows() -> Vec<Row<'static>> {
    rows(TESTS).into_iter().chain(missing(SPECIFICATION)).collect()
}

#[test]
fn rules_are_numbered_without_a_gap() {
    let none: [&str; 0] = [];
    for (specification, sections) in
        [(Specification::of_closing(), "13."), (Specification::of_sessions(), "22.")]
    {
        assert_eq!(misnumbered(&specification.rules), none);
        assert!(specification.rules.last().is_some_and(|rule| rule.starts_with(sections)), "to {sections}");
    }
}

#[test]
fn every_rule_has_a_test_or_is_marked_as_not_implemented() {
    for specification in [Specification::of_closing(), Specification::of_sessions()] {
        let (unproved, unknown) = specification.wrong();
        assert!(unproved.is_empty(), "neither a test nor a mark: {unproved:?}");
        assert!(unknown.is_empty(), "tables name rules that do not exist: {unknown:?}");
    }
}

#[test]
fn every_test_of_the_session_specification_exists() {
    let crate_ = root().join("socketio");
    let mut tests = official_tests(&crate_.join("tests/official"));
    rust_tests(&crate_.join("tests"), &mut tests);
    rust_tests(&crate_.join("src"), &mut tests);
    let unknown = no_tests(&Specification::of_sessions().rows, &tests);
    assert!(unknown.is_empty(), "the page names tests that do not exist: {unknown:?}");
}

#[test]
fn every_rule_that_a_comment_of_the_session_layer_names_exists() {
    let rules = rules(SESSIONS);
    let mut files: Vec<_> = ["src", "tests"].map(|part| root().join("socketio").join(part)).into();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let unknown = no_rules(&fs::read_to_string(&path).expect("source is text"), &rules);
            assert!(unknown.is_empty(), "{}: {unknown:?}", path.display());
        }
    }
}

#[test]
fn every_test_that_the_pages_name_exists() {
    let mut tests = lab_tests(&root().join("tests/lab"));
    tests.extend(attacks(&root().join("tests/lab/attack_rows.py")));
    rust_tests(&root().join("tests"), &mut tests);
    rust_tests(&root().join("src"), &mut tests);
    rust_tests(&root().join("testkit"), &mut tests);
    let unknown = no_tests(&all_rows(), &tests);
    assert!(unknown.is_empty(), "the pages name tests that do not exist: {unknown:?}");
}

#[test]
fn every_black_box_test_stands_in_its_section() {
    let tests = lab_tests(&root().join("tests/lab"));
    let missing = unnamed(&tests, &all_rows());
    assert!(missing.is_empty(), "not in a row of their section of docs/rules_and_tests.md: {missing:?}");
}

#[test]
fn every_function_on_the_ways_exists() {
    assert!(ARCHITECTURE.matches(".rs::").count() > 40, "the ways are told by functions");
    let unknown = no_functions(ARCHITECTURE, |file| fs::read_to_string(root().join("src").join(file)).ok());
    assert!(unknown.is_empty(), "docs/architecture.md names functions that do not exist: {unknown:?}");
}

#[test]
fn each_of_these_checks_can_fail() {
    let specification = "\n## Not implemented yet\n| 1.2 | all | |\n## 1\n### 1.1 a\n### 1.2 b\n### 1.4 c\n";
    let numbers = rules(specification);
    assert_eq!(numbers, ["1.1", "1.2", "1.4"]);
    assert_eq!(misnumbered(&numbers), ["1.4"]);
    assert_eq!(missing(specification)[0].rules, ["1.2"]);

    let rows = rows(
        "| Rule | What | Tests |\n| --- | --- | --- |\n| **1** | | |\n| 1.1, 1.9 | x | `s1_a` `s2_b` |\n| 1.2 | y | |\n",
    );
    assert_eq!(uncovered(&numbers, &rows), ["1.2", "1.4"]);
    assert_eq!(unheard_of(&numbers, &rows), ["1.9"]);
    let tests = ["s1_a", "s1_c", "s2_b", "lab_d"].map(str::to_owned).into_iter().collect();
    assert_eq!(unnamed(&tests, &rows), ["lab_d", "s1_c", "s2_b"]);
    assert_eq!(no_tests(&rows, &["s1_a".to_owned()].into_iter().collect()), ["s2_b"]);
    let way = "by `a.rs::read`, `a.rs::rea`, `b.rs::read` and `Event::Message`";
    let source = |file: &str| (file == "a.rs").then(|| "pub fn read<T>(t: T) {}".to_owned());
    assert_eq!(no_functions(way, source), ["a.rs::rea", "b.rs::read"]);
    let comment = "(specification 1.1, 1.3) and specification 1; specification 9. The specification 2";
    assert_eq!(no_rules(comment, &["1.1", "1.2"]), ["1.3", "9", "2"]);
    assert_eq!(section("s11_x"), Some("11"));
    assert_eq!([section("sx_y"), section("sum"), section("lab_4")], [None; 3]);
}
