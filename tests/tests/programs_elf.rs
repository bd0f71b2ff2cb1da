//! The committed on-chain programs, run as bytecode in a virtual machine of the chain: what each instruction does, what
//! it refuses, one whole epoch, and byte-for-byte comparison with the native state machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests may unwrap and report")]

mod programs;
