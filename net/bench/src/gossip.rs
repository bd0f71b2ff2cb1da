//! How long a message takes to each of 32 peers: ours, as a node has it, against libp2p's gossipsub as it comes. All nodes of a
//! turn live in this process, and all know each other.

mod plain;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use psyche_messages::{BlobHash, RoundMessage};
use psyche_net::{EventReceiver, NetEvent, NetHandle};
use tempfile::TempDir;

use crate::contest::in_turns;
use crate::our_node::{self, announcement};
use crate::process::cpu_s;
use crate::stats::Spread;
use crate::table::{Table, ratio, spread};
use plain::Plain;

/// Sequence numbers below are for warming up.
const FIRST: u32 = 1 << 20;
/// The longest wait for what was not delivered.
const STRAGGLERS: Duration = Duration::from_secs(15);
/// How often it is looked whether everything has come.
const LOOK_EVERY: Duration = Duration::from_millis(10);

#[derive(Args)]
pub(crate) struct Options {
    /// Counted rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Peers that hear a message.
    #[arg(long, default_value_t = 32)]
    peers: u8,
    /// Messages a second, all authors together; 0: every node says one thing at the same moment, as at the end of a round.
    #[arg(long, value_delimiter = ',', default_values_t = [5, 20, 50, 0])]
    rates: Vec<u32>,
    /// Seconds at each rate.
    #[arg(long, default_value_t = 4)]
    seconds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Ours,
    Plain,
}

/// When messages were said, and how long each took to each peer.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    said: HashMap<u32, Instant>,
    heard_s: Vec<f64>,
}

impl Log {
    fn with<T>(&self, f: impl FnOnce(&mut Noted) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn say(&self, number: u32) {
        let now = Instant::now();
        self.with(|noted| noted.said.insert(number, now));
    }

    pub(crate) fn hear(&self, number: u32) {
        let now = Instant::now();
        self.with(|noted| {
            if let Some(said) = noted.said.get(&number) {
                noted.heard_s.push((now - *said).as_secs_f64());
            }
        });
    }
}

/// Delays, and what they cost.
#[derive(Clone, Copy, Debug)]
struct Spent {
    p50: f64,
    p99: f64,
    /// Of what was to be delivered, the part that was.
    delivered: f64,
    /// Processor seconds for a thousand deliveries.
    cpu: f64,
}

/// The nodes of a turn.
enum Group {
    Ours(Vec<(NetHandle, TempDir)>),
    Plain(Vec<Plain>, usize),
}

impl Group {
    async fn start(who: Who, count: u8, log: &Log) -> Result<Self> {
        if who == Who::Plain {
            let bytes = message_bytes().await?;
            return Ok(Self::Plain(plain::start(count, log).await?, bytes));
        }
        let mut nodes: Vec<(NetHandle, TempDir)> = Vec::new();
        for number in 0..count {
            let author = nodes.first().and_then(|(net, _)| net.presence().listening.first().cloned());
            let listen = "/ip4/127.0.0.1/udp/0/quic-v1".to_owned();
            let (net, events, dir) = our_node::start(number, count, listen, author.as_deref()).await?;
            drop(tokio::spawn(follow(events, log.clone())));
            nodes.push((net, dir));
        }
        for (net, _) in &nodes {
            our_node::meet(net, nodes.len() - 1).await?;
        }
        Ok(Self::Ours(nodes))
    }

    async fn say(&self, author: usize, number: u32) -> Result<()> {
        match self {
            Self::Ours(nodes) => {
                let (net, _) = &nodes[author];
                drop(net.publish(said_by(author, number)?).await?);
            }
            Self::Plain(nodes, bytes) => nodes[author].say(number, *bytes).await?,
        }
        Ok(())
    }

    async fn end(self) {
        match self {
            Self::Ours(nodes) => {
                for (net, _) in &nodes {
                    net.shutdown().await;
                }
            }
            Self::Plain(nodes, _) => drop(nodes),
        }
    }
}

fn said_by(author: usize, number: u32) -> Result<RoundMessage> {
    announcement(u8::try_from(author)?, number, BlobHash::of(&number.to_le_bytes()), 5_276)
}

/// Length of an announcement as it travels, without what gossipsub adds on both sides.
async fn message_bytes() -> Result<usize> {
    let (net, _events, _dir) = our_node::start(0, 1, "/ip4/127.0.0.1/udp/0/quic-v1".to_owned(), None).await?;
    let bytes = net.wire().encode_message(&net.sign(said_by(0, FIRST)?)?)?.len();
    net.shutdown().await;
    Ok(bytes)
}

async fn follow(mut events: EventReceiver, log: Log) {
    while let Some(event) = events.recv().await {
        if let NetEvent::Round(signed) = event {
            log.hear(signed.message.round().step.0);
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let contestants = [Who::Ours, Who::Plain];
    let rounds = in_turns(&contestants, options.rounds, |who, round| {
        let spent = runtime.block_on(turn(who, options))?;
        for (rate, spent) in options.rates.iter().zip(&spent) {
            eprintln!("round {round}, {who:?}, {rate} a second: {spent:?}");
        }
        Ok::<_, anyhow::Error>(spent)
    })?;
    let title = format!(
        "Messages of {} bytes to {} peers, median (quartiles) of {} rounds in turns; ratios: pairs against gossipsub's defaults",
        runtime.block_on(message_bytes())?,
        options.peers,
        options.rounds
    );
    let head =
        ["messages/s", "who", "p50, ms", "ratio", "p99, ms", "ratio", "CPU-s for 1,000 deliveries", "ratio", "delivered"];
    let mut table = Table::new(title, &head);
    for (at, rate) in options.rates.iter().enumerate() {
        for (place, name) in ["ours", "gossipsub's defaults"].into_iter().enumerate() {
            let column =
                |place: usize, of: fn(&Spent) -> f64| rounds[place].iter().map(|round| of(&round[at])).collect::<Vec<_>>();
            let against =
                |of| if place == 1 { String::new() } else { ratio(Spread::of_ratios(&column(0, of), &column(1, of))) };
            let delivered = column(place, |spent| spent.delivered).into_iter().fold(1.0, f64::min);
            table.row([
                if *rate == 0 { "all at once".to_owned() } else { rate.to_string() },
                name.to_owned(),
                spread(Spread::of(column(place, |spent| spent.p50)), 1e3),
                against(|spent| spent.p50),
                spread(Spread::of(column(place, |spent| spent.p99)), 1e3),
                against(|spent| spent.p99),
                spread(Spread::of(column(place, |spent| spent.cpu)), 1.0),
                against(|spent| spent.cpu),
                format!("{:.2} %", delivered * 100.0),
            ]);
        }
    }
    println!("{table}");
    Ok(())
}

/// Fresh nodes, all rates one after the other.
async fn turn(who: Who, options: &Options) -> Result<Vec<Spent>> {
    let count = usize::from(options.peers) + 1;
    let log = Log::default();
    let group = Group::start(who, options.peers + 1, &log).await?;
    let mut next = 0;
    // The mesh stands when everybody hears everybody.
    for author in 0..count {
        loop {
            next += 1;
            log.say(next);
            let before = log.with(|noted| noted.heard_s.len());
            group.say(author, next).await?;
            if wait(&log, before + count - 1, Duration::from_secs(2)).await {
                break;
            }
        }
    }
    next = FIRST;
    let mut spent = Vec::new();
    for rate in &options.rates {
        spent.push(at_rate(&group, &log, *rate, options.seconds, &mut next, count).await?);
    }
    group.end().await;
    Ok(spent)
}

async fn at_rate(group: &Group, log: &Log, rate: u32, seconds: u32, next: &mut u32, count: usize) -> Result<Spent> {
    log.with(|noted| *noted = Noted::default());
    let (messages, gap) = match rate {
        // A burst each second.
        0 => (seconds as usize * count, None),
        _ => ((rate * seconds) as usize, Some(Duration::from_secs(1) / rate)),
    };
    let (cpu, start) = (cpu_s(), tokio::time::Instant::now());
    for message in 0..messages {
        let at = gap.map_or(Duration::from_secs((message / count) as u64), |gap| gap * message as u32);
        tokio::time::sleep_until(start + at).await;
        *next += 1;
        log.say(*next);
        group.say(message % count, *next).await?;
    }
    let expected = messages * (count - 1);
    let _all = wait(log, expected, STRAGGLERS).await;
    let cpu = cpu_s() - cpu;
    let mut heard = log.with(|noted| std::mem::take(&mut noted.heard_s));
    heard.sort_by(f64::total_cmp);
    let at = |quantile: f64| heard.get(((heard.len() - 1) as f64 * quantile) as usize).copied();
    let (p50, p99) = at(0.5).zip(at(0.99)).context("nobody heard anything")?;
    Ok(Spent { p50, p99, delivered: heard.len() as f64 / expected as f64, cpu: cpu * 1e3 / heard.len() as f64 })
}

/// Whether `expected` deliveries are there within `most`.
async fn wait(log: &Log, expected: usize, most: Duration) -> bool {
    let until = Instant::now() + most;
    while log.with(|noted| noted.heard_s.len()) < expected {
        if Instant::now() > until {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    true
}
