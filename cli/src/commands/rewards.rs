//! `treasurer-claim-rewards` and `treasurer-top-up-rewards`.

use anyhow::Result;
use psyche_chain::ops::{self, ClaimKind, Claimed};
use psyche_messages::{Address, Points, RunId};
use serde::Serialize;

use super::owner::reward_token;
use super::{act, chain_failed, check_treasury};
use crate::args::{ClaimArgs, TopUpArgs};
use crate::exit::{Exit, Failure};
use crate::units::in_tokens;
use crate::{output, work};

/// A claim as scripts read it: amounts are points, which are base units of the token.
#[derive(Serialize)]
struct Answer<'a> {
    run_id: &'a RunId,
    wallet: Address,
    mint: Address,
    decimals: u8,
    #[serde(flatten)]
    claimed: &'a Claimed,
}

pub(crate) async fn claim(args: ClaimArgs) -> Result<()> {
    let (rpc, wallet) = act(&args.on).await?;
    let (run_id, limit) = (&args.on.run_id, args.max_claimed_points.map(Points));
    let claim = work::once("claiming", async {
        check_treasury(&rpc, run_id, &args.treasury).await?;
        let token = reward_token(&rpc, run_id).await?;
        // Without a treasury there is no token either: the operation says so.
        let claimed = ops::claim_rewards(&rpc, &wallet, run_id, limit).await.map_err(chain_failed)?;
        Ok((token, claimed))
    });
    let (token, claimed) = claim.await?;
    let (mint, decimals) = token.unwrap_or((Address([0; 32]), 0));
    if args.json.json {
        return output::json(&Answer { run_id, wallet: wallet.address(), mint, decimals, claimed: &claimed });
    }
    show(&claimed, mint, decimals)?;
    conclude(&claimed, run_id, args.treasury.treasurer_index)
}

fn show(claimed: &Claimed, mint: Address, decimals: u8) -> Result<()> {
    let before = &claimed.before;
    let rows = [
        ("points earned", before.earned),
        ("points slashed", before.slashed),
        ("claimed before", before.claimed),
        ("claimable", before.claimable),
        ("treasury holds", before.treasury),
        ("claimed now", claimed.amount),
    ];
    for (name, points) in rows {
        output::line(format_args!("{name:<16}{:>20} points  {}", points.0, in_tokens(points, decimals).worded()))?;
    }
    output::line(format_args!("{:<16}{mint}", "token"))?;
    if let Some(signature) = claimed.signature {
        output::line(format_args!("{:<16}{signature}", "transaction"))?;
    }
    Ok(())
}

/// The sentence that says how it came out and what to do.
fn conclude(claimed: &Claimed, run_id: &RunId, index: Option<u64>) -> Result<()> {
    let index = index.map(|index| format!(" --treasurer-index {index}")).unwrap_or_default();
    let lacks = claimed.treasury_lacks;
    let remedy = format!(
        "the run's owner, or anybody, adds tokens with treasurer-top-up-rewards --run-id {run_id}{index} --points {lacks}; then \
         claim again"
    );
    let sentence = match claimed.kind {
        ClaimKind::Paid if claimed.left > Points(0) => {
            format!("claimed {} points; {} are left to be claimed", claimed.amount, claimed.left)
        }
        ClaimKind::Paid => format!("claimed {} points: everything that was earned", claimed.amount),
        ClaimKind::PaidInPart => format!(
            "the treasury is underfunded: it paid the {} points that it held, and {} remain unpaid; {remedy}",
            claimed.amount, claimed.left
        ),
        ClaimKind::TreasuryEmpty => {
            format!("the treasury is empty: nothing was paid, and {} points remain unpaid; {remedy}", claimed.left)
        }
        ClaimKind::NothingToClaim => format!("nothing to claim: everything earned in {run_id} is claimed"),
    };
    output::line(format_args!("{sentence}"))?;
    Ok(())
}

pub(crate) async fn top_up(args: TopUpArgs) -> Result<()> {
    let (rpc, wallet) = act(&args.on).await?;
    let run_id = &args.on.run_id;
    let moved = work::once("moving the tokens", async {
        check_treasury(&rpc, run_id, &args.treasury).await?;
        let token = reward_token(&rpc, run_id).await?;
        let points = match (args.points, &args.collateral_amount, token) {
            (Some(points), ..) => Points(points),
            (None, Some(tokens), Some((_, decimals))) => match tokens.in_points(decimals) {
                Ok(Points(0)) => return Err(Failure::new(Exit::Configuration, "an amount of more than 0 is accepted").into()),
                Ok(points) => points,
                Err(problem) => return Err(Failure::new(Exit::Configuration, problem).into()),
            },
            // The operation refuses a run without treasury in its own words.
            _ => Points(0),
        };
        let confirmed = ops::top_up(&rpc, &wallet, run_id, points).await.map_err(chain_failed)?;
        Ok((confirmed, points, token))
    });
    let (confirmed, points, token) = moved.await?;
    output::line(format_args!("{}", confirmed.signature))?;
    if let Some((mint, decimals)) = token {
        let tokens = in_tokens(points, decimals).worded();
        output::note(format_args!("the treasury of {run_id} got {points} points ({tokens} of {mint})"));
    }
    Ok(())
}
