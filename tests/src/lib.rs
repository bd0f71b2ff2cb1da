//! psyche-tests
