//! The log on a real disk and a real network, with what disks and crashes do to its files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may unwrap")]

use std::os::unix::fs::symlink;

use psyche_messages::{Address, BatchInterval, Digest, ResultAnnounced, RoundKey, Secret};
use psyche_net::{Net, NetConfig};
use tempfile::TempDir;

use super::*;

const RUN: Address = Address([3; 32]);

/// A node's folder and network; the log is opened as often as the node starts.
struct Disk {
    dir: TempDir,
    net: NetHandle,
}

impl Disk {
    async fn new(seed: u8, bootstrap: Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut net = NetConfig::new(Secret::new([seed; 32]), RUN, dir.path().join("blobs"), 0);
        net.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".to_owned()];
        (net.members_only, net.bootstrap) = (false, bootstrap);
        let (net, mut events) = Net::start(net).await.unwrap();
        // Nobody is interested, but the network must not wait for them.
        drop(tokio::spawn(async move { while events.recv().await.is_some() {} }));
        Self { dir, net }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("updates")
    }

    async fn open(&self) -> UpdateLog {
        UpdateLog::open(self.folder(), self.net.clone()).await.unwrap()
    }

    fn file(&self, first: u32) -> PathBuf {
        self.folder().join(format!("{first:010}.page"))
    }

    /// Names of what lies in the folder, ascending.
    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

/// The digest after a step; `branch` tells apart what could have become of it.
fn digest(step: u32, branch: u8) -> Digest {
    let mut digest = [branch; 32];
    digest[..4].copy_from_slice(&step.to_le_bytes());
    Digest(digest)
}

fn step(number: u32) -> AppliedStep {
    branched(number, 0, 0)
}

fn branched(number: u32, before: u8, after: u8) -> AppliedStep {
    let round = RoundKey::new(0, number);
    let batch = BatchInterval::new(u64::from(number), u64::from(number)).unwrap();
    let result =
        ResultAnnounced { round, trainer: Address([7; 32]), batch, payload: BlobHash([number as u8; 32]), payload_len: 9 };
    let (before, after) = (digest(number - 1, before), digest(number, after));
    AppliedStep { round, cold_start: None, results: vec![result], before, after }
}

async fn grow(log: &mut UpdateLog, steps: core::ops::RangeInclusive<u32>) -> UpdatesAnnounced {
    let mut announced = None;
    for number in steps {
        announced = log.append(step(number)).await.unwrap();
    }
    announced.unwrap()
}

fn range(log: &UpdateLog) -> (u32, u32) {
    let (first, last) = log.range().unwrap();
    (first.0, last.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_several_pages_is_the_same_after_a_restart_and_grows_on() {
    let disk = Disk::new(1, Vec::new()).await;
    let mut log = disk.open().await;
    assert_eq!(log.range(), None);
    let announced = grow(&mut log, 1..=70).await;
    assert_eq!((announced.first, announced.round.step, announced.digest), (Step(1), Step(70), digest(70, 0)));
    assert_eq!(disk.files(), ["0000000001.page", "0000000033.page", "0000000065.page"]);
    let steps = log.since(Step(1));
    drop(log);
    let mut again = disk.open().await;
    assert_eq!((range(&again), again.since(Step(1)) == steps), ((1, 70), true));
    // The pages have the names that peers heard of.
    let bytes = disk.net.get(announced.blob).await.unwrap().expect("the newest page is served");
    assert_eq!(bytes.len() as u32, announced.blob_len);
    let grown = grow(&mut again, 71..=71).await;
    assert_eq!((grown.first, range(&disk.open().await)), (Step(1), (1, 71)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_no_step_once_there_is_room_again() {
    let disk = Disk::new(1, Vec::new()).await;
    let mut log = disk.open().await;
    grow(&mut log, 1..=33).await;
    // The page in work is written to this name, at which no byte finds room.
    let partial = disk.file(33).with_extension("partial");
    symlink("/dev/full", &partial).unwrap();
    let refused = log.append(step(34)).await.unwrap_err();
    let UpdatesError::Io { source, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull, "{refused}");
    assert!(!partial.is_symlink(), "half a page is in the way of a whole one");
    assert_eq!(range(&log), (1, 34), "what is applied is applied");
    assert_eq!(range(&disk.open().await), (1, 33), "and the disk holds what it held before");
    grow(&mut log, 35..=35).await;
    assert_eq!(range(&disk.open().await), (1, 35));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_a_full_disk_refused_are_written_later_however_many_pages_they_make() {
    let disk = Disk::new(1, Vec::new()).await;
    let mut log = disk.open().await;
    grow(&mut log, 1..=30).await;
    let partial = disk.file(1).with_extension("partial");
    for number in 31..=70 {
        symlink("/dev/full", &partial).unwrap();
        log.append(step(number)).await.unwrap_err();
    }
    let announced = grow(&mut log, 71..=71).await;
    assert_eq!((announced.first, announced.round.step), (Step(1), Step(71)));
    assert_eq!(disk.files(), ["0000000001.page", "0000000033.page", "0000000065.page"]);
    assert_eq!(range(&disk.open().await), (1, 71));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_was_cut_short_anywhere_counts_as_none_and_is_written_anew() {
    let disk = Disk::new(1, Vec::new()).await;
    grow(&mut disk.open().await, 1..=40).await;
    let whole = fs::read(disk.file(33)).unwrap();
    for len in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(disk.file(33), &whole[..len]).unwrap();
        // What a crash leaves of a page that was being written.
        fs::write(disk.file(33).with_extension("partial"), &whole[..len]).unwrap();
        let mut log = disk.open().await;
        assert_eq!(range(&log), (1, 32), "{len} bytes");
        assert_eq!(disk.files(), ["0000000001.page"]);
        grow(&mut log, 33..=40).await;
        assert!(fs::read(disk.file(33)).unwrap() == whole, "the same steps make the same page");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_with_a_wrong_bit_takes_those_before_it_along_and_none_behind_it() {
    let disk = Disk::new(1, Vec::new()).await;
    grow(&mut disk.open().await, 1..=70).await;
    let mut bytes = fs::read(disk.file(33)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(disk.file(33), &bytes).unwrap();
    let mut log = disk.open().await;
    assert_eq!((range(&log), disk.files()), ((65, 70), vec!["0000000065.page".to_owned()]));
    let announced = grow(&mut log, 71..=100).await;
    assert_eq!((announced.first, range(&disk.open().await)), (Step(65), (65, 100)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_page_of_this_node_is_not_believed_and_what_is_somebody_else_s_not_touched() {
    let disk = Disk::new(1, Vec::new()).await;
    grow(&mut disk.open().await, 1..=40).await;
    let other = Disk::new(2, Vec::new()).await;
    grow(&mut other.open().await, 1..=64).await;
    // Another node's page, right but for its author; a page that is too long; a folder and a pipe of a page's name.
    fs::copy(other.file(33), disk.folder().join("0000000041.page")).unwrap();
    fs::write(disk.folder().join("0000000090.page"), vec![0; UPDATES_BYTES_MAX + 1]).unwrap();
    fs::create_dir(disk.folder().join("0000000091.page")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(disk.folder().join("0000000092.page")).status().unwrap();
    assert!(pipe.success());
    // What the operator left there.
    fs::create_dir(disk.folder().join("backup")).unwrap();
    fs::write(disk.folder().join("notes.txt"), "keep me").unwrap();
    let log = disk.open().await;
    assert_eq!(range(&log), (1, 40));
    let left = ["0000000001.page", "0000000033.page", "0000000091.page", "backup", "notes.txt"];
    assert_eq!(disk.files(), left, "a folder stays, and is named in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_that_went_back_take_the_log_along() {
    let disk = Disk::new(1, Vec::new()).await;
    let mut log = disk.open().await;
    grow(&mut log, 1..=70).await;
    log.append(branched(40, 0, 1)).await.unwrap();
    assert_eq!((range(&log), disk.files()), ((1, 40), vec!["0000000001.page".to_owned(), "0000000033.page".to_owned()]));
    let announced = log.append(branched(41, 1, 1)).await.unwrap().unwrap();
    assert_eq!(announced.digest, digest(41, 1));
    let again = disk.open().await;
    assert_eq!((range(&again), again.since(Step(40))), ((1, 41), vec![branched(40, 0, 1), branched(41, 1, 1)]));
    // A step that nothing leads to begins the log anew.
    log.append(step(90)).await.unwrap();
    assert_eq!((range(&log), range(&disk.open().await)), ((90, 90), (90, 90)));
    assert_eq!(disk.files(), ["0000000090.page"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_through_its_log_again_says_so_once_and_at_its_end() {
    let disk = Disk::new(1, Vec::new()).await;
    let mut log = disk.open().await;
    let announced = grow(&mut log, 1..=4).await;
    for number in 1..=3 {
        assert_eq!(log.append(step(number)).await.unwrap(), None, "whether step 4 is right is not known yet");
    }
    assert_eq!(log.append(step(4)).await.unwrap(), Some(announced.clone()));
    // After a restart others need to know soon, from where the log goes on in any case.
    let mut log = disk.open().await;
    assert_eq!(log.append(step(1)).await.unwrap(), Some(announced));
    assert_eq!(log.append(step(2)).await.unwrap(), None);
    // The last step was a wrong one.
    let right = log.append(branched(4, 0, 1)).await.unwrap().unwrap();
    assert_eq!((right.digest, range(&disk.open().await)), (digest(4, 1), (1, 4)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_needs_any_more_goes_by_whole_pages() {
    let disk = Disk::new(1, Vec::new()).await;
    let mut log = disk.open().await;
    grow(&mut log, 1..=100).await;
    log.forget_before(Step(64));
    assert_eq!((range(&log), disk.files().len()), ((33, 100), 3), "step 64 is still needed");
    log.forget_before(Step(1000));
    assert_eq!((range(&log), disk.files().len()), ((97, 100), 1), "the page in work stays");
    assert_eq!(range(&disk.open().await), (97, 100));
    assert_eq!(grow(&mut log, 101..=101).await.first, Step(97));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_bounded_on_disk_as_in_memory() {
    let disk = Disk::new(1, Vec::new()).await;
    let mut log = disk.open().await;
    let last = LEDGER_STEPS_MAX as u32 + 3 * PAGE_STEPS_MAX as u32;
    let announced = grow(&mut log, 1..=last).await;
    assert_eq!((announced.first.0, last), range(&log));
    assert_eq!(log.since(announced.first).len(), LEDGER_STEPS_MAX);
    assert!(disk.files().len() <= PAGES_MAX, "{:?}", disk.files());
    assert_eq!(range(&disk.open().await), range(&log));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_has_grown_since_it_was_announced_is_served_for_a_while_and_then_let_go() {
    let disk = Disk::new(1, Vec::new()).await;
    let mut log = disk.open().await;
    let old = grow(&mut log, 1..=2).await;
    // Known steps are applied again when a node heals; they are no reason to keep anything longer.
    for _ in 0..5 {
        assert_eq!(grow(&mut log, 1..=2).await, old);
    }
    let served = |blob| disk.net.blobs().path_of(&blob).is_ok();
    // A round of its own that is over soon: from then on only the log keeps it.
    assert!(disk.net.blobs().tag(&old.blob, RoundKey::new(0, 1)));
    grow(&mut log, 3..=1 + HEADS_SERVED as u32).await;
    disk.net.blobs().retain_rounds_from(RoundKey::new(0, 2));
    assert!(served(old.blob), "who heard of it fetches it just now");
    grow(&mut log, 2 + HEADS_SERVED as u32..=2 + HEADS_SERVED as u32).await;
    disk.net.blobs().retain_rounds_from(RoundKey::new(0, 2));
    assert!(!served(old.blob));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_reads_the_whole_log_while_its_author_writes_on() {
    let author = Disk::new(1, Vec::new()).await;
    let reader = Disk::new(2, author.net.presence().listening).await;
    let mut log = author.open().await;
    let announced = grow(&mut log, 1..=70).await;
    let head = (announced.blob, announced.blob_len);
    let writes = async { grow(&mut log, 71..=76).await };
    let reads = fetch_log(&reader.net, author.net.peer_key(), head, Step(20));
    let (_, steps) = tokio::join!(writes, reads);
    let steps: Vec<_> = steps.unwrap().iter().map(|step| step.round.step.0).collect();
    assert_eq!(steps, (20..=70).collect::<Vec<_>>());
    // Under another length it is not the page that was announced, and under another name nobody's.
    let wrong = fetch_log(&reader.net, reader.net.peer_key(), head, Step(20)).await;
    assert_eq!(wrong, Err(FetchFault::Malformed), "its author is another one");
}
