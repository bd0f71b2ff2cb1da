//! The programs that a local chain starts with, as built by programs/build.sh.

use psyche_localnet::Program;
use psyche_protocol::ids;

/// Coordinator, authorizer and treasurer at their default ids.
pub(crate) fn bundled() -> Vec<Program> {
    let elf = |id, bytes: &[u8]| Program { id, elf: bytes.to_vec() };
    vec![
        elf(ids::COORDINATOR, include_bytes!("../../programs/elf/coordinator.so")),
        elf(ids::AUTHORIZER, include_bytes!("../../programs/elf/authorizer.so")),
        elf(ids::TREASURER, include_bytes!("../../programs/elf/treasurer.so")),
    ]
}
