//! `treasurer-claim-rewards` and `treasurer-top-up-rewards`.

use anyhow::Result;
use psyche_chain::ops;
use psyche_messages::Points;

use super::{act, chain_failed, until_interrupted};
use crate::args::{ClaimArgs, TopUpArgs};
use crate::output;

pub(crate) async fn claim(args: ClaimArgs) -> Result<()> {
    let (rpc, wallet) = act(&args.on)?;
    let limit = args.max_claimed_points.map(Points);
    let claimed =
        until_interrupted(async { ops::claim_rewards(&rpc, &wallet, &args.on.run_id, limit).await.map_err(chain_failed) });
    let claimed = claimed.await?;
    match claimed.signature {
        Some(signature) => {
            output::note(format_args!("claimed {} points in {signature}", claimed.amount));
            output::line(format_args!("{}", claimed.amount))?;
        }
        None if claimed.left > Points(0) => output::note(format_args!("the treasury is empty: nothing could be claimed now")),
        None => output::note(format_args!("nothing to claim: everything earned in {} is claimed", args.on.run_id)),
    }
    output::note(format_args!("claimed in all {}, left {}", claimed.claimed_in_all, claimed.left));
    Ok(())
}

pub(crate) async fn top_up(args: TopUpArgs) -> Result<()> {
    let (rpc, wallet) = act(&args.on)?;
    let confirmed = until_interrupted(async {
        ops::top_up(&rpc, &wallet, &args.on.run_id, Points(args.amount)).await.map_err(chain_failed)
    });
    output::line(format_args!("{}", confirmed.await?.signature))?;
    Ok(())
}
