//! `wallet`: keys, addresses, balances, and the tokens that runs pay.

use anyhow::Result;
use psyche_chain::{Wallet, addresses, ops};
use psyche_messages::{Address, Points};
use serde_json::json;

use super::{address_of, chain_failed, connect, wallet_of};
use crate::args::{AirdropArgs, BalanceArgs, CreateTokenArgs, MintTokensArgs, NewWalletArgs, WalletCommand};
use crate::exit::{Exit, Failure};
use crate::units::{Sol, in_tokens};
use crate::{output, work};

pub(crate) async fn run(command: WalletCommand) -> Result<()> {
    match command {
        WalletCommand::New(args) => new(&args),
        WalletCommand::Address(args) => {
            let address = wallet_of(&args.wallet)?.address();
            output::either(args.json.json, &json!({"address": address}), format_args!("{address}"))
        }
        WalletCommand::Balance(args) => balance(args).await,
        WalletCommand::Airdrop(args) => airdrop(args).await,
        WalletCommand::CreateToken(args) => create_token(args).await,
        WalletCommand::MintTokens(args) => mint_tokens(args).await,
    }
}

fn new(args: &NewWalletArgs) -> Result<()> {
    let (wallet, out) = (Wallet::new(), args.out.display());
    wallet.save(&args.out).map_err(|error| {
        let problem = psyche_actors::chain_of(&error);
        Failure::new(
            Exit::Configuration,
            format!("failed to {problem}; name a file that does not exist, in a folder that does"),
        )
    })?;
    output::note(format_args!("the private key is in {out}; whoever has it has the wallet"));
    let address = wallet.address();
    output::either(args.json.json, &json!({"address": address, "file": args.out}), format_args!("{address}"))
}

async fn balance(args: BalanceArgs) -> Result<()> {
    let address = address_of(args.address, &args.wallet)?;
    let rpc = connect(&args.chain).await?;
    let Some(mint) = args.mint else {
        let asked = async { rpc.balance(address).await.map_err(chain_failed) };
        let balance = work::resumable("asking for the balance", asked).await?;
        let fields = json!({"address": address, "lamports": balance.0, "sol": Sol(balance).to_string()});
        return output::either(args.json.json, &fields, format_args!("{} SOL", Sol(balance)));
    };
    let asked = work::resumable("asking for the balance", async {
        let decimals = ops::token_decimals(&rpc, mint).await.map_err(chain_failed)?;
        let held = rpc.token_balance(addresses::associated_token(address, mint)).await.map_err(chain_failed)?;
        Ok((held.unwrap_or_default(), decimals))
    });
    let (held, decimals) = asked.await?;
    let tokens = in_tokens(held, decimals);
    let fields =
        json!({"address": address, "mint": mint, "base_units": held.0, "tokens": tokens.to_string(), "decimals": decimals});
    output::either(args.json.json, &fields, format_args!("{} ({} base units) of {mint}", tokens.worded(), held.0))
}

async fn airdrop(args: AirdropArgs) -> Result<()> {
    let address = address_of(args.address, &args.wallet)?;
    let rpc = connect(&args.chain).await?;
    let asked = work::once("asking the faucet", async {
        rpc.airdrop(address, args.sol.0).await.map_err(|error| match error {
            psyche_chain::ChainError::Refused { .. } => {
                Failure::new(Exit::Refused, "the faucet gives nothing: only test networks have one, and it has its limits")
                    .into()
            }
            error => chain_failed(error),
        })
    });
    let signature = asked.await?;
    output::note(format_args!("{} SOL for {address}", args.sol));
    output::line(format_args!("{signature}"))?;
    Ok(())
}

async fn create_token(args: CreateTokenArgs) -> Result<()> {
    let supply = args.supply.in_points(args.decimals).map_err(|problem| Failure::new(Exit::Configuration, problem))?;
    let (rpc, wallet) = (connect(&args.chain).await?, wallet_of(&args.wallet)?);
    let owner = wallet.address();
    let mint = work::once("making the token", async {
        let mint = ops::create_mint(&rpc, &wallet, args.decimals).await.map_err(chain_failed)?;
        // Said at once: whatever becomes of the supply, the token is there.
        output::note(format_args!("the token {mint} is made; {owner} controls its supply"));
        Ok(mint)
    });
    let mint = mint.await?;
    if supply > Points(0) {
        let made = async { ops::mint_to(&rpc, &wallet, mint, owner, supply).await.map_err(chain_failed) };
        work::once("making its supply", made).await?;
        output::note(format_args!("{owner} holds {} ({} base units)", args.supply.worded(), supply.0));
    }
    let fields = json!({"mint": mint, "decimals": args.decimals, "base_units": supply.0, "owner": owner});
    output::either(args.json.json, &fields, format_args!("{mint}"))
}

async fn mint_tokens(args: MintTokensArgs) -> Result<()> {
    let (rpc, wallet) = (connect(&args.chain).await?, wallet_of(&args.wallet)?);
    let to: Address = args.to.unwrap_or_else(|| wallet.address());
    let made = work::once("making tokens", async {
        let decimals = ops::token_decimals(&rpc, args.mint).await.map_err(chain_failed)?;
        let units = args.tokens.in_points(decimals).map_err(|problem| Failure::new(Exit::Configuration, problem))?;
        let confirmed = ops::mint_to(&rpc, &wallet, args.mint, to, units).await.map_err(chain_failed)?;
        Ok((confirmed, units))
    });
    let (confirmed, units) = made.await?;
    output::line(format_args!("{}", confirmed.signature))?;
    output::note(format_args!("{to} got {} ({} base units) of {}", args.tokens.worded(), units.0, args.mint));
    Ok(())
}
