//! psyche-localnet
