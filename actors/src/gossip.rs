//! # Purpose
//! The node's voice and ears among its peers: signs and gossips round messages, stores, serves and fetches blobs.
//!
//! # In (message → reply)
//! [`Publish`] → the signed message; [`StoreBlob`], [`StoreFile`] → the blob's name; [`FetchBlob`], [`CopyBlob`] → nothing;
//! [`ReadBlob`] → the bytes, if they are here; [`EncodeManifest`], [`DecodeManifest`]; [`SetMembers`]; [`HearAgain`];
//! [`ForgetRounds`]; [`Unpin`]; [`Blame`].
//!
//! # Out
//! What peers say and who comes and goes, to `RunActor`.
//!
//! # State and invariants
//! A handle to the network task, which outlives this actor. A blob is on disk before anybody hears of it.
//!
//! # Mailbox (bound, policy when full)
//! 256 messages; senders wait. Commands run beside each other; the network bounds how many fetches do.
//!
//! # Failure (how it dies, who restarts it)
//! Only a bug kills it; the node's supervisor starts another around the same network.
//!
//! # Time
//! A fetch gives up after its time-out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, ResponseFuture, WrapFuture as _};
use psyche_messages::{BlobHash, Command, Manifest, PeerKey, RoundKey, RoundMessage, SignedRoundMessage};
use psyche_net::{BlobError, EventReceiver, FetchError, NetError, NetEvent, NetHandle, WireError};
use tokio::sync::Mutex;
use tracing::Instrument as _;

use crate::chain_of;
use crate::engine::{Event, Lie};
use crate::envelope::Ask;
use crate::node::Drill;
use crate::run::{Happened, RunLink};

/// Messages that may wait.
const MAILBOX_MAX: usize = 256;
/// How long a blob of a round is looked for before the engine hears that nobody has it.
const ROUND_FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a file of a snapshot is looked for.
const SNAPSHOT_FETCH_TIMEOUT: Duration = Duration::from_secs(300);

/// Signs a message and tells it to the run.
#[derive(Debug)]
pub struct Publish(pub RoundMessage);

/// Stores bytes for others to fetch.
pub struct StoreBlob {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The round after which they are of no use; without one they stay until [`Unpin`].
    pub round: Option<RoundKey>,
}

/// Stores a copy of a file for others to fetch, until [`Unpin`].
#[derive(Debug)]
pub struct StoreFile(pub PathBuf);

/// Gets a blob of exactly `len` bytes into the store.
#[derive(Debug)]
pub struct FetchBlob {
    /// Its name.
    pub blob: BlobHash,
    /// Its length.
    pub len: u64,
    /// Who may have it; then every connected member is asked.
    pub providers: Vec<PeerKey>,
    /// The round after which it is of no use; without one it stays until [`Unpin`].
    pub round: Option<RoundKey>,
}

/// Charges a peer for what it signed and what is not so.
#[derive(Clone, Copy, Debug)]
pub struct Blame {
    /// Who.
    pub peer: PeerKey,
    /// What about.
    pub lie: Lie,
}

/// Copies a stored blob to a file.
#[derive(Debug)]
pub struct CopyBlob {
    /// Its name.
    pub blob: BlobHash,
    /// The file.
    pub to: PathBuf,
}

/// Asks for the bytes of a stored blob.
#[derive(Clone, Copy, Debug)]
pub struct ReadBlob(pub BlobHash);

/// Lets blobs go that [`StoreFile`], or a store or fetch without a round, keeps.
#[derive(Debug)]
pub struct Unpin(pub Vec<BlobHash>);

/// Writes a manifest's wire form.
#[derive(Debug)]
pub struct EncodeManifest(pub Manifest);

/// Reads a manifest's wire form and checks every signature in it; `None` if anything is wrong with it.
pub struct DecodeManifest(pub Vec<u8>);

/// Has peers' repeated messages reported again: whoever heard them before is gone.
#[derive(Clone, Copy, Debug)]
pub struct HearAgain;

impl Command for HearAgain {
    type Reply = ();
}

/// Names the members of the run.
#[derive(Debug)]
pub struct SetMembers(pub Vec<PeerKey>);

/// Blobs of rounds before this one may go.
#[derive(Clone, Copy, Debug)]
pub struct ForgetRounds {
    /// The first round whose blobs stay.
    pub before: RoundKey,
}

impl Command for Publish {
    type Reply = Result<SignedRoundMessage, NetError>;
}
impl Command for StoreBlob {
    type Reply = Result<BlobHash, NetError>;
}
impl Command for StoreFile {
    type Reply = Result<(BlobHash, u64), NetError>;
}
impl Command for FetchBlob {
    type Reply = Result<(), FetchError>;
}
impl Command for Blame {
    type Reply = ();
}
impl Command for CopyBlob {
    type Reply = Result<(), NetError>;
}
impl Command for ReadBlob {
    type Reply = Option<Vec<u8>>;
}
impl Command for Unpin {
    type Reply = ();
}
impl Command for EncodeManifest {
    type Reply = Result<Vec<u8>, WireError>;
}
impl Command for DecodeManifest {
    type Reply = Option<Manifest>;
}
impl Command for SetMembers {
    type Reply = ();
}
impl Command for ForgetRounds {
    type Reply = ();
}

/// What the actor works with; kept by the supervisor's factory over restarts.
#[derive(Clone)]
pub struct GossipLinks {
    /// The network.
    pub net: NetHandle,
    /// Its events; whoever lives reads them.
    pub events: Arc<Mutex<EventReceiver>>,
    /// Who hears of them.
    pub run: RunLink,
    /// What is said instead of what the node means to say.
    pub drill: Option<Drill>,
}

/// See the module.
pub struct GradientGossip {
    links: GossipLinks,
}

impl GradientGossip {
    /// An actor around a running network.
    #[must_use]
    pub const fn new(links: GossipLinks) -> Self {
        Self { links }
    }
}

impl Actor for GradientGossip {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MAX);
        let links = self.links.clone();
        let follow = async {
            follow(links).await;
            tracing::info!(actor = "gossip", "the network has stopped");
        };
        // The network stops when the node does: perhaps after this thread was taken out of the node's span.
        ctx.spawn(follow.in_current_span().into_actor(self));
    }
}

/// Passes the network's events on until the network stops.
async fn follow(links: GossipLinks) {
    let mut events = links.events.lock().await;
    while let Some(event) = events.recv().await {
        let event = match event {
            NetEvent::Round(signed) => Event::Message(signed),
            NetEvent::PeerConnected(peer) => Event::PeerConnected(peer),
            NetEvent::PeerDisconnected(peer) => Event::PeerDisconnected(peer),
            NetEvent::PeerBlocked(peer) => {
                tracing::warn!(actor = "gossip", %peer, "a peer is kept out for what it did");
                continue;
            }
            NetEvent::PeerUpgraded(_) | NetEvent::Listening(_) => continue,
        };
        links.run.tell(Happened(event)).await;
    }
}

/// Marks a stored blob with how long it is needed.
fn keep(net: &NetHandle, blob: &BlobHash, round: Option<RoundKey>) {
    let kept = match round {
        Some(round) => net.blobs().tag(blob, round),
        None => net.blobs().pin(blob),
    };
    if !kept {
        tracing::warn!(actor = "gossip", blob = blob.short(), "a blob went before it could be kept");
    }
}

impl Handler<Ask<Publish>> for GradientGossip {
    type Result = ResponseFuture<<Publish as Command>::Reply>;

    fn handle(&mut self, Ask(Publish(message)): Ask<Publish>, _: &mut Self::Context) -> Self::Result {
        let (net, drill) = (self.links.net.clone(), self.links.drill.clone());
        Box::pin(async move {
            let message = match drill {
                Some(drill) => drill.says(&net, message).await,
                None => message,
            };
            net.publish(message).await
        })
    }
}

impl Handler<Ask<StoreBlob>> for GradientGossip {
    type Result = ResponseFuture<<StoreBlob as Command>::Reply>;

    fn handle(&mut self, Ask(StoreBlob { bytes, round }): Ask<StoreBlob>, _: &mut Self::Context) -> Self::Result {
        let net = self.links.net.clone();
        Box::pin(async move {
            let blob = net.put(bytes).await?;
            keep(&net, &blob, round);
            Ok(blob)
        })
    }
}

impl Handler<Ask<StoreFile>> for GradientGossip {
    type Result = ResponseFuture<<StoreFile as Command>::Reply>;

    fn handle(&mut self, Ask(StoreFile(path)): Ask<StoreFile>, _: &mut Self::Context) -> Self::Result {
        let net = self.links.net.clone();
        Box::pin(async move {
            let (blob, len) = net.put_file(path).await?;
            keep(&net, &blob, None);
            Ok((blob, len))
        })
    }
}

impl Handler<Ask<FetchBlob>> for GradientGossip {
    type Result = ResponseFuture<<FetchBlob as Command>::Reply>;

    fn handle(&mut self, Ask(fetch): Ask<FetchBlob>, _: &mut Self::Context) -> Self::Result {
        let net = self.links.net.clone();
        let timeout = if fetch.round.is_some() { ROUND_FETCH_TIMEOUT } else { SNAPSHOT_FETCH_TIMEOUT };
        Box::pin(async move {
            net.fetch(fetch.blob, fetch.len, &fetch.providers, timeout).await?;
            keep(&net, &fetch.blob, fetch.round);
            Ok(())
        })
    }
}

impl Handler<Ask<CopyBlob>> for GradientGossip {
    type Result = ResponseFuture<<CopyBlob as Command>::Reply>;

    fn handle(&mut self, Ask(CopyBlob { blob, to }): Ask<CopyBlob>, _: &mut Self::Context) -> Self::Result {
        let blobs = self.links.net.blobs().clone();
        Box::pin(async move {
            let copied = tokio::task::spawn_blocking(move || -> Result<(), NetError> {
                // Its file may become another blob's when it is dropped.
                blobs.pin(&blob);
                let from = blobs.path_of(&blob);
                let copied = from
                    .and_then(|from| std::fs::copy(&from, &to).map(drop).map_err(|source| BlobError::Io { path: to, source }));
                blobs.unpin(&blob);
                Ok(copied?)
            });
            copied.await.unwrap_or(Err(NetError::Closed))
        })
    }
}

impl Handler<Ask<Blame>> for GradientGossip {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Ask(Blame { peer, lie }): Ask<Blame>, _: &mut Self::Context) -> Self::Result {
        let net = self.links.net.clone();
        let lie = match lie {
            Lie::Mislabelled => psyche_net::Lie::Mislabelled,
            Lie::FalseLog => psyche_net::Lie::FalseLog,
        };
        Box::pin(async move {
            if let Err(error) = net.blame(peer, lie).await {
                tracing::warn!(actor = "gossip", %peer, error = %chain_of(&error), "a liar is not charged");
            }
        })
    }
}

impl Handler<Ask<ReadBlob>> for GradientGossip {
    type Result = ResponseFuture<<ReadBlob as Command>::Reply>;

    fn handle(&mut self, Ask(ReadBlob(blob)): Ask<ReadBlob>, _: &mut Self::Context) -> Self::Result {
        let net = self.links.net.clone();
        Box::pin(async move {
            net.get(blob).await.unwrap_or_else(|error| {
                tracing::warn!(actor = "gossip", blob = blob.short(), error = %chain_of(&error), "could not read a blob");
                None
            })
        })
    }
}

impl Handler<Ask<Unpin>> for GradientGossip {
    type Result = ();

    fn handle(&mut self, Ask(Unpin(blobs)): Ask<Unpin>, _: &mut Self::Context) {
        for blob in &blobs {
            self.links.net.blobs().unpin(blob);
        }
    }
}

impl Handler<Ask<EncodeManifest>> for GradientGossip {
    type Result = <EncodeManifest as Command>::Reply;

    fn handle(&mut self, Ask(EncodeManifest(manifest)): Ask<EncodeManifest>, _: &mut Self::Context) -> Self::Result {
        self.links.net.wire().encode_manifest(&manifest)
    }
}

impl Handler<Ask<DecodeManifest>> for GradientGossip {
    type Result = ResponseFuture<<DecodeManifest as Command>::Reply>;

    fn handle(&mut self, Ask(DecodeManifest(bytes)): Ask<DecodeManifest>, _: &mut Self::Context) -> Self::Result {
        let wire = self.links.net.wire();
        Box::pin(async move {
            // Up to 256 signatures are checked, which takes milliseconds.
            let decoded = tokio::task::spawn_blocking(move || wire.decode_manifest(&bytes)).await.ok()?;
            decoded
                .inspect_err(|error| tracing::warn!(actor = "gossip", error = %chain_of(error), "a manifest is malformed"))
                .ok()
        })
    }
}

impl Handler<Ask<HearAgain>> for GradientGossip {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Ask<HearAgain>, _: &mut Self::Context) -> Self::Result {
        let net = self.links.net.clone();
        Box::pin(async move {
            if let Err(error) = net.hear_again().await {
                tracing::warn!(actor = "gossip", error = %chain_of(&error), "repeated messages stay unheard");
            }
        })
    }
}

impl Handler<Ask<SetMembers>> for GradientGossip {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Ask(SetMembers(members)): Ask<SetMembers>, _: &mut Self::Context) -> Self::Result {
        let net = self.links.net.clone();
        Box::pin(async move {
            if let Err(error) = net.set_members(&members).await {
                tracing::warn!(actor = "gossip", error = %chain_of(&error), "could not set the members");
            }
        })
    }
}

impl Handler<Ask<ForgetRounds>> for GradientGossip {
    type Result = ();

    fn handle(&mut self, Ask(ForgetRounds { before }): Ask<ForgetRounds>, _: &mut Self::Context) {
        let blobs = self.links.net.blobs().clone();
        drop(tokio::task::spawn_blocking(move || blobs.retain_rounds_from(before)));
    }
}
