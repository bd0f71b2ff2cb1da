//! Tests of the programs in `programs/elf`.

mod authorizer;
mod chain;
mod codes;
mod coordinator;
mod run;
mod tokens;
mod treasurer;
mod treasury;
