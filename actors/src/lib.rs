//! psyche-actors
