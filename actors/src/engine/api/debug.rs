//! Events and effects in logs: what they are about, never accounts, payloads or witnesses.

use core::fmt;

use super::{Effect, Event};

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CoordinatorAdvanced { slot, account } => write!(
                f,
                "CoordinatorAdvanced {{ slot: {slot}, nonce: {}, state: {:?}, epoch: {}, step: {} }}",
                account.nonce,
                account.run_state(),
                account.state.coordinator.progress.epoch,
                account.state.coordinator.progress.step,
            ),
            Self::Message(signed) => write!(f, "Message {{ from: {}, {:?} }}", signed.from, signed.message),
            Self::Published(signed) => write!(f, "Published {{ {:?} }}", signed.message),
            Self::Fetched { blob, outcome } => write!(f, "Fetched {{ blob: {}, {outcome:?} }}", blob.short()),
            Self::ManifestFetched { blob, outcome, .. } => match outcome {
                Ok(manifest) => write!(f, "ManifestFetched {{ blob: {}, entries: {} }}", blob.short(), manifest.entries.len()),
                Err(fault) => write!(f, "ManifestFetched {{ blob: {}, {fault:?} }}", blob.short()),
            },
            Self::ManifestStored { round, blob, len } => {
                write!(f, "ManifestStored {{ round: {round}, blob: {}, len: {len} }}", blob.short())
            }
            Self::Trained { round, payload, payload_len, loss, .. } => {
                write!(f, "Trained {{ round: {round}, payload: {}, len: {payload_len}, loss: {loss} }}", payload.short())
            }
            Self::TrainingSkipped { round, reason } => write!(f, "TrainingSkipped {{ round: {round}, reason: {reason} }}"),
            Self::Applied { round, digest } => write!(f, "Applied {{ round: {round}, digest: {} }}", digest.short()),
            Self::ApplyFailed { round, reason } => write!(f, "ApplyFailed {{ round: {round}, reason: {reason} }}"),
            Self::ModelLoaded { step, digest, source } => {
                write!(f, "ModelLoaded {{ step: {step}, digest: {}, source: {source:?} }}", digest.short())
            }
            Self::ModelLoadFailed { reason } => write!(f, "ModelLoadFailed {{ reason: {reason} }}"),
            Self::ModelRefuted { step } => write!(f, "ModelRefuted {{ step: {step} }}"),
            Self::UpdatesFetched { author, outcome } => match outcome {
                Ok(steps) => write!(f, "UpdatesFetched {{ author: {author}, steps: {} }}", steps.len()),
                Err(fault) => write!(f, "UpdatesFetched {{ author: {author}, {fault:?} }}"),
            },
            Self::CheckpointWritten { round, path } => write!(f, "CheckpointWritten {{ round: {round}, path: {path:?} }}"),
            Self::UpdatesLogged(announced) => {
                write!(f, "UpdatesLogged {{ round: {}, first: {} }}", announced.round, announced.first)
            }
            Self::DiskSnapshotChanged(disk) => write!(f, "DiskSnapshotChanged({disk:?})"),
            Self::SnapshotReady(snapshot) => write!(f, "SnapshotReady {{ {snapshot:?} }}"),
            Self::SnapshotFailed { round, reason } => write!(f, "SnapshotFailed {{ round: {round}, reason: {reason} }}"),
            Self::WitnessesRebuilt { round, witnesses } => {
                write!(f, "WitnessesRebuilt {{ round: {round}, witnesses: {:?} }}", witnesses.as_ref().map(Vec::len))
            }
            Self::ChainSent { id, outcome } => write!(f, "ChainSent {{ id: {}, {outcome:?} }}", id.0),
            Self::PeerConnected(peer) => write!(f, "PeerConnected({peer})"),
            Self::PeerDisconnected(peer) => write!(f, "PeerDisconnected({peer})"),
            Self::RunReplaced => f.write_str("RunReplaced"),
            Self::Timer => f.write_str("Timer"),
        }
    }
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoadModel { step, from } => write!(f, "LoadModel {{ step: {step}, from: {from:?} }}"),
            Self::ResetMomentum => f.write_str("ResetMomentum"),
            Self::Train { round, batch, .. } => write!(f, "Train {{ round: {round}, batch: {batch} }}"),
            Self::CancelTraining { round } => write!(f, "CancelTraining {{ round: {round} }}"),
            Self::Publish(message) => write!(f, "Publish({message:?})"),
            Self::Fetch { blob, len, providers, .. } => {
                write!(f, "Fetch {{ blob: {}, len: {len}, providers: {} }}", blob.short(), providers.len())
            }
            Self::StoreManifest(manifest) => {
                write!(f, "StoreManifest {{ round: {}, entries: {} }}", manifest.round, manifest.entries.len())
            }
            Self::Apply { round, results, .. } => write!(f, "Apply {{ round: {round}, results: {} }}", results.len()),
            Self::Blame { peer, lie } => write!(f, "Blame {{ peer: {peer}, {lie:?} }}"),
            Self::WriteCheckpoint { round } => write!(f, "WriteCheckpoint {{ round: {round} }}"),
            Self::LogUpdate(step) => write!(f, "LogUpdate {{ round: {}, results: {} }}", step.round, step.results.len()),
            Self::FetchUpdates { author, from, .. } => write!(f, "FetchUpdates {{ author: {author}, from: {from} }}"),
            Self::TakeSnapshot { round } => write!(f, "TakeSnapshot {{ round: {round} }}"),
            Self::RebuildWitnesses { round, gap } => {
                write!(f, "RebuildWitnesses {{ round: {round}, after: {:?}, until: {:?} }}", gap.after, gap.until)
            }
            Self::Send { id, action } => write!(f, "Send {{ id: {}, {} }}", id.0, action.purpose()),
            Self::SetMembers(members) => write!(f, "SetMembers {{ {} }}", members.len()),
            Self::ForgetRoundsBefore(round) => write!(f, "ForgetRoundsBefore({round})"),
            Self::Report(event) => write!(f, "Report({event:?})"),
            Self::Finished { reason } => write!(f, "Finished {{ reason: {reason} }}"),
            Self::Leave(why) => write!(f, "Leave({why:?})"),
        }
    }
}
