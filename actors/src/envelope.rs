//! Carries any [`Command`] through an actor's mailbox: messages are defined without a framework, this is the link.

use psyche_messages::Command;

/// A command on its way to an actor.
#[derive(Debug)]
pub struct Ask<C>(pub C);

impl<C: Command> actix::Message for Ask<C> {
    type Result = C::Reply;
}
