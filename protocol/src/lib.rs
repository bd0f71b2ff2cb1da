//! psyche-protocol
