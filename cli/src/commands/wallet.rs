//! `wallet`: keys, addresses and balances.

use anyhow::Result;
use psyche_chain::Wallet;
use psyche_messages::Address;

use super::{chain_failed, connect, failed_to, wallet_of};
use crate::args::{WalletArgs, WalletCommand};
use crate::output;
use crate::units::Sol;

pub(crate) async fn run(command: WalletCommand) -> Result<()> {
    match command {
        WalletCommand::New { out } => {
            let wallet = Wallet::new();
            wallet.save(&out).map_err(failed_to)?;
            output::note(format_args!("the private key is in {}; whoever has it has the wallet", out.display()));
            output::line(format_args!("{}", wallet.address()))?;
        }
        WalletCommand::Address { wallet } => output::line(format_args!("{}", wallet_of(&wallet)?.address()))?,
        WalletCommand::Balance { chain, wallet, address } => {
            let address = address_of(address, &wallet)?;
            let balance = connect(&chain)?.balance(address).await.map_err(chain_failed)?;
            output::line(format_args!("{} SOL", Sol(balance)))?;
        }
        WalletCommand::Airdrop { chain, wallet, address, sol } => {
            let address = address_of(address, &wallet)?;
            let rpc = connect(&chain)?;
            let signature = rpc.airdrop(address, sol.0).await.map_err(chain_failed)?;
            output::note(format_args!("{sol} SOL for {address}"));
            output::line(format_args!("{signature}"))?;
        }
    }
    Ok(())
}

fn address_of(address: Option<Address>, wallet: &WalletArgs) -> Result<Address> {
    match address {
        Some(address) => Ok(address),
        None => Ok(wallet_of(wallet)?.address()),
    }
}
