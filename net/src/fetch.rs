//! Getting a blob from whoever has it: one source at a time, in ranges of which a few are asked for ahead, the next source on
//! any failure, verified as a whole at the end. One source at a time keeps blame simple: wrong bytes are the source's.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use psyche_messages::{BlobHash, PeerKey};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::blobs::{BlobError, BlobStore, Incoming, Range};
use crate::conduct::Offence;
use crate::error::FetchError;
use crate::handle::{Command, Shared, blocking};
use crate::identity::peer_id_of;
use crate::transfer::{RANGE_BYTES_MAX, RangeRequest, RangeResponse};

/// Transfers under way at a time; later ones wait.
pub(crate) const FETCHES_MAX: usize = 8;

/// Ranges asked for ahead within a transfer.
const WINDOW: usize = 4;

/// How many wrong answers are remembered.
const REFUSED_MAX: usize = 4096;

/// Pause after all sources were asked in vain: it doubles from the first to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LAST: Duration = Duration::from_secs(2);

/// Pauses before a busy source is asked again: they double from the first to the last, three seconds in all.
const BUSY_PAUSE_FIRST: Duration = Duration::from_millis(50);
const BUSY_PAUSE_LAST: Duration = Duration::from_millis(1600);

/// Transfers under way, and who is not asked again for what.
#[derive(Default)]
pub(crate) struct Fetches {
    running: HashMap<BlobHash, Weak<tokio::sync::Mutex<()>>>,
    refused: HashSet<(BlobHash, PeerKey)>,
    refused_order: VecDeque<(BlobHash, PeerKey)>,
}

impl Fetches {
    /// The lock that transfers of `hash` hold, so that a second one waits for the first and then finds the blob.
    fn lock_of(&mut self, hash: BlobHash) -> Arc<tokio::sync::Mutex<()>> {
        if let Some(lock) = self.running.get(&hash).and_then(Weak::upgrade) {
            return lock;
        }
        self.running.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        self.running.insert(hash, Arc::downgrade(&lock));
        lock
    }

    fn refuse(&mut self, hash: BlobHash, peer: PeerKey) {
        if self.refused.insert((hash, peer)) {
            self.refused_order.push_back((hash, peer));
            if self.refused_order.len() > REFUSED_MAX
                && let Some(oldest) = self.refused_order.pop_front()
            {
                self.refused.remove(&oldest);
            }
        }
    }

    fn is_refused(&self, hash: &BlobHash, peer: &PeerKey) -> bool {
        self.refused.contains(&(*hash, *peer))
    }
}

/// What came of asking one source.
enum Attempt {
    Done,
    /// It does not have the blob, is busy, or can't be reached.
    Unavailable,
    /// It sent bytes that are not the blob.
    Wrong,
}

/// See [`crate::NetHandle::fetch`].
pub(crate) async fn fetch(
    shared: &Shared,
    own: PeerKey,
    hash: BlobHash,
    len: u64,
    providers: &[PeerKey],
    timeout: Duration,
) -> Result<(), FetchError> {
    let mut tally = Tally::default();
    let transfer = Transfer { shared, own, hash, len, providers };
    let deadline = Instant::now() + timeout;
    match tokio::time::timeout_at(deadline, transfer.run(&mut tally)).await {
        Ok(result) => result,
        Err(_) => {
            let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            Err(FetchError::Timeout { hash, len, timeout_ms, asked: tally.asked.len(), refused: tally.refused })
        }
    }
}

#[derive(Default)]
struct Tally {
    asked: HashSet<PeerKey>,
    refused: usize,
}

struct Transfer<'a> {
    shared: &'a Shared,
    own: PeerKey,
    hash: BlobHash,
    len: u64,
    providers: &'a [PeerKey],
}

impl Transfer<'_> {
    async fn run(&self, tally: &mut Tally) -> Result<(), FetchError> {
        let lock = self.fetches().lock_of(self.hash);
        let _only = lock.lock().await;
        let _permit = self.shared.fetch_permits.acquire().await.map_err(|_| FetchError::Closed)?;
        if self.is_stored().await? {
            return Ok(());
        }
        let mut presence = self.shared.presence.clone();
        let mut pause = PAUSE_FIRST;
        loop {
            presence.mark_unchanged();
            for peer in self.sources() {
                tally.asked.insert(peer);
                match self.ask(peer).await? {
                    Attempt::Done => return Ok(()),
                    Attempt::Unavailable => {}
                    Attempt::Wrong => {
                        tally.refused += 1;
                        self.blame(peer).await;
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_LAST),
                changed = presence.changed() => changed.map_err(|_| FetchError::Closed)?,
            }
        }
    }

    async fn is_stored(&self) -> Result<bool, FetchError> {
        let hash = self.hash;
        match self.on_store(move |store| store.path_of(&hash)).await {
            Ok(_) => {}
            Err(FetchError::Store { source: BlobError::Missing { .. }, .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        match self.shared.blobs.len_of(&hash) {
            Some(actual) if actual != self.len => Err(FetchError::Length { hash, len: self.len, actual }),
            found => Ok(found.is_some()),
        }
    }

    /// Whom to ask, in order: providers that are connected, other connected members, and last the providers that have to be
    /// dialled first.
    fn sources(&self) -> Vec<PeerKey> {
        let presence = self.shared.presence.borrow();
        let fetches = self.fetches();
        let connected = |peer: &&PeerKey| presence.peers.binary_search(peer).is_ok();
        let near = self.providers.iter().filter(connected);
        let far = self.providers.iter().filter(|peer| !connected(peer));
        let mut seen = HashSet::from([self.own]);
        near.chain(&presence.members)
            .chain(far)
            .filter(|peer| seen.insert(**peer) && !fetches.is_refused(&self.hash, peer))
            .copied()
            .collect()
    }

    async fn ask(&self, peer: PeerKey) -> Result<Attempt, FetchError> {
        let (hash, len) = (self.hash, self.len);
        let mut incoming = None;
        let mut ranges = self.ranges_from(peer);
        while let Some((range, response)) = ranges.next().await {
            let bytes = match response? {
                Some(RangeResponse::Bytes(bytes)) => bytes,
                Some(RangeResponse::Missing | RangeResponse::Busy) | None => return Ok(Attempt::Unavailable),
            };
            if bytes.len() != range.len as usize {
                return Ok(Attempt::Wrong);
            }
            let started = incoming.take();
            incoming = Some(self.on_store(move |store| append(store, started, hash, len, &bytes)).await?);
        }
        let finish = move |store: &BlobStore| match incoming {
            Some(incoming) => incoming.finish(),
            None => store.receive(hash, len)?.finish(),
        };
        match self.on_store(finish).await {
            Ok(()) => Ok(Attempt::Done),
            Err(FetchError::Store { source: BlobError::Wrong { .. }, .. }) => Ok(Attempt::Wrong),
            Err(error) => Err(error),
        }
    }

    /// The blob's ranges in order, as `peer` answers: `None` where it did not.
    fn ranges_from(
        &self,
        peer: PeerKey,
    ) -> impl Stream<Item = (Range, Result<Option<RangeResponse>, FetchError>)> + Unpin + use<'_> {
        let step = u64::from(RANGE_BYTES_MAX);
        let count = self.len.div_ceil(step);
        let ranges = stream::iter(0..count).map(move |index| {
            let offset = index * step;
            let len = u32::try_from((self.len - offset).min(step)).unwrap_or(RANGE_BYTES_MAX);
            Range { offset, len }
        });
        Box::pin(ranges.map(move |range| async move { (range, self.request(peer, range).await) }).buffered(WINDOW))
    }

    /// Asks `peer` for a range; a busy peer is asked again a few times. `None` if it can't be reached.
    async fn request(&self, peer: PeerKey, range: Range) -> Result<Option<RangeResponse>, FetchError> {
        let Some(peer) = peer_id_of(&peer) else { return Ok(None) };
        let mut pause = BUSY_PAUSE_FIRST;
        loop {
            let (reply, response) = oneshot::channel();
            let request = RangeRequest::new(self.hash, self.len, range);
            self.send(Command::Request { peer, request, reply }).await?;
            let response = response.await.map_err(|_| FetchError::Closed)?;
            if response != Some(RangeResponse::Busy) || pause > BUSY_PAUSE_LAST {
                return Ok(response);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn blame(&self, peer: PeerKey) {
        self.fetches().refuse(self.hash, peer);
        tracing::warn!(peer = %peer, blob = self.hash.short(), "peer served wrong bytes");
        if let Some(id) = peer_id_of(&peer) {
            // If the network has stopped, the next request says so.
            let _sent = self.send(Command::Offence(id, Offence::WrongBytes)).await;
        }
    }

    async fn send(&self, command: Command) -> Result<(), FetchError> {
        self.shared.commands.send(command).await.map_err(|_| FetchError::Closed)
    }

    async fn on_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&BlobStore) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, FetchError> {
        let store = self.shared.blobs.clone();
        let result = blocking(move || work(&store)).await.ok_or(FetchError::Closed)?;
        result.map_err(|source| FetchError::Store { hash: self.hash, source })
    }

    fn fetches(&self) -> MutexGuard<'_, Fetches> {
        self.shared.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Appends to a transfer, which starts with its first bytes: peers that have nothing cost no space.
fn append(store: &BlobStore, started: Option<Incoming>, hash: BlobHash, len: u64, bytes: &[u8]) -> Result<Incoming, BlobError> {
    let mut incoming = match started {
        Some(incoming) => incoming,
        None => store.receive(hash, len)?,
    };
    incoming.write(bytes)?;
    Ok(incoming)
}
