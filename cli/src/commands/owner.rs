//! What a run's owner does: `create-run`, `set-paused`, `set-future-epoch-rates`, `close-run`; and `tick`.

use std::time::Duration;

use anyhow::Result;
use psyche_chain::ops::{self, NewRun, NewTreasury, TickOutcome};
use psyche_chain::{ChainError, Rpc};
use psyche_messages::{Address, Points, RunId};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use super::{act, chain_failed, check_treasury};
use crate::args::{CloseRunArgs, CreateRunArgs, RatesArgs, SetPausedArgs, TickArgs};
use crate::exit::{Exit, Failure};
use crate::signals::Stop;
use crate::units::{Sol, Tokens, in_tokens};
use crate::{output, work};

#[derive(Serialize)]
struct Created<'a> {
    run_id: &'a RunId,
    account: Address,
    instance: Address,
    main_authority: Address,
    join_authority: Address,
}

pub(crate) async fn create(args: CreateRunArgs) -> Result<()> {
    let (rpc, wallet) = act(&args.on).await?;
    let new = NewRun {
        run_id: args.on.run_id.clone(),
        client_version: args.client_version,
        join_authority: args.join_authority,
        treasury: args.treasurer_collateral_mint.map(|mint| NewTreasury { mint, index: args.treasurer_index }),
    };
    let run =
        work::once("creating the run", async { ops::create_run(&rpc, &wallet, &new).await.map_err(chain_failed) }).await?;
    let created = Created {
        run_id: &run.run_id,
        account: run.account,
        instance: run.instance,
        main_authority: run.main_authority,
        join_authority: run.join_authority,
    };
    output::either(args.json.json, &created, format_args!("{}", run.account))?;
    output::note(format_args!("run {} is created and paused; update-config and set-paused --resume come next", args.on.run_id));
    Ok(())
}

pub(crate) async fn set_paused(args: SetPausedArgs) -> Result<()> {
    let (rpc, wallet) = act(&args.on).await?;
    let (run_id, paused) = (&args.on.run_id, !args.resume);
    let confirmed = work::resumable(if paused { "pausing the run" } else { "resuming the run" }, async {
        check_treasury(&rpc, run_id, &args.treasury).await?;
        ops::set_paused(&rpc, &wallet, run_id, paused).await.map_err(chain_failed)
    });
    output::line(format_args!("{}", confirmed.await?.signature))?;
    say_state(&rpc, run_id).await;
    Ok(())
}

/// What a rate or an amount is in points, and in tokens where the decimals are known.
struct Amount {
    points: Points,
    tokens: Option<(Tokens, Address)>,
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} points", self.points)?;
        match &self.tokens {
            Some((tokens, mint)) => write!(f, " ({} of {mint})", tokens.worded()),
            None => f.write_str(" (the run has no treasury that pays them)"),
        }
    }
}

pub(crate) async fn set_rates(args: RatesArgs) -> Result<()> {
    let RatesArgs { earning_rate_total_shared, earning_rate_points, slashing_rate_per_client, slashing_rate_points, .. } =
        &args;
    let (earning, slashing) =
        ((earning_rate_total_shared, earning_rate_points), (slashing_rate_per_client, slashing_rate_points));
    if [earning, slashing].iter().all(|(tokens, points)| tokens.is_none() && points.is_none()) {
        let message = "nothing to change: give --earning-rate-total-shared TOKENS, --slashing-rate-per-client TOKENS, or either \
                       in points with --earning-rate-points and --slashing-rate-points";
        return Err(Failure::new(Exit::Configuration, message).into());
    }
    let (rpc, wallet) = act(&args.on).await?;
    let run_id = &args.on.run_id;
    let work = work::resumable("setting the rates", async {
        check_treasury(&rpc, run_id, &args.treasury).await?;
        let token = reward_token(&rpc, run_id).await?;
        let amount = |(tokens, points): (&Option<Tokens>, &Option<u64>)| amount(tokens.as_ref(), *points, token);
        let (earning, slashing) = (amount(earning)?, amount(slashing)?);
        let points = |amount: &Option<Amount>| amount.as_ref().map(|amount| amount.points.0);
        let set = ops::set_future_epoch_rates(&rpc, &wallet, run_id, points(&earning), points(&slashing));
        Ok((set.await.map_err(chain_failed)?, earning, slashing))
    });
    let (confirmed, earning, slashing) = work.await?;
    output::line(format_args!("{}", confirmed.signature))?;
    if let Some(earning) = earning {
        output::note(format_args!("from the next epoch on, an epoch pays {earning}, shared by those who finish it"));
    }
    if let Some(slashing) = slashing {
        output::note(format_args!("from the next epoch on, a client that is ejected loses {slashing}"));
    }
    Ok(())
}

/// The token that the run's treasury pays, with its decimals; `None` where the run has no treasury.
pub(super) async fn reward_token(rpc: &Rpc, run_id: &RunId) -> Result<Option<(Address, u8)>> {
    let run = rpc.run_info(run_id).await.map_err(chain_failed)?;
    let Some(treasury) = ops::treasury_of(rpc, &run).await.map_err(chain_failed)? else { return Ok(None) };
    let decimals = ops::token_decimals(rpc, treasury.mint).await.map_err(chain_failed)?;
    Ok(Some((treasury.mint, decimals)))
}

fn amount(tokens: Option<&Tokens>, points: Option<u64>, token: Option<(Address, u8)>) -> Result<Option<Amount>> {
    let points = match (tokens, points, token) {
        (None, None, _) => return Ok(None),
        (_, Some(points), _) => Points(points),
        (Some(tokens), None, Some((_, decimals))) => {
            tokens.in_points(decimals).map_err(|problem| Failure::new(Exit::Configuration, problem))?
        }
        (Some(_), None, None) => {
            let message = "the run has no treasury, so nothing says how many points a token is: give the rate in points";
            return Err(Failure::new(Exit::Refused, message).into());
        }
    };
    Ok(Some(Amount { points, tokens: token.map(|(mint, decimals)| (in_tokens(points, decimals), mint)) }))
}

pub(crate) async fn close(args: CloseRunArgs) -> Result<()> {
    let (rpc, wallet) = act(&args.on).await?;
    let closed = ops::close_run(&rpc, &wallet, &args.on.run_id, args.spill);
    let closed = work::resumable("closing the run", async { closed.await.map_err(chain_failed) }).await?;
    if args.json.json {
        output::json(&closed)?;
    } else if let Some(signature) = closed.signature {
        output::line(format_args!("{signature}"))?;
    }
    let refunded = Sol(closed.refunded);
    output::note(format_args!("run {} is closed; its rent of {refunded} SOL went to {}", args.on.run_id, closed.spill));
    Ok(())
}

pub(crate) async fn tick(args: TickArgs) -> Result<()> {
    let (rpc, wallet) = act(&args.on).await?;
    let find = async { rpc.run_info(&args.on.run_id).await.map_err(chain_failed) };
    let run = work::resumable("looking for the run", find).await?;
    let mut next = interval(Duration::from_millis(args.ms_interval));
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = Stop::listen()?;
    let mut left = args.count;
    while left != Some(0) {
        tokio::select! {
            _at = next.tick() => {}
            signal = stop.requested() => {
                output::note(format_args!("stopped by {signal}"));
                return Ok(());
            }
        }
        // A tick that is sent is waited for: it is over within a minute, and who leaves does not learn what came of it.
        match ops::tick(&rpc, &wallet, &run).await {
            Ok(outcome) => say_tick(&outcome)?,
            // A provider that does not answer now may do so at the next tick.
            Err(error) if left != Some(1) && !matches!(error.retry(), psyche_messages::Retry::Never) => {
                output::note(format_args!("failed to {}; going on", psyche_actors::chain_of(&error)));
            }
            Err(error) => return Err(tick_failed(error)),
        }
        left = left.map(|left| left - 1);
    }
    Ok(())
}

fn tick_failed(error: ChainError) -> anyhow::Error {
    chain_failed(error)
}

fn say_tick(outcome: &TickOutcome) -> Result<()> {
    match outcome {
        TickOutcome::Moved { from, to, step, signature } => match signature {
            Some(signature) => output::line(format_args!("{from} → {to}, step {step}, {signature}"))?,
            None => output::line(format_args!("{from} → {to}, step {step}, by somebody else's tick"))?,
        },
        TickOutcome::NothingToDo { phase, step } => output::note(format_args!("{phase}, step {step}: its time has not come")),
    }
    Ok(())
}

/// A courtesy after the change is confirmed: if it can't be read now, nothing is lost.
async fn say_state(rpc: &Rpc, run_id: &RunId) {
    if let Ok((_, view)) = rpc.fetch_run(run_id).await {
        let pending = view.account.state.coordinator.pending_pause == 1;
        let note = if pending { "; it pauses when the epoch ends" } else { "" };
        output::note(format_args!("run {run_id} is in {}{note}", view.phase()));
    }
}
