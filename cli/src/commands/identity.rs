//! `create-static-p2p-identity` and `show-static-p2p-identity`.

use anyhow::Result;
use psyche_actors::node::peer_seed;
use psyche_messages::Secret;
use psyche_net::identity::{IdentityError, create_identity, parse_identity, peer_name, read_identity};
use psyche_net::peer_key_of;
use serde_json::json;

use super::wallet_of;
use crate::args::{CreateIdentityArgs, ShowIdentityArgs};
use crate::exit::{Exit, Failure};
use crate::output;

pub(crate) fn create(args: &CreateIdentityArgs) -> Result<()> {
    let seed = create_identity(&args.save_path).map_err(|error| unusable(&error))?;
    output::note(format_args!("the key is in {}; whoever has it can speak as this peer", args.save_path.display()));
    print(&seed, args.json.json)
}

pub(crate) fn show(args: &ShowIdentityArgs) -> Result<()> {
    print(&seed_of(args)?, args.json.json)
}

fn seed_of(args: &ShowIdentityArgs) -> Result<Secret<[u8; 32]>> {
    if let Some(path) = &args.identity_secret_key_path {
        return Ok(read_identity(path).map_err(|error| unusable(&error))?);
    }
    if let Some(raw) = std::env::var("RAW_IDENTITY_SECRET_KEY").ok().map(Secret::new).filter(|raw| !raw.expose().is_empty()) {
        return Ok(parse_identity(raw.expose()).map_err(|error| unusable(&error))?);
    }
    let Some(run_id) = &args.run_id else {
        let message =
            "no identity: give --identity-secret-key-path, or --run-id for the one that follows from a wallet and a run";
        return Err(Failure::new(Exit::Configuration, message).into());
    };
    Ok(peer_seed(&wallet_of(&args.wallet)?, run_id))
}

fn unusable(error: &IdentityError) -> Failure {
    Failure::new(Exit::Configuration, format!("failed to {}", psyche_actors::chain_of(error)))
}

fn print(seed: &Secret<[u8; 32]>, as_json: bool) -> Result<()> {
    let key = peer_key_of(seed);
    let name = peer_name(&key).unwrap_or_default();
    output::either(as_json, &json!({"peer_id": name, "peer_key": key.to_string()}), format_args!("{name}"))
}
