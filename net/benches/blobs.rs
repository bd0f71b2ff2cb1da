//! Blobs over the loopback interface: one peer gets them, and eight at once. Prints the rate at which every receiver has them,
//! the processor time that a gigabyte takes all nodes together, and how much of it the author sent.
//!
//! `cargo bench --bench blobs -- [MiB]`; the figures stand in docs/BENCHMARKS.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, and may fail"
)]

use std::time::{Duration, Instant};

use psyche_messages::{Address, BlobHash, Secret};
use psyche_net::{Net, NetConfig, NetHandle};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(600);

struct Node {
    net: NetHandle,
    _dir: TempDir,
}

async fn start(seed: u8, listen: &str, bootstrap: Vec<String>) -> Node {
    let dir = TempDir::new().unwrap();
    let run = Address([0x52; 32]);
    let config = NetConfig {
        listen: vec![listen.to_owned()],
        bootstrap,
        ..NetConfig::new(Secret::new([seed; 32]), run, dir.path().to_owned(), 0)
    };
    let (net, mut events) = Net::start(config).await.unwrap();
    // Ends with the network.
    drop(tokio::spawn(async move { while events.recv().await.is_some() {} }));
    Node { net, _dir: dir }
}

/// Processor time of this process so far, in seconds.
fn cpu_s() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage fills the structure that it is given; all zeros are a valid one.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// One author and `receivers` others who learn of a blob of `len` bytes at the same time.
async fn spread(name: &str, listen: &str, receivers: u8, len: usize) {
    let author = start(0, listen, Vec::new()).await;
    let mut nodes = Vec::new();
    for seed in 1..=receivers {
        nodes.push(start(seed, listen, author.net.presence().listening).await);
    }
    nodes.push(author);
    let roster: Vec<_> = nodes.iter().map(|node| node.net.peer_key()).collect();
    for node in &nodes {
        node.net.set_members(&roster).await.unwrap();
    }
    for node in &nodes {
        let mut presence = node.net.watch_presence();
        drop(presence.wait_for(|presence| presence.members.len() == usize::from(receivers)).await.unwrap());
    }
    let author = nodes.pop().unwrap();
    let hash = author.net.put(noise(len)).await.unwrap();
    let (start, cpu) = (Instant::now(), cpu_s());
    let provider = [author.net.peer_key()];
    let fetch = |node: &Node, hash: BlobHash| {
        let net = node.net.clone();
        async move { net.fetch(hash, len as u64, &provider, TIMEOUT).await.unwrap() }
    };
    futures::future::join_all(nodes.iter().map(|node| fetch(node, hash))).await;
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_s() - cpu);
    let bytes = len as f64 * f64::from(receivers);
    println!(
        "{name:<12} 1 -> {receivers}  {:>5} MiB each  {wall:>7.2} s  {:>7.1} MB/s in all  {:>6.2} CPU-s/GB  author sent {:.2} x",
        len >> 20,
        bytes / wall / 1e6,
        cpu / (bytes / 1e9),
        author.net.blob_traffic().sent_bytes as f64 / len as f64,
    );
}

fn main() {
    let mib = std::env::args().skip(1).find_map(|arg| arg.parse::<usize>().ok()).unwrap_or(64);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for (name, listen) in [("QUIC", "/ip4/127.0.0.1/udp/0/quic-v1"), ("TCP", "/ip4/127.0.0.1/tcp/0")] {
            for receivers in [1, 8] {
                spread(name, listen, receivers, mib << 20).await;
            }
        }
    });
}
