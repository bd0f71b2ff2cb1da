//! What the three programs have in common: taking accounts out of an instruction and refusing the wrong ones with the
//! codes that clients of the reference programs already know, creating program-derived accounts, and the entrypoint.
//!
//! The order of checks follows Anchor, so that the same wrong instruction gets the same code: first arguments, then every
//! account by itself (signer, owner, discriminator), then the constraints between accounts in their order.

#![no_std]

pub mod account;
pub mod call;
pub mod code;
pub mod create;

pub use call::Call;

/// Declares the entrypoint of a program whose instructions are handled by `$process`.
///
/// Only on-chain builds get it, so that the same crate also builds for the host.
#[macro_export]
macro_rules! entrypoint {
    ($process:path) => {
        #[cfg(any(target_os = "solana", target_arch = "bpf"))]
        mod entrypoint {
            // No instruction takes more accounts; what exceeds them is ignored.
            pinocchio::program_entrypoint!($process, 12);
            pinocchio::default_allocator!();
            pinocchio::nostd_panic_handler!();
        }
    };
}
