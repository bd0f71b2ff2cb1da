//! What is committed beside the sources.

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
