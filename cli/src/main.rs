//! `psyche-solana-client`: joins a decentralised training run, and everything around it. A thin shell over the crates that
//! do the work.

mod args;
mod at_start;
#[cfg(feature = "localnet")]
mod chart;
mod commands;
#[cfg(feature = "localnet")]
mod compare;
mod doctor;
mod env_file;
mod exit;
mod generate;
mod output;
#[cfg(all(test, feature = "localnet"))]
mod pages;
#[cfg(feature = "localnet")]
mod programs;
mod run_config;
mod run_report;
mod signals;
#[cfg(feature = "localnet")]
mod testnet;
mod tui;
mod units;
mod usage;
mod work;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use args::{Cli, Command, Logs};
use exit::{Exit, Failure};

fn main() -> ExitCode {
    let from_file = match load_env_file() {
        Ok(names) => names,
        Err(error) => {
            output::note(format_args!("error: {error:#}"));
            return Exit::Configuration.into();
        }
    };
    tidy_variables();
    let cli = Cli::try_parse().unwrap_or_else(|error| usage::without_keys(error).exit());
    let trains = matches!(cli.command, None | Some(Command::Train(_)));
    if let Err(error) = at_start::settle(&from_file, trains) {
        output::note(format_args!("warning: OpenMP's settings come too late ({error}): set OMP_WAIT_POLICY=passive"));
    }
    let watches = matches!(&cli.command, Some(Command::Status(args)) if args.watch && !args.json.json);
    let live = (trains || watches) && matches!(cli.logs, None | Some(Logs::Tui)) && tui::is_usable();
    let shown = if live { Logs::Tui } else { cli.logs.filter(|logs| *logs != Logs::Tui).unwrap_or(Logs::Plain) };
    if let Err(error) = start_logs(shown) {
        output::note(format_args!("error: {error:#}"));
        return Exit::Configuration.into();
    }
    match run(cli, live) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::reader_gone(&error) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn run(cli: Cli, live: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    runtime.block_on(commands::run(cli.command, live))
}

/// Makes the file's variables those of the process, where it has none of that name: everything below reads one place.
/// Returns the names of those that it set.
fn load_env_file() -> Result<Vec<OsString>> {
    let args: Vec<_> = std::env::args_os().collect();
    let named = env_file::named_in(&args)?.or_else(|| std::env::var_os("PSYCHE_ENV_FILE").map(Into::into));
    let Some(path) = named.filter(|path| !path.as_os_str().is_empty()) else { return Ok(Vec::new()) };
    let mut set = Vec::new();
    for (name, value) in env_file::read(&path)? {
        if std::env::var_os(&name).is_none() {
            // SAFETY: this is the process's only thread so far.
            unsafe { std::env::set_var(&name, value.expose()) };
            set.push(name.into());
        }
    }
    Ok(set)
}

/// Takes blanks and quotes, which `docker run --env-file` leaves in place, off the variables that options read, and forgets
/// those that are empty.
fn tidy_variables() {
    for name in usage::variables() {
        let Ok(value) = std::env::var(&name) else { continue };
        let tidy = env_file::unquoted(&value);
        // SAFETY: this is the process's only thread so far.
        unsafe {
            if tidy.is_empty() {
                std::env::remove_var(&name);
            } else if tidy != value {
                std::env::set_var(&name, tidy);
            }
        }
    }
}

/// Modules of libraries that write whole requests, and with them the keys in endpoints' URLs, at their lowest levels.
const NEVER_VERBOSE: [&str; 2] = ["tungstenite::handshake", "tungstenite::client"];

fn start_logs(logs: Logs) -> Result<()> {
    // All crates of this project, by their common prefix.
    let default =
        "warn,libp2p_kad=error,psyche_actors=info,psyche_chain=info,psyche_gpu=info,psyche_net=info,psyche_solana_client=info";
    let directives = std::env::var("RUST_LOG").unwrap_or_else(|_| default.to_owned());
    let mut filter = EnvFilter::try_new(directives).context("RUST_LOG can't be read")?;
    for module in NEVER_VERBOSE {
        let quiet: Directive = format!("{module}=info").parse().context("a module's level can't be set")?;
        filter = filter.add_directive(quiet);
    }
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(logs != Logs::Tui && std::io::stderr().is_terminal() && tui::is_coloured());
    match logs {
        // A live view takes stderr, and shows the lines itself.
        Logs::Plain | Logs::Tui => logger.init(),
        Logs::Json => logger.json().init(),
        Logs::None => {}
    }
    Ok(())
}

fn failed(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Failure>() {
        Some(failure) => {
            output::note(format_args!("error: {failure}"));
            failure.exit.into()
        }
        None => {
            output::note(format_args!("error: {}", sentence(error)));
            Exit::Failure.into()
        }
    }
}

/// The causes, without repeating one that the one before it quotes already.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}
