//! Chaos with real processes.
//!
//! ```text
//! make chaos                        five nodes, a kill -9 every 15 s, one of two providers down now and then
//! make chaos ARGS="--seed 7"        other nodes are killed at other times
//! make chaos ARGS="--utilisation"   four undisturbed nodes with long rounds: training time by wall time
//! ```
//! Nodes are processes of `psyche-solana-client train`, each on a host of its own: a network namespace whose only way out is a TAP
//! device. Between them lies a bridge with 50 Mbit/s (uplinks by the kernel's `tbf`), 80 ms there and back, and one frame in a
//! hundred lost. It first runs the network undisturbed, then disturbed, and compares: both runs finish, after every step all nodes
//! have the same digest, so have their last snapshots, and the loss at the end is within noise of the undisturbed one.
//!
//! One JSON object on stdout, progress on stderr; exit code 1 where something is broken that must hold. It needs root,
//! `/dev/net/tun` and iproute2, and says so where they are missing. Namespaces, devices and processes go with this process,
//! whatever ends it; logs and event logs stay in `--out`.

mod bridge;
mod hosts;
mod play;
mod providers;
mod record;
mod scenario;
mod seeded;
mod stage;
mod verdict;
mod wire;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use play::{Played, play};
use scenario::{SHAPE, Scenario};
use serde_json::{Value, json};

/// The folder's mark: only what this program made is removed.
const MARKER: &str = ".psyche-chaos";

/// Real nodes on a bad network that are killed, and providers that fail.
#[derive(Debug, Parser)]
struct Args {
    /// Decides who is killed, which provider fails, and which frames are lost.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Nodes [default: 5, or 4 with --utilisation].
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..=16))]
    nodes: Option<u8>,
    /// Steps of each run [default: 60, or 6 with --utilisation].
    #[arg(long, value_parser = clap::value_parser!(u32).range(4..=10_000))]
    steps: Option<u32>,
    /// Samples of a round for each node: what a round's time follows from [default: 8, or 4096 with --utilisation].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    samples: Option<u32>,
    /// Seconds from one kill to the next.
    #[arg(long, default_value_t = 15)]
    kill_every: u64,
    /// How many seconds the chain's clock advances in a real one.
    #[arg(long, default_value_t = 2.0)]
    chain_speed: f64,
    /// Measure how much of the time undisturbed nodes train, instead.
    #[arg(long)]
    utilisation: bool,
    /// Leave the undisturbed run out, and the comparison with it.
    #[arg(long)]
    disturbed_only: bool,
    /// Folder for logs and event logs; what an earlier run left there is removed.
    #[arg(long, default_value = "target/chaos")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(missing) = hosts::missing() {
        bail!("chaos has NOT run: {missing}; it needs root, /dev/net/tun, and ip and tc of iproute2");
    }
    let program = std::env::current_exe().context("failed to find this program's own file")?;
    let program =
        program.ancestors().nth(2).context("this program lies outside of a build folder")?.join("psyche-solana-client");
    let out = std::path::absolute(&args.out).context("failed to find --out")?;
    clear(&out)?;
    let (summary, broken) = if args.utilisation { measure(&args, &program, &out)? } else { disturb(&args, &program, &out)? };
    writeln!(std::io::stdout(), "{summary}").context("failed to write the summary")?;
    if !broken.is_empty() {
        bail!("{}; logs and events are under {}", broken.join("; "), out.display());
    }
    Ok(())
}

fn clear(out: &Path) -> Result<()> {
    if out.exists() {
        if !out.join(MARKER).exists() && out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{} holds files that no chaos made; name another folder with --out", out.display());
        }
        std::fs::remove_dir_all(out).with_context(|| format!("failed to clear {}", out.display()))?;
    }
    std::fs::create_dir_all(out).with_context(|| format!("failed to create {}", out.display()))?;
    std::fs::write(out.join(MARKER), "").with_context(|| format!("failed to write to {}", out.display()))
}

fn chaos(args: &Args) -> Scenario {
    Scenario {
        nodes: args.nodes.unwrap_or(5),
        late: true,
        seed: args.seed,
        steps: args.steps.unwrap_or(60),
        samples: args.samples.unwrap_or(8),
        epoch_s: 40.0,
        train_s: 6.0,
        chain_speed: args.chain_speed,
        shape: SHAPE,
        kill_every_s: Some(args.kill_every),
        ends_within_s: 600,
    }
}

fn disturb(args: &Args, program: &Path, out: &Path) -> Result<(Value, Vec<String>)> {
    let scenario = chaos(args);
    let calm = match args.disturbed_only {
        true => None,
        false => Some(play(&Scenario { kill_every_s: None, ..scenario.clone() }, program, &out.join("undisturbed"))?),
    };
    let wild = play(&scenario, program, &out.join("disturbed"))?;
    let mut broken = Vec::new();
    for (name, played) in calm.iter().map(|calm| ("undisturbed", calm)).chain([("disturbed", &wild)]) {
        let all = played.broken.iter().cloned().chain(verdict::contradictions(&played.records));
        broken.extend(all.map(|what| format!("{name}: {what}")));
    }
    let loss = calm.as_ref().map(|calm| verdict::compare(&verdict::losses(&calm.records), &verdict::losses(&wild.records)));
    if let Some(loss) = loss.filter(|loss| !loss.holds()) {
        broken.push(format!("the loss is not within noise of the undisturbed one: {loss:?}"));
    }
    let summary = json!({
        "seed": args.seed,
        "nodes": scenario.nodes,
        "loss": loss,
        "undisturbed": calm.as_ref().map(told),
        "disturbed": told(&wild),
        "broken": broken,
    });
    Ok((summary, broken))
}

fn told(played: &Played) -> Value {
    json!({
        "steps": verdict::losses(&played.records).len(),
        "kills": played.kills,
        "provider_outages": played.outages,
        "starts": played.records.iter().map(|record| record.starts).collect::<Vec<_>>(),
        "trained": played.records.iter().map(|record| record.trained.len()).collect::<Vec<_>>(),
        "last_digest": played.records.iter().map(|r| r.held.last_key_value().and_then(|(_, d)| d.last())).map(|d| d.map(|d| d.short().to_string())).collect::<Vec<_>>(),
        "network": played.counts,
        "wall_s": played.wall.as_secs(),
    })
}

fn measure(args: &Args, program: &Path, out: &Path) -> Result<(Value, Vec<String>)> {
    let scenario = Scenario {
        nodes: args.nodes.unwrap_or(4),
        late: false,
        steps: args.steps.unwrap_or(6),
        samples: args.samples.unwrap_or(4096),
        epoch_s: 1800.0,
        train_s: 300.0,
        kill_every_s: None,
        ends_within_s: 1800,
        ..chaos(args)
    };
    let played = play(&scenario, program, out)?;
    let mut broken = played.broken.clone();
    broken.extend(verdict::contradictions(&played.records));
    let utilisation = verdict::utilisation(&played.records);
    if utilisation.is_none() {
        broken.push("no round was followed by another".to_owned());
    }
    Ok((json!({ "utilisation": utilisation, "run": told(&played), "broken": broken }), broken))
}
