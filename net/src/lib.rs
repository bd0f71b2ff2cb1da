//! psyche-net
