//! What the store knows of its files, and the books of its quota.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use psyche_messages::{BlobHash, RoundKey};

use super::claims::Claims;
use super::partial::Partial;
use super::spares::Spares;
use super::tree::Tree;

/// A complete blob.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) len: u64,
    /// The newest round that claims it.
    pub(super) tag: Option<RoundKey>,
    pub(super) pins: u32,
    pub(super) touched: SystemTime,
    /// Known once its bytes were compared with its name since the store was opened.
    pub(super) tree: Option<Arc<Tree>>,
    /// Whoever fetched it, and may still have its file open.
    pub(super) writer: Weak<Partial>,
}

/// An unfinished blob.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) touched: SystemTime,
    /// Its open files, while a transfer is under way.
    pub(super) open: Option<Arc<Partial>>,
}

/// Names an unfinished blob: what is said to be of another length is another one, and can't disturb this.
pub(super) type Unfinished = (BlobHash, u64);

/// What has to go for others to fit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Victim {
    Blob(BlobHash),
    Partial(Unfinished),
}

#[derive(Debug)]
pub(super) struct Index {
    pub(super) entries: HashMap<BlobHash, Entry>,
    pub(super) partials: HashMap<Unfinished, Kept>,
    pub(super) claims: Claims,
    /// Bytes of all entries.
    pub(super) stored: u64,
    /// Bytes set aside for unfinished blobs, and for files that are copied in.
    pub(super) reserved: u64,
    /// Files to be written anew. They go when anything else needs their room.
    pub(super) spares: Spares,
}

impl Index {
    pub(super) fn new(claims: Claims) -> Self {
        let spares = Spares::default();
        Self { entries: HashMap::new(), partials: HashMap::new(), claims, stored: 0, reserved: 0, spares }
    }

    pub(super) fn insert(&mut self, hash: BlobHash, entry: Entry) {
        self.stored += entry.len;
        if let Some(old) = self.entries.insert(hash, entry) {
            self.stored -= old.len;
        }
    }

    /// Adds a blob that was verified just now. Two transfers of one blob may both end here: claims on the first stay.
    pub(super) fn insert_verified(&mut self, hash: BlobHash, tree: Arc<Tree>, writer: Weak<Partial>) {
        let (tag, pins) = self.entries.get(&hash).map_or((None, 0), |entry| (entry.tag, entry.pins));
        self.insert(hash, Entry { len: tree.len(), tag, pins, touched: SystemTime::now(), tree: Some(tree), writer });
    }

    pub(super) fn remove(&mut self, hash: &BlobHash) -> Option<Entry> {
        let removed = self.entries.remove(hash);
        self.stored -= removed.as_ref().map_or(0, |entry| entry.len);
        removed
    }

    /// Whether the store has the blob of `tree`, or receives it, as it did when that was asked for: its file is no other's then.
    pub(super) fn holds(&self, hash: &BlobHash, tree: &Arc<Tree>) -> bool {
        let complete = self.entries.get(hash).and_then(|entry| entry.tree.as_ref());
        let open = self.partials.get(&(*hash, tree.len())).and_then(|kept| kept.open.as_ref());
        complete.into_iter().chain(open.map(|open| open.tree())).any(|known| Arc::ptr_eq(known, tree))
    }

    pub(super) fn release(&mut self, len: u64) {
        self.reserved -= len;
    }

    /// Whether there is something of an unfinished blob that nobody works on.
    pub(super) fn is_idle(&self, name: &Unfinished) -> bool {
        self.partials.get(name).is_some_and(|kept| kept.open.is_none())
    }

    /// Notes that a transfer works on `partial`; its room is set aside already.
    pub(super) fn activate(&mut self, hash: BlobHash, len: u64, partial: Arc<Partial>) {
        self.partials.insert((hash, len), Kept { touched: SystemTime::now(), open: Some(partial) });
    }

    /// Notes that nobody works on `partial` any more; false if it was finished.
    pub(super) fn park(&mut self, name: &Unfinished, partial: &Arc<Partial>) -> bool {
        let kept = self.partials.get_mut(name);
        let kept = kept.filter(|kept| kept.open.as_ref().is_some_and(|open| Arc::ptr_eq(open, partial)));
        kept.map(|kept| (kept.open, kept.touched) = (None, SystemTime::now())).is_some()
    }

    /// Forgets an unfinished blob that nobody works on; whether there was one.
    pub(super) fn forget_partial(&mut self, name: &Unfinished) -> bool {
        let idle = self.is_idle(name);
        if idle {
            self.partials.remove(name);
            self.release(name.1);
        }
        idle
    }

    /// Turns an unfinished blob into a blob.
    pub(super) fn complete(&mut self, hash: BlobHash, partial: &Arc<Partial>) {
        let tree = Arc::clone(partial.tree());
        if self.partials.remove(&(hash, tree.len())).is_some() {
            self.release(tree.len());
        }
        self.insert_verified(hash, tree, Arc::downgrade(partial));
    }

    /// The longest unused of what nobody claims, and how many bytes nobody claims in all.
    pub(super) fn unclaimed(&self) -> (Option<Victim>, u64) {
        let blobs = self.entries.iter().filter(|(_, entry)| entry.pins == 0 && entry.tag.is_none());
        let idle = self.partials.iter().filter(|(_, kept)| kept.open.is_none());
        let bytes = blobs.clone().map(|(_, entry)| entry.len).chain(idle.clone().map(|((_, len), _)| *len)).sum();
        let blobs = blobs.map(|(hash, entry)| (entry.touched, *hash, Victim::Blob(*hash)));
        let idle = idle.map(|(name, kept)| (kept.touched, name.0, Victim::Partial(*name)));
        let oldest = blobs.chain(idle).min_by_key(|(touched, hash, _)| (*touched, *hash));
        (oldest.map(|(.., victim)| victim), bytes)
    }
}
