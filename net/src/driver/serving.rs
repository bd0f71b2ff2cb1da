//! Serving parts of blobs: read off the task, in turns, bounded in all and for each peer from the request to the last byte sent.

use std::collections::HashMap;
use std::time::Instant;

use libp2p::PeerId;
use libp2p::request_response::{InboundRequestId, ResponseChannel};
use psyche_messages::BlobHash;

use super::Driver;
use super::turns::{Bounds, Turns};
use super::uploads::Uploads;
use crate::behaviour::REQUEST_TIMEOUT;
use crate::blobs::{BlobError, BlobStore, Found};
use crate::identity::peer_key_of_id;
use crate::transfer::{ELSEWHERE_MAX, LEAVES_MAX, Part, PartRequest, PartResponse};

/// Parts in service at a time, 16 MiB at most. Of the rest a few requests of each peer wait, and further ones hear "busy".
pub(super) const SERVED_MAX: usize = 64;

const BOUNDS: Bounds = Bounds { waiting_per_peer: 32, served_per_peer: 8, served: SERVED_MAX };

struct Waiting {
    id: InboundRequestId,
    request: PartRequest,
    channel: ResponseChannel<PartResponse>,
}

/// Requests that wait or are being served.
pub(super) struct Serving {
    turns: Turns<PeerId, Waiting>,
    requests: HashMap<InboundRequestId, (PeerId, Instant)>,
    uploads: Uploads,
}

impl Default for Serving {
    fn default() -> Self {
        Self { turns: Turns::new(BOUNDS), requests: HashMap::new(), uploads: Uploads::default() }
    }
}

impl Driver {
    /// Takes a request of `peer`.
    pub(super) fn serve(
        &mut self,
        id: InboundRequestId,
        peer: PeerId,
        request: PartRequest,
        channel: ResponseChannel<PartResponse>,
    ) {
        if let Err(refused) = self.serving.turns.push(peer, Waiting { id, request, channel }) {
            self.respond(refused.channel, PartResponse::Busy);
        }
        self.serve_next();
    }

    /// The response to a request is sent, or never will be.
    pub(super) fn served(&mut self, id: InboundRequestId) {
        if let Some((peer, _)) = self.serving.requests.remove(&id) {
            self.serving.turns.done(&peer);
            self.serve_next();
        }
    }

    /// Drops what must have timed out, so that a lost notification can't block a place for ever.
    pub(super) fn forget_served(&mut self, now: Instant) {
        let old =
            self.serving.requests.iter().filter(|(_, (_, since))| now.saturating_duration_since(*since) > 2 * REQUEST_TIMEOUT);
        let old: Vec<_> = old.map(|(id, _)| *id).collect();
        for id in old {
            self.served(id);
        }
    }

    fn serve_next(&mut self) {
        while let Some((peer, Waiting { id, request, channel })) = self.serving.turns.next() {
            if !channel.is_open() {
                // It timed out while it waited.
                self.serving.turns.done(&peer);
                continue;
            }
            self.serving.requests.insert(id, (peer, Instant::now()));
            if let Some(elsewhere) = self.elsewhere(&peer, &request) {
                self.respond(channel, elsewhere);
                continue;
            }
            if let Part::Group(group) | Part::GroupFromYou(group) = request.part()
                && self.blobs.has_group(&request.hash(), request.total(), group)
            {
                // Counted before it is read: many may ask for the same at once.
                self.serving.uploads.sent(request.hash(), group, peer);
            }
            let (blobs, answers) = (self.blobs.clone(), self.answers.clone());
            // A slow disk delays nothing else.
            drop(tokio::task::spawn_blocking(move || {
                let response = answer(&blobs, &request).unwrap_or_else(|error| {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(blob = request.hash().short(), error, "blob can't be read for a peer");
                    PartResponse::Missing
                });
                // There is room for all in service; where there is none, the request has timed out, or the network stopped.
                let _late = answers.try_send(Answer { peer, channel, response });
            }));
        }
    }

    /// Who else has what `peer` asks for, if it need not come from here.
    fn elsewhere(&self, peer: &PeerId, request: &PartRequest) -> Option<PartResponse> {
        let Part::Group(group) = request.part() else { return None };
        let here = |peer: &PeerId| self.connected.contains_key(peer);
        let peers = self.serving.uploads.elsewhere(&request.hash(), group, peer, here);
        let keys: Vec<_> = peers.iter().filter_map(peer_key_of_id).map(|key| key.0).take(ELSEWHERE_MAX).collect();
        (!keys.is_empty()).then_some(PartResponse::Elsewhere(keys))
    }

    /// Sends what was read.
    pub(super) fn on_answer(&mut self, answer: Answer) {
        if let PartResponse::Bytes(bytes) = &answer.response {
            self.traffic.count_sent(peer_key_of_id(&answer.peer), bytes.len());
        }
        self.respond(answer.channel, answer.response);
    }

    fn respond(&mut self, channel: ResponseChannel<PartResponse>, response: PartResponse) {
        // The requester may have given up meanwhile; the behaviour reports that itself.
        let _late = self.swarm.behaviour_mut().blobs.send_response(channel, response);
    }
}

/// What was read for a request.
pub(super) struct Answer {
    peer: PeerId,
    channel: ResponseChannel<PartResponse>,
    response: PartResponse,
}

fn answer(blobs: &BlobStore, request: &PartRequest) -> Result<PartResponse, BlobError> {
    let (hash, total): (BlobHash, u64) = (request.hash(), request.total());
    Ok(match request.part() {
        Part::Leaves(first) => match blobs.read_leaves(&hash, total, first, LEAVES_MAX)? {
            Some(leaves) => PartResponse::Bytes(leaves),
            None => PartResponse::Missing,
        },
        Part::Group(group) | Part::GroupFromYou(group) => match blobs.read_group(&hash, total, group)? {
            Found::Bytes(bytes) => PartResponse::Bytes(bytes),
            Found::Part(have) => PartResponse::Others(have.as_bytes().to_vec()),
            Found::Nothing => PartResponse::Missing,
        },
    })
}
