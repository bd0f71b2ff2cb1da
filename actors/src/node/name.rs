//! The name under which a node's lines appear in its host's log, for hosts that have several nodes.
//!
//! A span that every thread of the node's is in for as long as it runs: whatever happens there belongs to the node.

use std::cell::RefCell;
use std::mem::ManuallyDrop;

use tracing::Span;
use tracing::span::EnteredSpan;

thread_local! {
    /// Not dropped with the thread, when what a span needs for its end may be gone already: [`leave`] takes it out.
    static ENTERED: RefCell<Option<ManuallyDrop<EnteredSpan>>> = const { RefCell::new(None) };
}

/// The span of a node of this name; none for one without.
pub(super) fn span(name: Option<&str>) -> Span {
    name.map_or_else(Span::none, |name| tracing::info_span!("node", name))
}

/// Puts the calling thread into `span` until it [leaves](leave).
pub(super) fn enter(span: &Span) {
    leave();
    let entered = ManuallyDrop::new(span.clone().entered());
    ENTERED.with_borrow_mut(|kept| *kept = Some(entered));
}

/// Takes the calling thread out of its node's span.
pub(super) fn leave() {
    if let Some(entered) = ENTERED.take() {
        drop(ManuallyDrop::into_inner(entered));
    }
}
