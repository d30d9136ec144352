//! `docs/llhls.md` and the tests it names.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// File and function of every `path::name` in the table.
fn named(table: &str) -> BTreeSet<(String, String)> {
    let quoted = table.lines().filter(|l| l.starts_with('|')).flat_map(|l| l.split('`').skip(1).step_by(2));
    let file = |path: &str| match path.starts_with("src/") || path.starts_with("worker/") {
        true => format!("{path}.rs"),
        false => format!("tests/{path}.rs"),
    };
    quoted.filter_map(|text| text.rsplit_once("::")).map(|(path, name)| (file(path), name.to_owned())).collect()
}

/// Functions behind `#[test]`.
fn tests_of(source: &str) -> Vec<&str> {
    let attribute = |line: &str| line.trim() == "#[test]";
    let lines: Vec<&str> = source.lines().collect();
    let behind = lines.iter().enumerate().filter(|(_, line)| attribute(line)).map(|(at, _)| &lines[at + 1..]);
    behind.filter_map(|rest| rest.iter().find_map(|l| l.trim().strip_prefix("fn ")?.split('(').next())).collect()
}

#[test]
fn every_test_that_the_table_names_exists_and_every_test_of_these_is_named() {
    let table = fs::read_to_string(root().join("docs/llhls.md")).unwrap();
    let named = named(&table);
    let mut wrong = Vec::new();
    for (file, name) in &named {
        let source = fs::read_to_string(root().join(file)).unwrap_or_default();
        if !tests_of(&source).contains(&name.as_str()) {
            wrong.push(format!("docs/llhls.md names {name} in {file}: there is no such test"));
        }
    }
    let mut own = 0;
    for entry in fs::read_dir(root().join("tests/llhls")).unwrap() {
        let path = entry.unwrap().path();
        let file = format!("tests/llhls/{}", path.file_name().unwrap().to_string_lossy());
        for name in tests_of(&fs::read_to_string(&path).unwrap()) {
            own += 1;
            if !file.ends_with("table.rs") && !named.contains(&(file.clone(), name.to_owned())) {
                wrong.push(format!("{file}: docs/llhls.md does not name {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(own > 40 && named.len() > 90, "{own} {}", named.len());
}

#[test]
fn no_row_of_the_table_is_empty() {
    let table = fs::read_to_string(root().join("docs/llhls.md")).unwrap();
    let rows = table.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| clause") && !l.starts_with("| rule"));
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert!(cells.len() == 3 && cells.iter().all(|cell| cell.len() > 1), "{row}");
    }
}
