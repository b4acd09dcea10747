//! `docs/reliability.md` names tests; a name that leads nowhere would be a claim without proof.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text() -> String {
    std::fs::read_to_string(root().join("docs/reliability.md")).unwrap()
}

/// What stands between backquotes and can be run.
fn claims(text: &str) -> Vec<&str> {
    let spans = text.split('`').skip(1).step_by(2);
    let runs = |span: &&str| ["--test ", "-p ", "fuzz/run "].iter().any(|it| span.starts_with(it));
    spans.filter(runs).collect()
}

/// Why it cannot be run.
fn wrong(claim: &str) -> Option<String> {
    let words: Vec<&str> = claim.split(' ').collect();
    let is_there = match *words.as_slice() {
        ["fuzz/run", target] | ["fuzz/run", target, _] => {
            root().join(format!("fuzz/fuzz_targets/{target}.rs")).is_file()
        }
        ["--test", "it", name] => is_test(&root().join("tests/it"), name),
        ["--test", harness] => root().join(format!("tests/{harness}/main.rs")).is_file(),
        ["--test", harness, name] => {
            let main = root().join(format!("tests/{harness}/main.rs"));
            let main = std::fs::read_to_string(main).unwrap_or_default();
            main.contains(&format!("(\"{name}\","))
        }
        ["-p", "tailmark-replication-model", "--test", file] => {
            root().join(format!("tests/replication/tests/{file}.rs")).is_file()
        }
        ["-p", "tailmark", "--lib", name] => is_test(&root().join("src"), name),
        ["-p", package, "--lib", name] => {
            let Some(package) = package.strip_prefix("tailmark-") else {
                return Some(claim.into());
            };
            is_test(&root().join("crates").join(package).join("src"), name)
        }
        _ => false,
    };
    (!is_there).then(|| claim.to_owned())
}

/// Whether a path of modules below this folder leads to a test, or to a module with tests.
fn is_test(below: &Path, name: &str) -> bool {
    let parts: Vec<&str> = name.split("::").collect();
    if below.join(parts.join("/")).is_dir() || file_of(below, &parts).is_some_and(has_tests) {
        return true;
    }
    let Some((test, module)) = parts.split_last() else { return false };
    let function = format!("fn {test}(");
    let has_it = |module: &[&str]| file_of(below, module).is_some_and(|t| t.contains(&function));
    // `mod tests` may stand in the file itself.
    let inline = module.split_last().filter(|(last, _)| **last == "tests");
    has_it(module) || inline.is_some_and(|(_, module)| has_it(module))
}

fn has_tests(text: String) -> bool {
    text.contains("#[test]") || text.contains("::test") || text.contains("mod tests")
}

fn file_of(below: &Path, module: &[&str]) -> Option<String> {
    let path: PathBuf = below.join(module.join("/"));
    let file = path.with_extension("rs");
    std::fs::read_to_string(file).or_else(|_| std::fs::read_to_string(path.join("mod.rs"))).ok()
}

#[test]
fn every_test_that_is_named_exists() {
    let text = text();
    let claims = claims(&text);
    assert!(claims.len() > 100, "{}", claims.len());
    let wrong: Vec<String> = claims.into_iter().filter_map(wrong).collect();
    assert_eq!(wrong, [""; 0], "named in docs/reliability.md, and not there");
}

/// The control.
#[test]
fn a_test_that_does_not_exist_is_found_out() {
    for claim in [
        "--test it upload::nothing_of_the_kind",
        "--test it nothing",
        "--test nothing",
        "--test kill9 nothing",
        "-p tailmark-log --lib eventlog::tests::order::nothing",
        "-p tailmark --lib nothing",
        "-p nothing --lib eventlog",
        "-p tailmark-replication-model --test nothing",
        "fuzz/run nothing",
    ] {
        assert!(wrong(claim).is_some(), "{claim}");
    }
}

#[test]
fn every_case_has_a_row() {
    let text = text();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let mut numbers: Vec<u32> =
        rows.flat_map(|cell| cell.split(", ")).filter_map(|cell| cell.parse().ok()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=54).collect::<Vec<_>>());
}
