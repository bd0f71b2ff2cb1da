//! What is committed beside the sources.

use std::path::{Path, PathBuf};

use psyche_protocol::machine::CoordinatorError;
use sha2::{Digest, Sha256};

use super::chain::elf;

#[test]
fn the_committed_bytecode_has_the_committed_sums() {
    let sums = std::fs::read_to_string(elf("coordinator").with_file_name("SHA256SUMS")).unwrap();
    let mut names = Vec::new();
    for line in sums.lines() {
        let (sum, file) = line.split_once("  ").unwrap();
        let name = file.strip_suffix(".so").unwrap();
        let found = Sha256::digest(std::fs::read(elf(name)).unwrap());
        let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, sum, "programs/build.sh was not run to its end");
        names.push(name);
    }
    names.sort_unstable();
    assert_eq!(names, ["authorizer", "coordinator", "treasurer"]);
}

#[test]
fn the_committed_bytecode_names_no_folder_of_the_machine_that_built_it() {
    for name in ["authorizer", "coordinator", "treasurer"] {
        let bytes = std::fs::read(elf(name)).unwrap();
        for folder in ["rustlib", "registry", "home", "root", "usr", "opt", "tmp"].map(|name| format!("/{name}/")) {
            let found = bytes.windows(folder.len()).position(|window| window == folder.as_bytes());
            assert_eq!(found, None, "{name}.so names a folder in {folder}; did its compiler lie behind a link?");
        }
    }
}

/// The text of every Rust file below `folder`.
fn sources(folder: &Path, found: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn the_documents_name_every_code_and_tests_that_exist() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut code = String::new();
    for folder in ["protocol/src", "protocol/tests", "tests/tests/programs", "actors/src"] {
        sources(&root.join(folder), &mut code);
    }
    let text = std::fs::read_to_string(root.join("docs/PROGRAMS.md")).unwrap();
    // Names of tests are sentences: four words at least.
    let names = text
        .split('`')
        .filter(|name| name.split('_').count() >= 4 && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()));
    let fields = ["sol_curve_validate_point", "set_future_epoch_rates"];
    let missing: Vec<&str> = names.filter(|name| !fields.contains(name) && !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
    for error in CoordinatorError::ALL {
        let row = format!("| {} | {error:?} |", error.code());
        assert!(text.contains(&row), "no row {row}");
    }
}
