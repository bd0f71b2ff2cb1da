//! The update log on disk: every step that the node applies is written into its signed log, whose pages are blobs that
//! peers fetch; and the logs of peers, fetched page by page.
//!
//! A page is a file of the node's data folder, too, so that the log outlives the process: at the next start the newest chain
//! of pages that are whole is served again. The page in work is written anew with every step, and kept when it is full.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use psyche_messages::updates::PAGE_STEPS_MAX;
use psyche_messages::{AppliedStep, BlobHash, PeerKey, Step, UpdatePage, UpdatesAnnounced};
use psyche_net::wire::UPDATES_BYTES_MAX;
use psyche_net::{NetError, NetHandle, Wire};
use thiserror::Error;

use crate::chain_of;
use crate::engine::{FetchFault, LEDGER_STEPS_MAX, Ledger};

/// How long a page is looked for.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Most pages of one log.
const PAGES_MAX: usize = LEDGER_STEPS_MAX / PAGE_STEPS_MAX + 2;
/// Page names that peers may have heard of and still ask for, though the page has grown since.
const HEADS_SERVED: usize = 8;
/// What the names of page files end with.
const EXTENSION: &str = "page";
/// What those of files that are being written do.
const PARTIAL: &str = "partial";

#[cfg(test)]
mod tests;

/// Why the log could not be written or read.
#[derive(Debug, Error)]
pub enum UpdatesError {
    /// The file system refuses.
    #[error("use {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A page could not be signed or stored.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The thread that worked on the files died.
    #[error("work on the files of the update log")]
    Thread,
}

/// A page that is full.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Page {
    last: Step,
    blob: BlobHash,
    len: u32,
    file: PathBuf,
}

/// The node's own log.
pub struct UpdateLog {
    folder: PathBuf,
    net: NetHandle,
    ledger: Ledger,
    full: Vec<Page>,
    /// Blobs of the page in work, the newest last.
    heads: VecDeque<BlobHash>,
    /// The file of the page in work.
    head_file: Option<PathBuf>,
    /// The newest page, if the disk holds every step.
    newest: Option<(BlobHash, u32)>,
    /// Whether this process has said which page is the newest.
    told: bool,
}

/// A page as it was found on disk.
struct Found {
    page: UpdatePage,
    bytes: Vec<u8>,
    file: PathBuf,
}

impl UpdateLog {
    /// The log in `folder`, as far as it is whole; serves it.
    ///
    /// # Errors
    /// [`UpdatesError`] if the folder can't be used.
    pub async fn open(folder: PathBuf, net: NetHandle) -> Result<Self, UpdatesError> {
        let (wire, author, root) = (net.wire(), net.peer_key(), folder.clone());
        let found = tokio::task::spawn_blocking(move || read_pages(&root, &wire, &author));
        let found = found.await.map_err(|_died| UpdatesError::Thread)??;
        let (ledger, full, heads) = (Ledger::default(), Vec::new(), VecDeque::new());
        let mut log = Self { folder, net, ledger, full, heads, head_file: None, newest: None, told: false };
        for Found { page, bytes, file } in found {
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let blob = log.serve(bytes).await?;
            log.newest = Some((blob, len));
            let last = page.steps.last().map(|step| step.round.step).unwrap_or_default();
            if page.steps.len() == PAGE_STEPS_MAX {
                log.full.push(Page { last, blob, len, file });
            } else {
                log.keep_head(blob, file);
            }
            for step in page.steps {
                log.ledger.append(step);
            }
        }
        Ok(log)
    }

    /// The first and the last step.
    #[must_use]
    pub fn range(&self) -> Option<(Step, Step)> {
        self.ledger.range().map(|(first, last, _)| (first, last))
    }

    /// The steps from `first` on.
    #[must_use]
    pub fn since(&self, first: Step) -> Vec<AppliedStep> {
        self.ledger.since(first)
    }

    /// Writes a step, signs the page that it is on, and serves it. What peers are to hear; nothing where a step is applied
    /// again that others follow in the log: a node that heals goes through all of them, and whether those behind are right is
    /// only known when it gets there.
    ///
    /// # Errors
    /// [`UpdatesError`] if it could not be written; it is in the log all the same, and written with the next one.
    pub async fn append(&mut self, step: AppliedStep) -> Result<Option<UpdatesAnnounced>, UpdatesError> {
        let is_known = self.ledger.steps().rev().skip(1).any(|known| *known == step);
        if let Some((blob, len)) = self.newest.filter(|_| is_known) {
            let first_word = !core::mem::replace(&mut self.told, true);
            return Ok(if first_word { self.announce(blob, len) } else { None });
        }
        (self.newest, self.told) = (None, true);
        self.ledger.append(step);
        self.drop_stale_pages();
        let after = |full: &[Page]| full.last().map(|page| page.last);
        loop {
            let done = after(&self.full);
            let rest = self.ledger.steps().filter(|step| done.is_none_or(|done| step.round.step > done));
            let steps: Vec<_> = rest.take(PAGE_STEPS_MAX).cloned().collect();
            let (Some(first), Some(last)) = (steps.first(), steps.last()) else { break };
            let (first, last) = (first.round.step, last.round.step);
            let full = steps.len() == PAGE_STEPS_MAX;
            let previous = self.full.last().map(|page| (page.blob, page.len));
            let bytes = self.net.sign_updates(&UpdatePage { author: self.net.peer_key(), previous, steps })?;
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let file = self.folder.join(format!("{:010}.{EXTENSION}", first.0));
            write(&file, &bytes).await?;
            let blob = self.serve(bytes).await?;
            if full {
                self.head_file.take_if(|head| *head == file);
                self.full.push(Page { last, blob, len, file });
            } else {
                self.keep_head(blob, file);
            }
            if self.ledger.range().is_some_and(|(_, end, _)| last >= end) {
                self.newest = Some((blob, len));
                return Ok(self.announce(blob, len));
            }
        }
        Ok(self.full.last().and_then(|page| self.announce(page.blob, page.len)))
    }

    fn announce(&self, blob: BlobHash, blob_len: u32) -> Option<UpdatesAnnounced> {
        let newest = self.ledger.steps().next_back()?;
        let (first, ..) = self.ledger.range()?;
        Some(UpdatesAnnounced { round: newest.round, first, digest: newest.after, blob, blob_len })
    }

    /// Forgets whole pages of steps before `first`.
    pub fn forget_before(&mut self, first: Step) {
        while self.full.first().is_some_and(|page| page.last < first) {
            let page = self.full.remove(0);
            self.ledger.forget_before(page.last.next());
            self.drop_page(&page);
        }
    }

    /// Full pages that say something else than the log does now, or reach back farther.
    fn drop_stale_pages(&mut self) {
        let Some((first, end, _)) = self.ledger.range() else { return };
        let stale = |page: &Page| page.last < first || page.last > end;
        // The log only ever changes at its end: a page is whole as long as its last step stands and another follows it.
        let (gone, full): (Vec<_>, Vec<_>) = core::mem::take(&mut self.full).into_iter().partition(stale);
        self.full = full;
        for page in &gone {
            self.drop_page(page);
        }
        if self.full.last().is_some_and(|page| page.last == end)
            && let Some(page) = self.full.pop()
        {
            // Its last step was just replaced; it is written anew.
            self.net.blobs().unpin(&page.blob);
        }
    }

    fn drop_page(&self, page: &Page) {
        self.net.blobs().unpin(&page.blob);
        remove(&page.file);
    }

    fn keep_head(&mut self, blob: BlobHash, file: PathBuf) {
        if let Some(before) = self.head_file.replace(file.clone())
            && before != file
        {
            // The log went back, or began anew.
            remove(&before);
        }
        if self.heads.contains(&blob) {
            // It is kept already, and was kept once more.
            self.net.blobs().unpin(&blob);
            return;
        }
        self.heads.push_back(blob);
        while self.heads.len() > HEADS_SERVED {
            if let Some(old) = self.heads.pop_front() {
                self.net.blobs().unpin(&old);
            }
        }
    }

    async fn serve(&self, bytes: Vec<u8>) -> Result<BlobHash, UpdatesError> {
        let blob = self.net.put(bytes).await?;
        if !self.net.blobs().pin(&blob) {
            tracing::warn!(actor = "run", blob = blob.short(), "a page of the update log went before it could be kept");
        }
        Ok(blob)
    }
}

fn remove(file: &Path) {
    if let Err(error) = fs::remove_file(file) {
        tracing::warn!(actor = "run", %error, "a page of the update log stays on the disk");
    }
}

/// Fetches the log of `author` whose newest page is `head`, back to the step `from`.
///
/// # Errors
/// [`FetchFault`]: a page could not be had, or is not what it ought to be.
pub(super) async fn fetch_log(
    net: &NetHandle,
    author: PeerKey,
    head: (BlobHash, u32),
    from: Step,
) -> Result<Vec<AppliedStep>, FetchFault> {
    let mut pages: Vec<UpdatePage> = Vec::new();
    let mut next = Some(head);
    while let Some((blob, len)) = next {
        if pages.len() == PAGES_MAX || len as usize > UPDATES_BYTES_MAX {
            return Err(FetchFault::Malformed);
        }
        let page = fetch_page(net, author, blob, len).await?;
        if page.author != author || !pages.last().is_none_or(|later| joins(&page, later)) {
            return Err(FetchFault::Malformed);
        }
        let reached = page.steps.first().is_some_and(|first| first.round.step <= from);
        next = page.previous.filter(|_| !reached);
        pages.push(page);
    }
    Ok(pages.into_iter().rev().flat_map(|page| page.steps).filter(|step| step.round.step >= from).collect())
}

fn joins(page: &UpdatePage, later: &UpdatePage) -> bool {
    page.steps.last().zip(later.steps.first()).is_some_and(|(last, first)| first.follows(last))
}

async fn fetch_page(net: &NetHandle, author: PeerKey, blob: BlobHash, len: u32) -> Result<UpdatePage, FetchFault> {
    let fetched = net.fetch(blob, u64::from(len), &[author], FETCH_TIMEOUT).await;
    if let Err(error) = fetched {
        tracing::debug!(actor = "run", peer = %author, error = %chain_of(&error), "a page of an update log can't be had");
        return Err(FetchFault::Unavailable);
    }
    let bytes = net.get(blob).await.ok().flatten().ok_or(FetchFault::Unavailable)?;
    let wire = net.wire();
    let decoded = tokio::task::spawn_blocking(move || wire.decode_updates(&bytes)).await;
    decoded.map_err(|_died| FetchFault::Unavailable)?.map_err(|error| {
        tracing::warn!(actor = "run", peer = %author, error = %chain_of(&error), "a page of an update log is malformed");
        FetchFault::Malformed
    })
}

/// Writes a file so that it is there whole, or as it was before.
pub(super) async fn write(file: &Path, bytes: &[u8]) -> Result<(), UpdatesError> {
    let (file, bytes) = (file.to_owned(), bytes.to_owned());
    let written = tokio::task::spawn_blocking(move || {
        let partial = file.with_extension(PARTIAL);
        let write = || {
            let mut out = fs::File::create(&partial)?;
            out.write_all(&bytes)?;
            out.sync_all()?;
            fs::rename(&partial, &file)
        };
        write().map_err(|source| {
            // On a disk that is full, half a page is in the way of a whole one.
            let _not_made = fs::remove_file(&partial);
            UpdatesError::Io { path: file.clone(), source }
        })
    });
    written.await.map_err(|_died| UpdatesError::Thread)?
}

/// The newest chain of whole pages in `folder`, oldest first; other pages are removed, and what is none is left alone.
fn read_pages(folder: &Path, wire: &Wire, author: &PeerKey) -> Result<Vec<Found>, UpdatesError> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| UpdatesError::Io { path, source }
    };
    fs::create_dir_all(folder).map_err(refused(folder))?;
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(refused(folder))? {
        let path = entry.map_err(refused(folder))?.path();
        if path.extension().is_some_and(|end| end == EXTENSION || end == PARTIAL) {
            files.push(path);
        }
    }
    // Names are numbers of equal length.
    files.sort();
    let mut chain: VecDeque<Found> = VecDeque::new();
    for file in files.into_iter().rev() {
        let found = read_page(&file, wire, author).filter(|found| {
            let later = chain.front();
            let named = |later: &Found| later.page.previous.is_some_and(|(blob, _)| blob == BlobHash::of(&found.bytes));
            later.is_none_or(|later| named(later) && joins(&found.page, &later.page))
        });
        match found {
            Some(found) if chain.len() < PAGES_MAX => chain.push_front(found),
            _ => remove(&file),
        }
    }
    Ok(chain.into())
}

fn read_page(file: &Path, wire: &Wire, author: &PeerKey) -> Option<Found> {
    let found = fs::metadata(file).ok()?;
    // What is no file might never end, or never begin.
    if file.extension()? != EXTENSION || !found.is_file() || found.len() > UPDATES_BYTES_MAX as u64 {
        return None;
    }
    let bytes = fs::read(file).ok()?;
    let page = wire.decode_updates(&bytes).ok().filter(|page| page.author == *author)?;
    Some(Found { page, bytes, file: file.to_owned() })
}
