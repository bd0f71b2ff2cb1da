//! Commands and their replies.

/// A request that some actor answers. Kept free of any actor framework, so that every crate can define commands.
pub trait Command: Send + 'static {
    /// What comes back.
    type Reply: Send + 'static;
}
