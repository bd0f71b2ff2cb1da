//! Tests of the programs in `programs/elf`.

mod authority;
mod authorizer;
mod books;
mod chain;
mod codes;
mod committed;
mod compute;
mod compute_tokens;
mod coordinator;
mod differential;
mod epoch;
mod gaps;
mod run;
mod tokens;
mod treasurer;
mod treasury;
