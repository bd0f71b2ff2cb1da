//! The state machines of the two smaller programs (ABI sections 1.3, 2 and 3).
//!
//! *Purpose*: everything that an instruction of the authorizer or the treasurer decides once its shell has checked
//! owners, types and addresses of the accounts: who may, what is written, how long the account becomes, what is paid.
//! Programs run it on chain; nodes and tests run the same code over account data.
//!
//! *Invariants*: a function that returns an error has changed nothing (but [`treasurer::run_update`], see there). An
//! authorization is created inactive, and only its grantor's updates touch its time. What users have claimed sums up to
//! what their run has paid, and nobody claims more than was earned and not slashed.

pub mod authorizer;
mod error;
pub mod treasurer;

pub use error::{AuthorizerError, TreasurerError};

#[cfg(test)]
mod tests;
