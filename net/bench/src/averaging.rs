//! The mean of four peers' vectors: ours, by announcement and fetch from whoever has it, against hivemind's averager.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::contest::in_turns;
use crate::process::{Kind, Process};
use crate::rig::Rig;
use crate::stats::Spread;
use crate::table::{Table, ratio, spread};
use crate::usage::cpu_s_below;

/// Who averages.
const PEERS: usize = 4;
/// Rounds before the first one, beside the one that `in_turns` does not count.
const WARM_UP: usize = 3;

#[derive(Args)]
pub(crate) struct Options {
    /// 50 Mbit/s, 80 ms round trip and 1 % loss between hosts of their own, instead of the loopback interface (needs root).
    #[arg(long)]
    shaped: bool,
    /// Counted rounds.
    #[arg(long, default_value_t = 8)]
    rounds: usize,
    /// Bytes of the vector that hivemind averages.
    #[arg(long, default_value_t = 20_000_000)]
    bytes: usize,
    /// Bytes of a payload as training makes them of a model of that size.
    #[arg(long, default_value_t = 14_000)]
    payload: usize,
    /// Python that has hivemind.
    #[arg(long)]
    python: PathBuf,
    /// The script of its peers.
    #[arg(long)]
    script: PathBuf,
}

/// What is done in a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Hivemind averages the vector.
    Hivemind,
    /// Every peer of ours fetches payloads of so many bytes from the others.
    Ours(usize, Kind),
}

#[derive(Clone, Copy)]
struct Spent {
    matchmaking_s: Option<f64>,
    wall_s: f64,
    cpu_s: f64,
}

/// Peers that stand ready. They live as long as the contest, so that hivemind need not start again for every round.
struct Team {
    peers: Vec<Process>,
    step: u32,
}

impl Team {
    fn start(rig: &Rig, options: &Options, who: Who) -> Result<Self> {
        let mut peers: Vec<Process> = Vec::new();
        for number in 0..PEERS {
            let author = peers.first().map(|author| author.address.clone());
            peers.push(match who {
                Who::Hivemind => {
                    let mut command = Command::new(&options.python);
                    command.arg(&options.script);
                    Process::spawn(rig, format!("hivemind {number}"), command, number, PEERS, author.as_deref())?
                }
                Who::Ours(_, kind) => Process::start(rig, kind, number, PEERS, author.as_deref())?,
            });
        }
        let mut team = Self { peers, step: 0 };
        let len = match who {
            Who::Hivemind => options.bytes,
            Who::Ours(len, _) => {
                drop(team.all("meet")?);
                len
            }
        };
        drop(team.all(&format!("fill {len}"))?);
        Ok(team)
    }

    fn all(&mut self, line: &str) -> Result<Vec<String>> {
        self.peers.iter_mut().try_for_each(|peer| peer.tell(line))?;
        self.peers.iter_mut().map(Process::answer).collect()
    }

    fn turn(&mut self, who: Who) -> Result<Spent> {
        self.step += 1;
        let roots: Vec<u32> = self.peers.iter().map(Process::id).collect();
        let mut matchmaking_s = None;
        let mut line = format!("average {}", self.step);
        if who == Who::Hivemind {
            let start = Instant::now();
            drop(self.all("match")?);
            matchmaking_s = Some(start.elapsed().as_secs_f64());
            "reduce".clone_into(&mut line);
        }
        let cpu = cpu_s_below(&roots)?;
        let start = Instant::now();
        drop(self.all(&line)?);
        let wall_s = start.elapsed().as_secs_f64();
        let cpu_s = cpu_s_below(&roots)? - cpu;
        let firsts = self.all("first")?;
        // 0, 1, 2 and 3.
        ensure!(firsts.iter().all(|first| first.parse() == Ok(1.5)), "the means differ from the mean: {firsts:?}");
        Ok(Spent { matchmaking_s, wall_s, cpu_s })
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    // Of a vector that is reduced in parts, a peer gets (n − 1)/n twice; of payloads, n − 1 whole ones.
    let equal = 2 * options.bytes / PEERS / 4 * 4;
    let payload = options.payload / 4 * 4;
    let contestants =
        [Who::Ours(equal, Kind::Tcp), Who::Ours(equal, Kind::Quic), Who::Ours(payload, Kind::Quic), Who::Hivemind];
    let rigs = contestants.iter().map(|_| Rig::new(options.shaped, PEERS, 1)).collect::<Result<Vec<_>>>()?;
    let mut teams: Vec<Team> =
        rigs.iter().zip(contestants).map(|(rig, who)| Team::start(rig, options, who)).collect::<Result<_>>()?;
    // A run has been going on for a while: the first rounds make files and connections that the next ones use again.
    for _ in 0..WARM_UP {
        teams.iter_mut().zip(contestants).try_for_each(|(team, who)| team.turn(who).map(drop))?;
    }
    let rounds = in_turns(&[0, 1, 2, 3], options.rounds, |place: usize, round| {
        let spent = teams[place].turn(contestants[place])?;
        eprintln!("round {round}, contestant {place}: {:.3} s, {:.3} CPU-s", spent.wall_s, spent.cpu_s);
        Ok::<_, anyhow::Error>(spent)
    })?;
    let network = if options.shaped { "50 Mbit/s, 80 ms round trip, 1 % loss" } else { "the loopback interface" };
    let title = format!(
        "The mean over {PEERS} peers, {network}, median (quartiles) of {} rounds in turns; ratios: pairs against hivemind",
        options.rounds
    );
    let mut table = Table::new(title, &["who", "received by a peer", "s", "ratio", "CPU-s of all", "ratio", "matchmaking, s"]);
    let last = rounds.last().context("nobody took part")?;
    let of = |spent: &[Spent], what: fn(&Spent) -> f64| spent.iter().map(what).collect::<Vec<_>>();
    for (who, spent) in contestants.iter().zip(&rounds) {
        let (name, received) = match who {
            Who::Hivemind => {
                (format!("hivemind, a vector of {} bytes", options.bytes), 2 * options.bytes * (PEERS - 1) / PEERS)
            }
            Who::Ours(len, kind) => (format!("{}, payloads of {len} bytes", kind.name()), len * (PEERS - 1)),
        };
        let against = |what: fn(&Spent) -> f64| match who {
            Who::Hivemind => String::new(),
            Who::Ours(..) => ratio(Spread::of_ratios(&of(spent, what), &of(last, what))),
        };
        let matched: Vec<_> = spent.iter().filter_map(|spent| spent.matchmaking_s).collect();
        table.row([
            name,
            format!("{:.2} MB", received as f64 / 1e6),
            spread(Spread::of(of(spent, |spent| spent.wall_s)), 1.0),
            against(|spent| spent.wall_s),
            spread(Spread::of(of(spent, |spent| spent.cpu_s)), 1.0),
            against(|spent| spent.cpu_s),
            if matched.is_empty() { "none".to_owned() } else { spread(Spread::of(matched), 1.0) },
        ]);
    }
    println!("{table}");
    Ok(())
}
