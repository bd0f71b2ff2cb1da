//! psyche-messages
