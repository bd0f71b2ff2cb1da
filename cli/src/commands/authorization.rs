//! `join-authorization-create`, `-read`, `-delegate` and `-delete`.

use anyhow::Result;
use psyche_chain::ops::{self, AuthorizationDeleted, Grant};
use psyche_messages::Address;
use psyche_protocol::ids;

use super::{address_of, chain_failed, connect, wallet_of};
use crate::args::{AuthorizeArgs, DelegateArgs, GrantArgs, ReadGrantArgs};
use crate::exit::{Exit, Failure};
use crate::units::Sol;
use crate::{output, work};

pub(crate) async fn create(args: AuthorizeArgs) -> Result<()> {
    let (rpc, wallet) = (connect(&args.chain).await?, wallet_of(&args.wallet)?);
    let grantee = args.to.grantee();
    let made = ops::authorization_create(&rpc, &wallet, grantee);
    let grant = work::resumable("authorizing", async { made.await.map_err(chain_failed) }).await?;
    output::line(format_args!("{grant}"))?;
    output::note(format_args!("{} may join every run whose join authority is {}", who(grantee), wallet.address()));
    Ok(())
}

/// A grantee in words.
fn who(grantee: Address) -> String {
    if grantee.0 == ids::SYSTEM_PROGRAM { "everybody".to_owned() } else { grantee.to_string() }
}

pub(crate) async fn read(args: ReadGrantArgs) -> Result<()> {
    let (rpc, grantee) = (connect(&args.chain).await?, args.to.grantee());
    let grantor = address_of(args.join_authority, &args.wallet)?;
    let read = ops::authorization_read(&rpc, grantor, grantee);
    let Some(grant) = work::resumable("asking the chain", async { read.await.map_err(chain_failed) }).await? else {
        let message = format!(
            "the join authority {grantor} has granted nothing to {}; it does so with join-authorization-create",
            who(grantee)
        );
        return Err(Failure::new(Exit::NotAuthorized, message).into());
    };
    if args.json.json { output::json(&grant) } else { show(&grant) }
}

fn show(grant: &Grant) -> Result<()> {
    output::line(format_args!("authorization  {}", grant.address))?;
    output::line(format_args!("granted by     {}", grant.grantor))?;
    output::line(format_args!("granted to     {}", who(grant.grantee)))?;
    output::line(format_args!("active         {}", if grant.active { "yes" } else { "no" }))?;
    output::line(format_args!("delegates      {}", grant.delegates.len()))?;
    for delegate in &grant.delegates {
        output::line(format_args!("               {delegate}"))?;
    }
    Ok(())
}

pub(crate) async fn delegate(args: DelegateArgs) -> Result<()> {
    if !args.delegates_clear && args.delegates_added.is_empty() {
        let message = "nothing to change: name wallets with --delegates-added, or remove all with --delegates-clear";
        return Err(Failure::new(Exit::Configuration, message).into());
    }
    let (rpc, wallet) = (connect(&args.chain).await?, wallet_of(&args.wallet)?);
    let (authority, clear) = (args.join_authority, args.delegates_clear);
    let named = ops::authorization_delegate(&rpc, &wallet, authority, clear, &args.delegates_added);
    let confirmed = work::resumable("naming delegates", async { named.await.map_err(chain_failed) }).await?;
    if confirmed.is_empty() {
        output::note(format_args!("nothing to change: all of them are delegates already"));
    }
    for confirmed in &confirmed {
        output::line(format_args!("{}", confirmed.signature))?;
    }
    if !confirmed.is_empty() {
        let delegates = match args.delegates_added.len() {
            0 => "nobody is".to_owned(),
            1 => "1 wallet is".to_owned(),
            many => format!("{many} wallets are"),
        };
        output::note(format_args!("{delegates} named; nodes of theirs set AUTHORIZER={}", wallet.address()));
    }
    Ok(())
}

pub(crate) async fn delete(args: GrantArgs) -> Result<()> {
    let (rpc, wallet, grantee) = (connect(&args.chain).await?, wallet_of(&args.wallet)?, args.to.grantee());
    let deleted = ops::authorization_delete(&rpc, &wallet, grantee, None);
    let who = who(grantee);
    match work::resumable("taking the authorization back", async { deleted.await.map_err(chain_failed) }).await? {
        AuthorizationDeleted::Absent => output::note(format_args!("{who} has no authorization: nothing to do")),
        AuthorizationDeleted::Closed { refunded, signature } => {
            if let Some(signature) = signature {
                output::line(format_args!("{signature}"))?;
            }
            output::note(format_args!("the authorization of {who} is closed; its rent of {} SOL came back", Sol(refunded)));
        }
        AuthorizationDeleted::Deactivated { closable_from, delegates, signature } => {
            if let Some(signature) = signature {
                output::line(format_args!("{signature}"))?;
            }
            output::note(format_args!(
                "the authorization of {who} lets nobody in any more; since it names delegates ({delegates}), the same command closes \
                 its account from Unix time {closable_from} on"
            ));
        }
    }
    Ok(())
}
