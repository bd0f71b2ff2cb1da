//! Runs on the programs' bytecode.
