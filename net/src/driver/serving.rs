//! Serving ranges of blobs: read off the task, bounded in all and for each peer from the request to the last byte sent.

use std::collections::HashMap;
use std::time::Instant;

use libp2p::PeerId;
use libp2p::request_response::{InboundRequestId, ResponseChannel};

use super::Driver;
use crate::behaviour::REQUEST_TIMEOUT;
use crate::transfer::{RangeRequest, RangeResponse};

/// Ranges served at a time, 16 MiB at most; further requests are answered with "busy".
pub(super) const SERVED_MAX: usize = 64;

/// Of these, for one peer.
const SERVED_TO_PEER_MAX: usize = 16;

/// Requests that are being served.
#[derive(Default)]
pub(super) struct Serving {
    requests: HashMap<InboundRequestId, (PeerId, Instant)>,
}

impl Serving {
    /// Whether another request of `peer` is within bounds; if so it counts until [`Serving::done`].
    fn admit(&mut self, id: InboundRequestId, peer: PeerId, now: Instant) -> bool {
        let of_peer = self.requests.values().filter(|(other, _)| *other == peer).count();
        if self.requests.len() >= SERVED_MAX || of_peer >= SERVED_TO_PEER_MAX {
            return false;
        }
        self.requests.insert(id, (peer, now));
        true
    }

    /// The response is sent, or never will be.
    pub(super) fn done(&mut self, id: InboundRequestId) {
        self.requests.remove(&id);
    }

    /// Drops what must have timed out, so that a lost notification can't block a place for ever.
    pub(super) fn forget_old(&mut self, now: Instant) {
        self.requests.retain(|_, (_, since)| now.saturating_duration_since(*since) < 2 * REQUEST_TIMEOUT);
    }
}

impl Driver {
    /// Answers a request; the file is read off the task, so that a slow disk delays nothing else.
    pub(super) fn serve(
        &mut self,
        id: InboundRequestId,
        peer: PeerId,
        request: RangeRequest,
        channel: ResponseChannel<RangeResponse>,
    ) {
        if !self.serving.admit(id, peer, Instant::now()) {
            // The requester may have given up meanwhile; the behaviour reports that itself.
            let _late = self.swarm.behaviour_mut().blobs.send_response(channel, RangeResponse::Busy);
            return;
        }
        let (blobs, served) = (self.blobs.clone(), self.served.clone());
        drop(tokio::task::spawn_blocking(move || {
            let response = match blobs.read_range(&request.hash(), request.total(), request.range()) {
                Ok(Some(bytes)) => RangeResponse::Bytes(bytes),
                Ok(None) => RangeResponse::Missing,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(blob = request.hash().short(), error, "blob can't be read for a peer");
                    RangeResponse::Missing
                }
            };
            // There is room for all that are admitted; where there is none, the request has timed out, or the network stopped.
            let _late = served.try_send((channel, response));
        }));
    }
}
