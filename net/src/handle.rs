//! What the rest of the node holds of the network: a handle for commands and a receiver of events.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use psyche_messages::{BlobHash, PeerKey, RoundMessage, SignedRoundMessage, UpdatePage};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::behaviour::{self, Role};
use crate::blobs::{BlobError, BlobStore};
use crate::conduct::Offence;
use crate::config::NetConfig;
use crate::driver::{Driver, Start};
use crate::error::{FetchError, NetError, boxed};
use crate::fetch::{self, FETCHES_MAX, Fetches, PARTS_MAX};
use crate::identity::{keypair_of, peer_id_of};
use crate::traffic::{BlobTraffic, Traffic};
use crate::transfer::{PartRequest, PartResponse};
use crate::wire::{Signer, Wire};

/// Commands that may wait for the network task; senders wait when it is full.
const COMMANDS_MAX: usize = 256;

/// Events that may wait for the node.
const EVENTS_MAX: usize = 1024;

/// Most members that a roster may have.
pub(crate) const MEMBERS_MAX: usize = 1024;

/// How long [`Net::start`] waits for the listeners.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Something that happened in the network.
///
/// Events wait in a bounded queue. When the node does not keep up and it is full, gossip that arrives is passed on to peers but
/// not reported, and is reported when its author repeats it, some seconds later; changes of peers replace older ones of their
/// kind, and [`NetHandle::presence`] always has the truth. Serving blobs never waits for the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// A message of another node of the run: well-formed, signed by `from`, never reported twice (as far as memory reaches).
    Round(SignedRoundMessage),
    /// The first connection to a peer is up.
    PeerConnected(PeerKey),
    /// A peer that was reached only through a relay is reached directly from now on.
    PeerUpgraded(PeerKey),
    /// The last connection to a peer is gone.
    PeerDisconnected(PeerKey),
    /// A peer is kept out for some minutes for what it did.
    PeerBlocked(PeerKey),
    /// This node is reached at this multiaddress, which ends in its peer id.
    Listening(String),
}

/// What a peer signed and is not so, as the node found out ([`NetHandle::blame`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It announced a blob as what it is not: two points.
    Mislabelled,
    /// Its update log does not lead where it says: five points.
    FalseLog,
}

/// Who is there, and where this node is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// Connected peers, ascending.
    pub peers: Vec<PeerKey>,
    /// Those of them that are members of the run (see [`NetHandle::set_members`]), ascending.
    pub members: Vec<PeerKey>,
    /// Those of the connected peers that are reached only through a relay so far, ascending.
    pub relayed: Vec<PeerKey>,
    /// Multiaddresses that this node listens on, each with its peer id; also those at relays.
    pub listening: Vec<String>,
    /// Multiaddresses under which others reach this node: configured, found by peers that tried them, or granted by relays.
    pub external: Vec<String>,
    /// Whether every configured listener has reported an address.
    pub ready: bool,
}

/// What the handle asks of the network task.
pub(crate) enum Command {
    Publish { message: RoundMessage, envelope: Vec<u8> },
    Request { peer: PeerId, request: PartRequest, reply: oneshot::Sender<Option<PartResponse>> },
    SetMembers(Vec<PeerId>),
    HearAgain,
    Offence(PeerId, Offence),
    Shutdown(oneshot::Sender<()>),
}

/// The receiving end of the events; closed when the network has stopped.
#[derive(Debug)]
pub struct EventReceiver(mpsc::Receiver<NetEvent>);

impl EventReceiver {
    /// The next event; `None` once the network has stopped.
    pub async fn recv(&mut self) -> Option<NetEvent> {
        self.0.recv().await
    }
}

impl futures::Stream for EventReceiver {
    type Item = NetEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<NetEvent>> {
        self.0.poll_recv(cx)
    }
}

/// Starts the network.
#[derive(Clone, Copy, Debug)]
pub struct Net;

impl Net {
    /// Opens the blob store, listens, and spawns the task that owns the swarm on the current tokio runtime. Returns when every
    /// listener is up. The task ends with [`NetHandle::shutdown`], or when the last handle is dropped.
    ///
    /// # Errors
    /// [`NetError`] for addresses that can't be parsed or listened on, or a blob directory that can't be used.
    pub async fn start(config: NetConfig) -> Result<(NetHandle, EventReceiver), NetError> {
        Self::start_with_queue(config, EVENTS_MAX).await
    }

    /// As [`Net::start`], with room for `events_max` events.
    pub(crate) async fn start_with_queue(config: NetConfig, events_max: usize) -> Result<(NetHandle, EventReceiver), NetError> {
        let addresses = config.parse()?;
        let (dir, bytes_max, ttl) = (config.blob_dir.clone(), config.blob_bytes_max, config.blob_ttl);
        let blobs = blocking(move || BlobStore::open(&dir, bytes_max, ttl)).await.ok_or(NetError::Closed)??;
        let wire = Wire::new(config.run_tag);
        let role = Role { members_only: config.members_only, serves_relay: config.serves_relay };
        let mut swarm = behaviour::build(keypair_of(&config.identity_seed), &config.run_tag, role)?;
        let mut listeners = Vec::with_capacity(addresses.listen.len());
        for address in addresses.listen {
            let text = address.to_string();
            listeners.push(swarm.listen_on(address).map_err(|error| NetError::Listen { address: text, source: boxed(error) })?);
        }
        addresses.external.into_iter().for_each(|address| swarm.add_external_address(address));

        let (command_sender, commands) = mpsc::channel(COMMANDS_MAX);
        let (events, event_receiver) = mpsc::channel(events_max);
        let (presence_sender, presence) = watch::channel(Presence::default());
        let traffic = Arc::<Traffic>::default();
        let start = Start {
            bootstrap: addresses.bootstrap,
            relays: addresses.relays,
            listeners,
            traffic: Arc::clone(&traffic),
            payload_len: config.payload_len,
        };
        let driver = Driver::new(swarm, wire, blobs.clone(), start, events, presence_sender);
        drop(tokio::spawn(driver.run(commands)));
        let signer = Signer::new(&config.identity_seed, wire);
        let shared = Shared {
            commands: command_sender,
            presence,
            blobs,
            wire,
            signer,
            fetch_permits: Semaphore::new(FETCHES_MAX),
            part_permits: Semaphore::new(PARTS_MAX),
            fetches: Mutex::new(Fetches::default()),
            traffic,
        };
        let handle = NetHandle { shared: Arc::new(shared) };
        handle.wait_until_listening().await?;
        Ok((handle, EventReceiver(event_receiver)))
    }
}

pub(crate) struct Shared {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) presence: watch::Receiver<Presence>,
    pub(crate) blobs: BlobStore,
    wire: Wire,
    signer: Signer,
    pub(crate) fetch_permits: Semaphore,
    pub(crate) part_permits: Semaphore,
    pub(crate) fetches: Mutex<Fetches>,
    pub(crate) traffic: Arc<Traffic>,
}

/// A handle to the network; clones share it. Commands wait in a bounded queue, and callers wait with them when it is full.
#[derive(Clone)]
pub struct NetHandle {
    shared: Arc<Shared>,
}

impl NetHandle {
    /// This node's public key.
    #[must_use]
    pub fn peer_key(&self) -> PeerKey {
        self.shared.signer.peer_key()
    }

    /// The run's wire forms.
    #[must_use]
    pub fn wire(&self) -> Wire {
        self.shared.wire
    }

    /// The blob store. Its functions block on the disk; [`NetHandle::put`] and the like don't.
    #[must_use]
    pub fn blobs(&self) -> &BlobStore {
        &self.shared.blobs
    }

    /// Who is there now.
    #[must_use]
    pub fn presence(&self) -> Presence {
        self.shared.presence.borrow().clone()
    }

    /// Follows [`NetHandle::presence`].
    #[must_use]
    pub fn watch_presence(&self) -> watch::Receiver<Presence> {
        self.shared.presence.clone()
    }

    /// Signs `message` as this node without sending it.
    ///
    /// # Errors
    /// [`NetError::Wire`] if it does not fit into an envelope.
    pub fn sign(&self, message: RoundMessage) -> Result<SignedRoundMessage, NetError> {
        Ok(self.shared.signer.sign(message)?)
    }

    /// Writes `page` of this node's update log as a signed blob.
    ///
    /// # Errors
    /// [`NetError::Wire`] if the page is not sound, or another node's.
    pub fn sign_updates(&self, page: &UpdatePage) -> Result<Vec<u8>, NetError> {
        Ok(self.shared.signer.sign_updates(page)?)
    }

    /// Signs `message` and tells it to all peers, now and repeatedly while it is new, so that peers who come late hear it.
    /// Without any peers it waits for them. Of one kind and round only the latest message is repeated. This node itself gets no
    /// event; the signed message is returned.
    ///
    /// # Errors
    /// [`NetError::Wire`] if it does not fit into an envelope, [`NetError::Closed`] after a shutdown.
    pub async fn publish(&self, message: RoundMessage) -> Result<SignedRoundMessage, NetError> {
        let signed = self.sign(message)?;
        let envelope = self.shared.wire.encode_message(&signed)?;
        self.send(Command::Publish { message: signed.message.clone(), envelope }).await?;
        Ok(signed)
    }

    /// Names the members of the run: who is dialled, whose gossip counts and who is asked for blobs; with
    /// [`NetConfig::members_only`] connections of all others are closed, except to bootstrap peers. Replaces the list before.
    /// Keys that are no ed25519 keys are skipped with a warning, since anybody can write them into a roster.
    ///
    /// # Errors
    /// [`NetError::TooMany`] above 1,024 members, [`NetError::Closed`] after a shutdown.
    pub async fn set_members(&self, members: &[PeerKey]) -> Result<(), NetError> {
        if members.len() > MEMBERS_MAX {
            return Err(NetError::TooMany { what: "members", count: members.len(), count_max: MEMBERS_MAX });
        }
        self.send(Command::SetMembers(valid_members(members))).await
    }

    /// Forgets which messages were reported: what peers still repeat is reported again, for a consumer that lost its state.
    ///
    /// # Errors
    /// [`NetError::Closed`] after a shutdown.
    pub async fn hear_again(&self) -> Result<(), NetError> {
        self.send(Command::HearAgain).await
    }

    /// Fetches the blob `hash` of exactly `len` bytes into the store, from `providers` and connected members at once, until
    /// `timeout` has passed. Returns at once if the blob is there. Dropping the future cancels the transfer; what came until
    /// then is kept for the next one.
    ///
    /// # Errors
    /// [`FetchError`] if nobody provided it in time, or it can't be stored.
    pub async fn fetch(&self, hash: BlobHash, len: u64, providers: &[PeerKey], timeout: Duration) -> Result<(), FetchError> {
        fetch::fetch(&self.shared, self.peer_key(), hash, len, providers, timeout).await
    }

    /// Charges `peer` for a lie that only those find out who look into blobs. At ten points it is kept out for some minutes.
    ///
    /// # Errors
    /// [`NetError::Closed`] after a shutdown.
    pub async fn blame(&self, peer: PeerKey, lie: Lie) -> Result<(), NetError> {
        let offence = match lie {
            Lie::Mislabelled => Offence::Mislabelled,
            Lie::FalseLog => Offence::FalseLog,
        };
        match peer_id_of(&peer) {
            Some(id) => self.send(Command::Offence(id, offence)).await,
            None => Ok(()),
        }
    }

    /// How many bytes of blobs went out and came in.
    #[must_use]
    pub fn blob_traffic(&self) -> BlobTraffic {
        self.shared.traffic.read()
    }

    /// The same for each peer, by key; of at most 1,024 peers, those that moved most.
    #[must_use]
    pub fn blob_traffic_by_peer(&self) -> BTreeMap<PeerKey, BlobTraffic> {
        self.shared.traffic.by_peer()
    }

    /// Stores `bytes`, for others to fetch.
    ///
    /// # Errors
    /// As [`BlobStore::put`].
    pub async fn put(&self, bytes: Vec<u8>) -> Result<BlobHash, NetError> {
        self.on_store(move |store| store.put(&bytes)).await
    }

    /// Stores a copy of a file, for others to fetch; returns its name and length.
    ///
    /// # Errors
    /// As [`BlobStore::put_file`].
    pub async fn put_file(&self, path: PathBuf) -> Result<(BlobHash, u64), NetError> {
        self.on_store(move |store| store.put_file(&path)).await
    }

    /// The verified bytes of a blob in the store; `None` if it is not there.
    ///
    /// # Errors
    /// As [`BlobStore::get`].
    pub async fn get(&self, hash: BlobHash) -> Result<Option<Vec<u8>>, NetError> {
        self.on_store(move |store| store.get(&hash)).await
    }

    /// Closes all connections and stops. Later calls of other functions fail with `Closed`; a second shutdown does nothing.
    pub async fn shutdown(&self) {
        let (done, stopped) = oneshot::channel();
        if self.send(Command::Shutdown(done)).await.is_ok() {
            // The sender is dropped if the task ends for another reason, which is what is waited for.
            let _stopped = stopped.await;
        }
    }

    async fn send(&self, command: Command) -> Result<(), NetError> {
        self.shared.commands.send(command).await.map_err(|_| NetError::Closed)
    }

    async fn on_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&BlobStore) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, NetError> {
        let store = self.shared.blobs.clone();
        Ok(blocking(move || work(&store)).await.ok_or(NetError::Closed)??)
    }

    async fn wait_until_listening(&self) -> Result<(), NetError> {
        let mut presence = self.shared.presence.clone();
        let start = Instant::now();
        // Only whether it is ready, not the guard of it, so that the future may move between threads.
        let ready = async { presence.wait_for(|presence| presence.ready).await.map(drop) };
        let ready = tokio::time::timeout(LISTEN_TIMEOUT, ready).await;
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(NetError::Closed),
            Err(_) => {
                self.shutdown().await;
                Err(NetError::ListenTimeout { timeout_s: start.elapsed().as_secs() })
            }
        }
    }
}

/// The names of `members`, without keys that are none.
fn valid_members(members: &[PeerKey]) -> Vec<PeerId> {
    let name_of = |key: &PeerKey| {
        let name = peer_id_of(key);
        if name.is_none() {
            tracing::warn!(peer = %key, "the roster holds a key that is no ed25519 key: this member is ignored");
        }
        name
    };
    members.iter().filter_map(name_of).collect()
}

impl std::fmt::Debug for NetHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetHandle").field("peer", &self.peer_key()).finish_non_exhaustive()
    }
}

/// Runs `work` where it may block; `None` if the runtime is shutting down.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => Some(value),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use std::io::Write;

    use psyche_messages::Secret;

    use super::*;
    use crate::identity::peer_key_of;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_roster_key_that_is_no_key_is_ignored_with_a_warning() {
        let (log, good) = (Log::default(), peer_key_of(&Secret::new([1; 32])));
        // About half of all bytes are no point of the curve.
        let bad = (0..=255).map(|byte| PeerKey([byte; 32])).find(|key| peer_id_of(key).is_none()).unwrap();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let members = tracing::subscriber::with_default(subscriber, || valid_members(&[bad, good]));
        assert_eq!(members, [peer_id_of(&good).unwrap()]);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("WARN") && text.contains(&bad.to_string()) && !text.contains(&good.to_string()), "{text}");
    }
}
