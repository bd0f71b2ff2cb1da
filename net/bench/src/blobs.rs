//! A blob from its author to one receiver, and to eight at once.

use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::contest::in_turns;
use crate::process::{Kind, Process};
use crate::rig::Rig;
use crate::stats::Spread;
use crate::table::{Table, number, ratio, spread};

#[derive(Args)]
pub(crate) struct Options {
    /// 50 Mbit/s, 80 ms round trip and 1 % loss between hosts of their own, instead of the loopback interface (needs root).
    #[arg(long)]
    shaped: bool,
    /// Counted rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Size of the blob; by default 64, or 4 on the shaped network.
    #[arg(long)]
    mib: Option<usize>,
    /// How many receive it.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8])]
    receivers: Vec<usize>,
    /// Who takes part; the last is what the others are held against.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Kind::Quic, Kind::Tcp, Kind::Iroh])]
    contestants: Vec<Kind>,
}

#[derive(Clone, Copy, Debug)]
struct Spent {
    /// MB/s that all receivers got together, until the last had everything.
    rate: f64,
    /// Processor seconds of all nodes for a GB received.
    cpu: f64,
    /// What the author sent, in blobs.
    sent: Option<f64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let len = options.mib.unwrap_or(if options.shaped { 4 } else { 64 }) << 20;
    let network = if options.shaped { "50 Mbit/s, 80 ms round trip, 1 % loss" } else { "the loopback interface" };
    let title = format!(
        "A blob of {} MiB over {network}, median (quartiles) of {} rounds in turns; ratios: pairs against the last",
        len >> 20,
        options.rounds
    );
    let head = ["receivers", "who", "MB/s in all", "ratio", "CPU-s/GB", "ratio", "sent by the author"];
    let mut table = Table::new(title, &head);
    for &receivers in &options.receivers {
        let rounds = in_turns(&options.contestants, options.rounds, |kind, round| {
            let spent = once(options.shaped, kind, receivers, len, round)?;
            eprintln!("{receivers} receivers, round {round}, {}: {spent:?}", kind.name());
            Ok::<_, anyhow::Error>(spent)
        })?;
        let column = |place: usize, of: fn(&Spent) -> f64| rounds[place].iter().map(of).collect::<Vec<_>>();
        let last = options.contestants.len() - 1;
        for (place, kind) in options.contestants.iter().enumerate() {
            let [rate, cpu] = [|spent: &Spent| spent.rate, |spent: &Spent| spent.cpu];
            let against = |of| {
                if place == last { String::new() } else { ratio(Spread::of_ratios(&column(place, of), &column(last, of))) }
            };
            let sent = Spread::of(rounds[place].iter().filter_map(|spent| spent.sent));
            table.row([
                receivers.to_string(),
                kind.name().to_owned(),
                spread(Spread::of(column(place, rate)), 1.0),
                against(rate),
                spread(Spread::of(column(place, cpu)), 1.0),
                against(cpu),
                sent.map_or_else(|| format!("{receivers} ×"), |sent| format!("{} ×", number(sent.median))),
            ]);
        }
    }
    println!("{table}");
    Ok(())
}

/// Fresh nodes that know each other, and one blob.
fn once(shaped: bool, kind: Kind, receivers: usize, len: usize, round: usize) -> Result<Spent> {
    let nodes = receivers + 1;
    let rig = Rig::new(shaped, nodes, round as u64)?;
    let author = Process::start(&rig, kind, 0, nodes, None)?;
    let address = author.address.clone();
    let mut all = vec![author];
    for number in 1..nodes {
        all.push(Process::start(&rig, kind, number, nodes, Some(&address))?);
    }
    all.iter_mut().try_for_each(|node| node.tell("meet"))?;
    all.iter_mut().try_for_each(|node| node.answer().map(drop))?;
    let name = all[0].ask(&format!("put {len} {round}"))?;
    let before = cpu(&mut all)?;
    let start = Instant::now();
    all[1..].iter_mut().try_for_each(|node| node.tell(&format!("get {name} {len}")))?;
    all[1..].iter_mut().try_for_each(|node| node.answer().map(drop))?;
    let wall = start.elapsed().as_secs_f64();
    let cpu = cpu(&mut all)? - before;
    let sent = all[0].ask("sent")?.parse::<f64>().ok().map(|bytes| bytes / len as f64);
    let bytes = (len * receivers) as f64;
    Ok(Spent { rate: bytes / wall / 1e6, cpu: cpu / (bytes / 1e9), sent })
}

fn cpu(nodes: &mut [Process]) -> Result<f64> {
    nodes.iter_mut().map(|node| Ok(node.ask("cpu")?.parse::<f64>()?)).sum()
}
