//! Drills: how a run bears a node that does not tell the truth. A host that rehearses it has one node say something else
//! than it means to, in its own name and under its own signature. Only code that holds a
//! [`NodeBuilder`](super::NodeBuilder) can do that; no variable and no command leads here.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use psyche_messages::RoundMessage;
use psyche_net::NetHandle;

type Says = dyn Fn(NetHandle, RoundMessage) -> BoxFuture<'static, RoundMessage> + Send + Sync;

/// What a node says instead of what it means to say.
#[derive(Clone)]
pub struct Drill(Arc<Says>);

impl Drill {
    /// Has every message of the node's pass through `says` before it is signed. The node repeats what it means to say, so
    /// equal messages must come out equal; with the network a drill can store the blobs that it speaks of.
    pub fn new(says: impl Fn(NetHandle, RoundMessage) -> BoxFuture<'static, RoundMessage> + Send + Sync + 'static) -> Self {
        Self(Arc::new(says))
    }

    pub(crate) async fn says(&self, net: &NetHandle, message: RoundMessage) -> RoundMessage {
        (self.0)(net.clone(), message).await
    }
}

impl fmt::Debug for Drill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drill").finish_non_exhaustive()
    }
}
