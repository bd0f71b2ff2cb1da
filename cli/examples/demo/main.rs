//! What nodes bear, shown with real ones on a local chain.
//!
//! ```text
//! make demo                     all of it
//! make demo ARGS="altered"      one of them: late-and-killed, altered, liar
//! ```
//! Late and killed: nodes are processes of `psyche-solana-client train`; one comes late and catches up by a snapshot and the signed
//! update log, then another one is killed and comes back. Altered: the parameters of a running replica are altered; it notices and
//! heals. Liar: a node signs results that are not what it trained; nobody applies them, and it is dropped from the epoch.
//!
//! The transcript is on stdout; exit code 1 where something else happens than must. `cli/tests/demo.rs` plays the same.

mod acts;
mod journal;
mod play;
mod stage;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};

/// The folder's mark: only what this program made is removed.
const MARKER: &str = ".psyche-demo";

/// Nodes that come late, are killed, altered, and lie.
#[derive(Debug, Parser)]
struct Args {
    /// What is shown [default: all of it].
    #[arg(value_enum)]
    acts: Vec<Act>,
    /// Folder for logs and event logs; what an earlier demonstration left there is removed.
    #[arg(long, default_value = "target/demo")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Act {
    /// A node that comes late, and one that is killed and comes back.
    LateAndKilled,
    /// A replica whose parameters are altered while it runs.
    Altered,
    /// A node that signs what it did not train.
    Liar,
}

impl Act {
    const fn title(self) -> &'static str {
        match self {
            Self::LateAndKilled => "A node comes late and catches up by the update log; another one is killed and comes back",
            Self::Altered => "A replica's parameters are altered while it runs, and heal",
            Self::Liar => "A node signs results that are not what it trained, and is excluded",
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let program = std::env::current_exe().context("failed to find this program's own file")?;
    let program =
        program.ancestors().nth(2).context("this program lies outside of a build folder")?.join("psyche-solana-client");
    let out = std::path::absolute(&args.out).context("failed to find --out")?;
    clear(&out)?;
    let log = std::fs::File::create(out.join("log.txt")).context("failed to open a log")?;
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::sync::Mutex::new(log)).init();
    let acts = if args.acts.is_empty() { vec![Act::LateAndKilled, Act::Altered, Act::Liar] } else { args.acts };
    for act in acts {
        let name = act.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let folder = out.join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        let mut stdout = std::io::stdout();
        writeln!(stdout, "\n{}\n", act.title()).context("failed to write the transcript")?;
        match act {
            Act::LateAndKilled => acts::late_and_killed(&program, &folder, &mut stdout)?,
            Act::Altered => acts::altered(&program, &folder, &mut stdout)?,
            Act::Liar => acts::liar(&program, &folder, &mut stdout)?,
        }
    }
    Ok(())
}

fn clear(out: &Path) -> Result<()> {
    if out.exists() {
        if !out.join(MARKER).exists() && out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{} holds files that no demonstration made; name another folder with --out", out.display());
        }
        std::fs::remove_dir_all(out).with_context(|| format!("failed to clear {}", out.display()))?;
    }
    std::fs::create_dir_all(out).with_context(|| format!("failed to create {}", out.display()))?;
    std::fs::write(out.join(MARKER), "").with_context(|| format!("failed to write to {}", out.display()))
}
