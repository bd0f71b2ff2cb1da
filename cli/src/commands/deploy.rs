//! `deploy`: a program on any chain, by loader transactions.

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context as _, Result, bail};
use psyche_chain::Wallet;
use psyche_chain::deploy::{DeployProgress, deploy};

use super::{chain_failed, connect, failed_to, wallet_of};
use crate::args::DeployArgs;
use crate::{output, work};

/// Largest program that is read, in bytes: what an account can hold.
const PROGRAM_BYTES_MAX: u64 = 10 << 20;

pub(crate) async fn run(args: DeployArgs) -> Result<()> {
    let (rpc, wallet) = (connect(&args.chain).await?, wallet_of(&args.wallet)?);
    let length = std::fs::metadata(&args.program).with_context(|| format!("failed to read {}", args.program.display()))?.len();
    if length > PROGRAM_BYTES_MAX {
        bail!("{} has {length} bytes; at most {PROGRAM_BYTES_MAX} fit into an account", args.program.display());
    }
    let elf = std::fs::read(&args.program).with_context(|| format!("failed to read {}", args.program.display()))?;
    let program = keypair(&args.program_keypair)?;
    let shown = Mutex::new(None);
    let progress = |progress| show(progress, &shown);
    let done = async { deploy(&rpc, &wallet, &program, &elf, &progress).await.map_err(chain_failed) };
    let id = work::resumable("deploying", done).await?;
    output::line(format_args!("{id}"))?;
    Ok(())
}

/// Tells each step once, and writing by tenths.
fn show(progress: DeployProgress, shown: &Mutex<Option<String>>) {
    let line = match progress {
        DeployProgress::UpToDate => "the chain holds this program already".to_owned(),
        DeployProgress::Written { bytes, total } => format!("written {}%", bytes.saturating_mul(10) / total.max(1) * 10),
        DeployProgress::Activating => "making the buffer the program".to_owned(),
        DeployProgress::Done => "deployed".to_owned(),
    };
    let mut shown = shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if shown.as_ref() != Some(&line) {
        output::note(format_args!("{line}"));
        *shown = Some(line);
    }
}

/// The key at `path`, made anew where there is none: its address is the program's id.
fn keypair(path: &Path) -> Result<Wallet> {
    if path.exists() {
        return Wallet::from_file(path).map_err(|error| chain_failed(error.into()));
    }
    let key = Wallet::new();
    key.save(path).map_err(failed_to)?;
    output::note(format_args!("made the program's key in {}; keep it to deploy again under the same id", path.display()));
    Ok(key)
}
