//! Servers that no chain is behind.
