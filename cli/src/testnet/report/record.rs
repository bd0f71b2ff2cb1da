//! What a node's event log tells of its whole life: figures as [`NodeBoard`] adds them up, and when it did what.

use std::collections::BTreeMap;
use std::path::Path;

use psyche_actors::event_log::Replay;
use psyche_messages::events::{EVENT_LOG_VERSION, EndpointState, LoggedEvent};
use psyche_messages::{NodeEvent, PeerKey};

use super::super::board::NodeBoard;
use super::lane::Lane;

/// Events that are read of a log: some hundred thousand rounds.
const EVENTS_MAX: u64 = 4_000_000;
/// Entries of each list that is shown one by one.
const LISTED_MAX: usize = 50;
/// Kinds of transactions, and peers, that are told apart.
const KINDS_MAX: usize = 64;

/// A change of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointChange {
    pub(crate) unix_ms: u64,
    pub(crate) endpoint: String,
    pub(crate) state: EndpointState,
}

/// Digests of one peer that were compared with the node's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    pub(crate) equal: u64,
    pub(crate) different: u64,
}

/// All of a node's log.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeRecord {
    /// Sums, as the testnet's progress shows them.
    pub(crate) board: NodeBoard,
    /// What it did when.
    pub(crate) lane: Lane,
    /// By what it is known to peers.
    pub(crate) peer: Option<PeerKey>,
    /// Most members that it was connected to at a time.
    pub(crate) peers_most: u16,
    /// Confirmed transactions by what they were for.
    pub(crate) transactions: BTreeMap<String, u64>,
    /// The first changes of endpoints.
    pub(crate) endpoints: Vec<EndpointChange>,
    /// All of them.
    pub(crate) endpoint_changes: u64,
    /// By peer.
    pub(crate) compared: BTreeMap<PeerKey, Compared>,
    /// Results that it applied, of everybody.
    pub(crate) results: u64,
    /// Steps that it took from the update logs of others.
    pub(crate) replayed: u64,
    /// Its claims.
    pub(crate) claims: Vec<(u64, String)>,
    /// Warnings, the first ones.
    pub(crate) warnings: Vec<String>,
    /// Lines that were no events.
    pub(crate) unreadable: u64,
    /// Why the log could not be read, or not to its end.
    pub(crate) problem: Option<String>,
}

impl NodeRecord {
    /// Reads the log at `path`; `sequence` is how many tokens a sample has. A log that is missing or damaged gives what there
    /// is of it, and says so.
    pub(crate) fn read(path: &Path, sequence: u32) -> Self {
        let mut record = Self::default();
        let mut replay = match Replay::open(path) {
            Ok(replay) => replay,
            Err(error) => {
                record.problem = Some(format!("{} can't be read: {error}", path.display()));
                return record;
            }
        };
        let mut read = 0_u64;
        loop {
            match replay.next_event() {
                Ok(Some(event)) if event.v == EVENT_LOG_VERSION => record.add(event, sequence),
                Ok(Some(_)) => record.unreadable += 1,
                Ok(None) => break,
                Err(error) => {
                    record.problem = Some(format!("{} can't be read to its end: {error}", path.display()));
                    break;
                }
            }
            read += 1;
            if read >= EVENTS_MAX {
                record.problem = Some(format!("only the first {EVENTS_MAX} events were read"));
                break;
            }
        }
        record.unreadable += replay.unreadable();
        record.lane.end();
        record
    }

    fn add(&mut self, LoggedEvent { unix_ms, event, .. }: LoggedEvent, sequence: u32) {
        self.lane.add(unix_ms, &event, sequence);
        match &event {
            NodeEvent::Started { peer, .. } => self.peer = Some(*peer),
            NodeEvent::PeersChanged { connected } => self.peers_most = self.peers_most.max(*connected),
            NodeEvent::TransactionConfirmed { purpose, .. }
                if self.transactions.len() < KINDS_MAX || self.transactions.contains_key(purpose) =>
            {
                *self.transactions.entry(purpose.clone()).or_default() += 1;
            }
            NodeEvent::EndpointChanged { endpoint, state } => {
                self.endpoint_changes += 1;
                if self.endpoints.len() < LISTED_MAX {
                    self.endpoints.push(EndpointChange { unix_ms, endpoint: endpoint.clone(), state: *state });
                }
            }
            NodeEvent::DigestCompared { peer, equal, .. }
                if self.compared.len() < KINDS_MAX || self.compared.contains_key(peer) =>
            {
                let compared = self.compared.entry(*peer).or_default();
                if *equal { compared.equal += 1 } else { compared.different += 1 }
            }
            NodeEvent::StepApplied { results, .. } => self.results += u64::from(*results),
            NodeEvent::UpdatesReplayed { from, to, .. } => self.replayed += u64::from(to.since(*from)) + 1,
            NodeEvent::RewardsClaimed { amount, signature } if self.claims.len() < LISTED_MAX => {
                self.claims.push((amount.0, signature.clone()));
            }
            NodeEvent::Warning { message } if self.warnings.len() < LISTED_MAX => self.warnings.push(message.clone()),
            _ => {}
        }
        self.board.apply(event);
    }

    /// Times that it was started again.
    pub(crate) const fn restarts(&self) -> u32 {
        self.board.starts.saturating_sub(1)
    }
}
