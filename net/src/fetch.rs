//! Getting a blob from whoever has it: its tree from one peer, then its groups from several at once. Every group is verified as it
//! comes, so blame is simple: wrong bytes are their sender's. What is here is served to others before the rest has come, and kept
//! for the next attempt if this one ends.

mod place;
mod plan;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use psyche_messages::{BlobHash, PeerKey};
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::blobs::{Bits, BlobError, BlobStore, LEAF_BYTES, Transfer, Tree, groups_of};
use crate::buffers;
use crate::conduct::Offence;
use crate::error::FetchError;
use crate::handle::{Command, Shared, blocking};
use crate::identity::peer_id_of;
use crate::transfer::{Part, PartRequest, PartResponse};
use place::Place;
use plan::{Ask, Experience, Outcome, Plan};

/// Transfers under way at a time; later ones wait.
pub(crate) const FETCHES_MAX: usize = 8;

/// Groups under way at a time, of all transfers: 8 MiB.
pub(crate) const PARTS_MAX: usize = 32;

/// Most peers that are asked at a time for one blob, beside those who are said to have it.
const SOURCES_MAX: usize = 32;

/// How many wrong answers are remembered.
const REFUSED_MAX: usize = 4096;

/// Pause after all sources were asked for a tree in vain: it doubles from the first to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LAST: Duration = Duration::from_secs(2);

/// Who has not answered with a tree for so long is not waited for alone.
const TREE_LATE: Duration = Duration::from_secs(1);

/// How long those who are said to have a blob are asked alone.
const OTHERS_AFTER: Duration = Duration::from_millis(300);

/// How often other members are taken into account while a transfer is under way.
const OFFER_EVERY: Duration = Duration::from_secs(2);

/// Transfers under way, and who is not asked again for what.
#[derive(Default)]
pub(crate) struct Fetches {
    running: HashMap<(BlobHash, u64), Weak<tokio::sync::Mutex<()>>>,
    refused: HashSet<(BlobHash, PeerKey)>,
    refused_order: VecDeque<(BlobHash, PeerKey)>,
    /// What the last transfer has learnt of the peers.
    experience: Experience,
}

impl Fetches {
    /// The lock that transfers of `hash` with `len` bytes hold, so that a second one waits for the first and then finds the
    /// blob. A hash belongs to one length: whoever announces another one is waited for by nobody.
    fn lock_of(&mut self, hash: BlobHash, len: u64) -> Arc<tokio::sync::Mutex<()>> {
        if let Some(lock) = self.running.get(&(hash, len)).and_then(Weak::upgrade) {
            return lock;
        }
        self.running.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        self.running.insert((hash, len), Arc::downgrade(&lock));
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

/// What came of asking one source for a tree.
enum Answer {
    Tree(Tree),
    /// It does not know the blob, is busy, or can't be reached.
    Unavailable,
    /// It sent what is no tree of the blob.
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
    let fetch = Fetch { shared, own, hash, len, providers };
    let deadline = Instant::now() + timeout;
    match tokio::time::timeout_at(deadline, fetch.run(&mut tally)).await {
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

struct Fetch<'a> {
    shared: &'a Shared,
    own: PeerKey,
    hash: BlobHash,
    len: u64,
    providers: &'a [PeerKey],
}

impl Fetch<'_> {
    async fn run(&self, tally: &mut Tally) -> Result<(), FetchError> {
        let lock = self.fetches().lock_of(self.hash, self.len);
        let _only = lock.lock().await;
        let mut place = Place::new(&self.shared.fetch_permits);
        place.take().await?;
        if self.is_stored().await? {
            return Ok(());
        }
        let transfer = Arc::new(self.start(&mut place, tally).await?);
        self.fill(&mut place, &transfer, tally).await?;
        self.on_store(move |_| transfer.finish()).await
    }

    /// Takes up what an earlier transfer left, or gets the blob's tree and begins anew.
    async fn start(&self, place: &mut Place<'_>, tally: &mut Tally) -> Result<Transfer, FetchError> {
        let (hash, len) = (self.hash, self.len);
        let earlier = self.on_store(move |store| {
            // What can never fit is not asked for at all.
            store.check_len(len)?;
            Transfer::resume(store, hash, len)
        });
        if let Some(transfer) = earlier.await? {
            return Ok(transfer);
        }
        let tree = match Tree::single(&hash, len) {
            Some(tree) => tree,
            None => self.tree(place, tally).await?,
        };
        self.on_store(move |store| Transfer::begin(store, hash, tree)).await
    }

    /// The blob's tree, from the first who has it. Who takes long to answer is not the only one who is asked, and while nobody
    /// has it others have the place.
    async fn tree(&self, place: &mut Place<'_>, tally: &mut Tally) -> Result<Tree, FetchError> {
        let mut presence = self.shared.presence.clone();
        let (mut pause, mut under_way, mut waited_for) = (PAUSE_FIRST, FuturesUnordered::new(), HashSet::new());
        let mut sources: VecDeque<_> = self.sources().into();
        loop {
            let wait = match sources.pop_front() {
                Some(peer) if waited_for.insert(peer) => {
                    tally.asked.insert(peer);
                    under_way.push(async move { (peer, self.tree_from(peer).await) });
                    TREE_LATE
                }
                Some(_) => continue,
                None => {
                    place.leave();
                    pause
                }
            };
            let again = tokio::select! {
                Some((peer, answer)) = under_way.next() => {
                    place.take().await?;
                    waited_for.remove(&peer);
                    match answer? {
                        Answer::Tree(tree) => return Ok(tree),
                        Answer::Unavailable => {}
                        Answer::Wrong => {
                            tally.refused += 1;
                            self.blame(peer).await;
                        }
                    }
                    false
                }
                () = tokio::time::sleep(wait) => place.is_left(),
                changed = presence.changed(), if place.is_left() => changed.map_err(|_| FetchError::Closed).map(|()| true)?,
            };
            if again {
                pause = (pause * 2).min(PAUSE_LAST);
                place.take().await?;
                presence.mark_unchanged();
                sources = self.sources().into();
            }
        }
    }

    async fn tree_from(&self, peer: PeerKey) -> Result<Answer, FetchError> {
        let groups = groups_of(self.len);
        let mut leaves: Vec<[u8; LEAF_BYTES]> = Vec::new();
        while (leaves.len() as u64) < groups {
            let first = u32::try_from(leaves.len()).unwrap_or(u32::MAX);
            let Some(PartResponse::Bytes(bytes)) = self.request(peer, Part::Leaves(first)).await? else {
                return Ok(Answer::Unavailable);
            };
            let (page, rest) = bytes.as_chunks();
            if page.is_empty() || !rest.is_empty() || (leaves.len() + page.len()) as u64 > groups {
                return Ok(Answer::Wrong);
            }
            leaves.extend_from_slice(page);
        }
        Ok(Tree::verified(&self.hash, self.len, leaves).map_or(Answer::Wrong, Answer::Tree))
    }

    /// Gets all groups that are missing.
    async fn fill(&self, place: &mut Place<'_>, transfer: &Arc<Transfer>, tally: &mut Tally) -> Result<(), FetchError> {
        let groups = u32::try_from(groups_of(self.len)).unwrap_or(u32::MAX);
        let before = self.fetches().experience.clone();
        let mut plan = Plan::new(groups, &transfer.have(), before);
        let mut random = rand::rngs::SmallRng::from_rng(&mut rand::rng());
        let mut presence = self.shared.presence.clone();
        let mut under_way = FuturesUnordered::new();
        let mut offer = Instant::now();
        while !plan.is_done() {
            place.pass().await?;
            let now = Instant::now();
            if offer <= now {
                offer = now + OFFER_EVERY;
                let (first, later) = self.candidates();
                plan.offer(first, now.into_std(), now.into_std());
                plan.offer(later, (now + OTHERS_AFTER).into_std(), now.into_std());
            }
            while under_way.len() < PARTS_MAX
                && let Some(ask) = plan.next(now.into_std(), &mut || random.random_range(0..usize::MAX))
            {
                tally.asked.insert(ask.peer);
                under_way.push(self.carry_out(ask, groups, Arc::clone(transfer)));
            }
            tokio::select! {
                Some(done) = under_way.next() => {
                    let (ask, outcome) = done?;
                    tracing::trace!(peer = %ask.peer, group = ask.group, insist = ask.insist, outcome = ?outcome, "answer");
                    let wrong = outcome == Outcome::Wrong;
                    if outcome == Outcome::Stored {
                        place.note();
                    }
                    let known = plan.note(&ask, outcome, Instant::now().into_std());
                    // Not only at the end: a transfer that is cancelled has learnt something, too.
                    self.fetches().experience = plan.experience();
                    if known && wrong {
                        tally.refused += 1;
                        self.blame(ask.peer).await;
                    }
                }
                () = tokio::time::sleep_until(Instant::from_std(plan.wake(now.into_std())).min(offer).min(place.passes_at())) => {}
                changed = presence.changed() => {
                    changed.map_err(|_| FetchError::Closed)?;
                    offer = now;
                }
            }
        }
        Ok(())
    }

    async fn carry_out(&self, ask: Ask, groups: u32, transfer: Arc<Transfer>) -> Result<(Ask, Outcome), FetchError> {
        let _permit = self.shared.part_permits.acquire().await.map_err(|_| FetchError::Closed)?;
        let part = if ask.insist { Part::GroupFromYou(ask.group) } else { Part::Group(ask.group) };
        let outcome = match self.request(ask.peer, part).await? {
            Some(PartResponse::Bytes(bytes)) => {
                self.shared.traffic.count_received(ask.peer, bytes.len());
                let write = move |_: &BlobStore| {
                    let stored = transfer.write(ask.group, &bytes);
                    buffers::give(bytes);
                    stored
                };
                let stored = self.on_store(write).await?;
                if stored { Outcome::Stored } else { Outcome::Wrong }
            }
            Some(PartResponse::Busy) => Outcome::Busy,
            Some(PartResponse::Others(bytes)) => Bits::read(bytes, groups).map_or(Outcome::Wrong, Outcome::Others),
            Some(PartResponse::Elsewhere(peers)) => {
                let known: Vec<_> = peers.into_iter().map(PeerKey).filter(|peer| self.may_ask(peer)).collect();
                Outcome::Elsewhere(known)
            }
            Some(PartResponse::Missing) | None => Outcome::Unavailable,
        };
        Ok((ask, outcome))
    }

    /// Whether a peer that another names is one that this node knows and trusts with a question.
    fn may_ask(&self, peer: &PeerKey) -> bool {
        let presence = self.shared.presence.borrow();
        let known = presence.members.binary_search(peer).is_ok() || presence.peers.binary_search(peer).is_ok();
        known && *peer != self.own && !self.fetches().is_refused(&self.hash, peer)
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

    /// Whom to ask, in order: providers that are connected, some other connected members, and last the providers that have to be
    /// dialled first.
    fn sources(&self) -> Vec<PeerKey> {
        let (mut first, later) = self.candidates();
        first.extend(later);
        first
    }

    /// Whom to ask at once, and whom if those don't do.
    fn candidates(&self) -> (Vec<PeerKey>, Vec<PeerKey>) {
        let presence = self.shared.presence.borrow();
        let fetches = self.fetches();
        let connected = |peer: &&PeerKey| presence.peers.binary_search(peer).is_ok();
        let far = self.providers.iter().filter(|peer| !connected(peer));
        // Others every time, so that in a large run all have their turn.
        let start = rand::rng().random_range(0..presence.members.len().max(1));
        let (before, after) = presence.members.split_at(start);
        let members = after.iter().chain(before).take(SOURCES_MAX);
        let mut seen = HashSet::from([self.own]);
        let mut wanted = |peer: &&PeerKey| seen.insert(**peer) && !fetches.is_refused(&self.hash, peer);
        let near: Vec<_> = self.providers.iter().filter(connected).filter(&mut wanted).copied().collect();
        let later = members.chain(far).filter(&mut wanted).copied().collect();
        if near.is_empty() { (later, near) } else { (near, later) }
    }

    /// Asks `peer` for a part; `None` if it can't be reached.
    async fn request(&self, peer: PeerKey, part: Part) -> Result<Option<PartResponse>, FetchError> {
        let Some(peer) = peer_id_of(&peer) else { return Ok(None) };
        let (reply, response) = oneshot::channel();
        let request = PartRequest::new(self.hash, self.len, part);
        self.send(Command::Request { peer, request, reply }).await?;
        response.await.map_err(|_| FetchError::Closed)
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
