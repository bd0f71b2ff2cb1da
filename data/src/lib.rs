//! psyche-data
