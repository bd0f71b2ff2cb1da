//! The last word about joining: the chain itself runs the join without effect and without anybody's key.

use psyche_messages::{Address, PeerKey};
use psyche_protocol::layout::NodeIdentity;

use crate::error::ChainError;
use crate::instructions::coordinator;
use crate::rpc::Rpc;
use crate::run::RunInfo;

/// What the chain says to a join that is only pretended.
#[derive(Debug)]
pub enum JoinSimulation {
    /// The join would succeed.
    Accepted {
        /// Compute units that it would take.
        units: u64,
    },
    /// The join would be refused.
    Refused(ChainError),
}

/// Has the chain pretend that `user` joins `run` by the grant at `authorization` with the peer key `peer`. Without a peer key
/// the wallet's own address stands in, which is a valid key of the same kind.
///
/// # Errors
/// [`ChainError`] where no endpoint answers. A refusal is an answer.
pub async fn simulate_join(
    rpc: &Rpc,
    run: &RunInfo,
    user: Address,
    authorization: Address,
    peer: Option<PeerKey>,
) -> Result<JoinSimulation, ChainError> {
    let client = NodeIdentity { signer: user.0, p2p_identity: peer.map_or(user.0, |peer| peer.0) };
    let instructions = [coordinator::join_run(rpc.programs(), run, authorization, client)?];
    Ok(match rpc.rehearse("the join", user, &instructions).await? {
        Ok(units) => JoinSimulation::Accepted { units },
        Err(refusal) => JoinSimulation::Refused(refusal),
    })
}
