//! The events of a node as a stream for its host.

use futures::Stream;
use psyche_messages::NodeEvent;
use tokio::sync::{broadcast, watch};

/// What a listener hears.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Heard {
    /// Something happened.
    Event(NodeEvent),
    /// The listener was too slow: so many events are lost to it. They are in the event log on the disk.
    Missed(u64),
}

/// The events of a node from the moment of [`crate::Node::events`] on, until the node has ended. The node never waits for a
/// listener: of one that lags more than 1,024 events behind, the oldest are dropped, and it is told how many.
#[derive(Debug)]
pub struct Events {
    events: broadcast::Receiver<NodeEvent>,
    ended: watch::Receiver<bool>,
}

impl Events {
    pub(crate) const fn new(events: broadcast::Receiver<NodeEvent>, ended: watch::Receiver<bool>) -> Self {
        Self { events, ended }
    }

    /// The next event; `None` once the node has ended and everything was heard. Safe to cancel, and of any executor.
    pub async fn next(&mut self) -> Option<Heard> {
        let received = tokio::select! {
            biased;
            received = self.events.recv() => received,
            // An error means that the node's thread is gone, and with it all that could be said.
            _ended = self.ended.wait_for(|ended| *ended) => match self.events.try_recv() {
                Ok(event) => Ok(event),
                Err(broadcast::error::TryRecvError::Lagged(missed)) => Err(broadcast::error::RecvError::Lagged(missed)),
                Err(_nothing_more) => return None,
            },
        };
        match received {
            Ok(event) => Some(Heard::Event(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Heard::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// The same as a [`Stream`], for server-sent events and the like.
    pub fn into_stream(self) -> impl Stream<Item = Heard> + Send {
        futures::stream::unfold(self, |mut events| async { events.next().await.map(|heard| (heard, events)) })
    }
}
