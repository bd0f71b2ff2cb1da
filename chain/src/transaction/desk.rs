//! What all submissions of a process share, so that each need not ask anew.

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Desk;
