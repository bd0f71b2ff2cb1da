//! `join-authorization-create` and `join-authorization-delegate`.

use anyhow::Result;
use psyche_chain::ops;
use psyche_messages::Address;
use psyche_protocol::ids;

use super::{chain_failed, connect, until_interrupted, wallet_of};
use crate::args::{AuthorizeArgs, DelegateArgs};
use crate::output;

pub(crate) async fn create(args: AuthorizeArgs) -> Result<()> {
    let (rpc, wallet) = (connect(&args.chain)?, wallet_of(&args.wallet)?);
    // The system program as grantee lets everybody in.
    let grantee = args.authorizer.unwrap_or(Address(ids::SYSTEM_PROGRAM));
    let grant = until_interrupted(async { ops::authorization_create(&rpc, &wallet, grantee).await.map_err(chain_failed) });
    output::line(format_args!("{}", grant.await?))?;
    if grantee.0 == ids::SYSTEM_PROGRAM {
        output::note(format_args!("everybody may join every run whose join authority is {}", wallet.address()));
    } else {
        output::note(format_args!("{grantee} may join every run whose join authority is {}", wallet.address()));
    }
    Ok(())
}

pub(crate) async fn delegate(args: DelegateArgs) -> Result<()> {
    let (rpc, wallet) = (connect(&args.chain)?, wallet_of(&args.wallet)?);
    let (authority, clear) = (args.join_authority, args.delegates_clear);
    let confirmed = until_interrupted(async {
        ops::authorization_delegate(&rpc, &wallet, authority, clear, &args.delegates_added).await.map_err(chain_failed)
    });
    let confirmed = confirmed.await?;
    if confirmed.is_empty() {
        output::note(format_args!("nothing to change: all of them are delegates already"));
    }
    for confirmed in confirmed {
        output::line(format_args!("{}", confirmed.signature))?;
    }
    Ok(())
}
