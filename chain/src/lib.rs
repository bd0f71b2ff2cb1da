//! psyche-chain
