//! Carries the engine's effects out; every outcome comes back as an event.

use std::future::Future;

use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use psyche_chain::ChainError;
use psyche_messages::{AppliedStep, BlobHash, Manifest, NodeEvent, PeerKey, Retry, RoundKey, RoundMessage, Step};
use psyche_net::FetchError;

use super::device::DeviceCommand;
use super::updates::fetch_log;
use super::{Links, RunActor};
use crate::CLIENT_VERSION;
use crate::engine::{ChainAction, Effect, Event, FetchFault, FetchOutcome, Fetching, Leaving, SendId, SendOutcome};
use crate::gossip::{Blame, FetchBlob, ForgetRounds, Publish, ReadBlob, SetMembers, StoreBlob};
use crate::node::{End, NodeError};
use crate::rewards::SettleRewards;
use crate::rpc::{RebuildWitnesses, SubmitAction};

impl RunActor {
    pub(super) fn carry_out(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        let links = self.links.clone();
        match effect {
            Effect::LoadModel { step, from } => self.on_devices(DeviceCommand::Load { step, from }, ctx),
            Effect::ResetMomentum => self.on_devices(DeviceCommand::ResetMomentum, ctx),
            Effect::Train { round, batch, schedule } => self.on_devices(DeviceCommand::Train { round, batch, schedule }, ctx),
            Effect::Apply { round, results, schedule } => {
                self.on_devices(DeviceCommand::Apply { round, results, schedule }, ctx);
            }
            Effect::TakeSnapshot { round } => self.on_devices(DeviceCommand::Snapshot { round }, ctx),
            Effect::CancelTraining { round } => links.devices.cancel(round),
            Effect::Publish(message) => self.spawn_event(publish(links, message), ctx),
            Effect::Fetch { blob, len, providers, what } => self.spawn_event(fetch(links, blob, len, providers, what), ctx),
            Effect::StoreManifest(manifest) => self.spawn_event(store_manifest(links, manifest), ctx),
            Effect::Send { id, action } => self.spawn_event(send(links, id, action), ctx),
            Effect::RebuildWitnesses { round, gap } => {
                let rebuild = async move {
                    let witnesses = links.rpc.ask(RebuildWitnesses(gap)).await.ok().flatten();
                    Some(Event::WitnessesRebuilt { round, witnesses })
                };
                self.spawn_event(rebuild, ctx);
            }
            Effect::Blame { peer, lie } => self.spawn_event(ask_gossip(links, Blame { peer, lie }), ctx),
            Effect::SetMembers(members) => self.spawn_event(ask_gossip(links, SetMembers(members)), ctx),
            Effect::ForgetRoundsBefore(round) => {
                let forget = async move {
                    links.updates.lock().await.forget_before(round.step);
                    links.manifests.lock().await.forget_before(round.step);
                    ask_gossip(links, ForgetRounds { before: round }).await
                };
                self.spawn_event(forget, ctx);
            }
            Effect::WriteCheckpoint { round } => self.spawn_event(write_checkpoint(links, round), ctx),
            Effect::LogUpdate(step) => self.spawn_event(log_update(links, step), ctx),
            Effect::FetchUpdates { author, head, from } => self.spawn_event(fetch_updates(links, author, head, from), ctx),
            Effect::Report(event) => links.events.report(event),
            Effect::Finished { reason } => {
                let finish = async move {
                    if let Err(error) = links.rewards.ask(SettleRewards).await {
                        tracing::warn!(actor = "run", %error, "the rewards are not settled");
                    }
                    // A closed channel means that the node stops already.
                    let _stopping = links.finished.send(End::Finished(reason)).await;
                    None
                };
                self.spawn_event(finish, ctx);
            }
            Effect::Leave(why) => {
                let error = match why {
                    Leaving::OtherVersion { wanted } => NodeError::OtherVersion { wanted, ours: CLIENT_VERSION },
                    Leaving::Replaced => NodeError::RunReplaced,
                };
                let leave = async move {
                    // As above.
                    let _stopping = links.finished.send(End::Failed(error)).await;
                    None
                };
                self.spawn_event(leave, ctx);
            }
        }
    }

    /// Runs `work` beside the actor and feeds what it comes back with to the engine.
    fn spawn_event(&mut self, work: impl Future<Output = Option<Event>> + 'static, ctx: &mut Context<Self>) {
        let outcome = work.into_actor(self).map(|event, actor, ctx| {
            if let Some(event) = event {
                actor.feed(event, ctx);
            }
        });
        ctx.spawn(outcome);
    }

    fn on_devices(&mut self, command: DeviceCommand, ctx: &mut Context<Self>) {
        if let Err(refused) = self.links.devices.push(command) {
            let failure = refused.failure("the device queue is full");
            self.spawn_event(async move { failure }, ctx);
        }
    }
}

async fn ask_gossip<C>(links: Links, command: C) -> Option<Event>
where
    C: psyche_messages::Command,
    crate::gossip::GradientGossip: actix::Handler<crate::envelope::Ask<C>>,
    actix::Context<crate::gossip::GradientGossip>:
        actix::dev::ToEnvelope<crate::gossip::GradientGossip, crate::envelope::Ask<C>>,
{
    if let Err(error) = links.gossip.ask(command).await {
        tracing::warn!(actor = "run", %error, "a command to the network was lost");
    }
    None
}

async fn publish(links: Links, message: RoundMessage) -> Option<Event> {
    if let RoundMessage::Manifest(announced) = &message
        && let Err(error) = links.manifests.lock().await.keep(announced).await
    {
        // It is announced all the same: it only matters if every node restarts at once.
        tracing::warn!(actor = "run", error = %crate::chain_of(&error), "a witness's announcement could not be kept");
    }
    match links.gossip.ask(Publish(message)).await {
        Ok(Ok(signed)) => Some(Event::Published(signed)),
        Ok(Err(error)) => {
            tracing::warn!(actor = "run", error = %crate::chain_of(&error), "could not publish a message");
            None
        }
        Err(error) => {
            tracing::warn!(actor = "run", %error, "could not publish a message");
            None
        }
    }
}

async fn fetch(links: Links, blob: BlobHash, len: u32, providers: Vec<PeerKey>, what: Fetching) -> Option<Event> {
    let round = match &what {
        Fetching::Payload(result) => result.round,
        Fetching::Manifest { round, .. } => *round,
    };
    let fetched = links.gossip.ask(FetchBlob { blob, len: u64::from(len), providers, round: Some(round) }).await;
    let bytes = match fetched {
        Ok(Ok(())) => links.gossip.ask(ReadBlob(blob)).await.ok().flatten().ok_or(FetchFault::Unavailable),
        // It is here, and is not as long as was said.
        Ok(Err(FetchError::Length { .. })) => Err(FetchFault::Malformed),
        Ok(Err(_)) | Err(_) => Err(FetchFault::Unavailable),
    };
    Some(match what {
        Fetching::Payload(_) => {
            let checked = match bytes {
                Err(fault) => Err(fault),
                Ok(bytes) => {
                    let plan = links.plan;
                    let checked = tokio::task::spawn_blocking(move || plan.layout.validate(&bytes).is_ok()).await;
                    // A check that was not carried out says nothing about the payload, nor about its author.
                    checked
                        .map_err(|_died| FetchFault::Unavailable)
                        .and_then(|fits| fits.then_some(()).ok_or(FetchFault::Malformed))
                }
            };
            Event::Fetched { blob, outcome: checked.map_or_else(FetchOutcome::Fault, |()| FetchOutcome::Valid) }
        }
        Fetching::Manifest { .. } => {
            let outcome = match bytes {
                Err(fault) => Err(fault),
                Ok(bytes) => match links.gossip.ask(crate::gossip::DecodeManifest(bytes)).await {
                    Ok(decoded) => decoded.ok_or(FetchFault::Malformed),
                    Err(_lost) => Err(FetchFault::Unavailable),
                },
            };
            Event::ManifestFetched { blob, len, outcome }
        }
    })
}

async fn write_checkpoint(links: Links, round: RoundKey) -> Option<Event> {
    let folder = links.checkpoints;
    let path = match tokio::task::spawn_blocking(move || folder.write(round)).await {
        Ok(Ok(path)) => Some(path.display().to_string()),
        Ok(Err(error)) => {
            tracing::error!(actor = "run", %round, error = %crate::chain_of(&error), "a checkpoint could not be written");
            None
        }
        Err(_died) => None,
    };
    Some(Event::CheckpointWritten { round, path })
}

/// The lock is fair, so that steps are written in the order in which they were applied.
async fn log_update(links: Links, step: AppliedStep) -> Option<Event> {
    match links.updates.lock().await.append(step).await {
        Ok(announced) => announced.map(Event::UpdatesLogged),
        Err(error) => {
            tracing::warn!(actor = "run", error = %crate::chain_of(&error), "a step is not in the update log on disk");
            None
        }
    }
}

async fn fetch_updates(links: Links, author: PeerKey, head: Option<(BlobHash, u32)>, from: Step) -> Option<Event> {
    let outcome = match head {
        None => Ok(links.updates.lock().await.since(from)),
        Some(head) => fetch_log(&links.net, author, head, from).await,
    };
    Some(Event::UpdatesFetched { author, outcome })
}

async fn store_manifest(links: Links, manifest: Manifest) -> Option<Event> {
    let round = manifest.round;
    let bytes = match links.gossip.ask(crate::gossip::EncodeManifest(manifest)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            tracing::error!(actor = "run", error = %crate::chain_of(&error), "could not encode a manifest");
            return None;
        }
        Err(error) => {
            tracing::warn!(actor = "run", %error, "could not encode a manifest");
            return None;
        }
    };
    let len = u32::try_from(bytes.len()).ok()?;
    match links.gossip.ask(StoreBlob { bytes, round: Some(round) }).await {
        Ok(Ok(blob)) => Some(Event::ManifestStored { round, blob, len }),
        Ok(Err(error)) => {
            tracing::error!(actor = "run", error = %crate::chain_of(&error), "could not store a manifest");
            None
        }
        Err(error) => {
            tracing::warn!(actor = "run", %error, "could not store a manifest");
            None
        }
    }
}

async fn send(links: Links, id: SendId, action: ChainAction) -> Option<Event> {
    let purpose = action.purpose();
    let outcome = match links.rpc.ask(SubmitAction(action)).await {
        Ok(Ok(confirmed)) => {
            if let Some(confirmed) = confirmed {
                let signature = confirmed.signature.to_string();
                links.events.report(NodeEvent::TransactionConfirmed { purpose: purpose.into(), signature });
            }
            SendOutcome::Confirmed
        }
        Ok(Err(error)) => {
            tracing::info!(actor = "run", purpose, error = %crate::chain_of(&error), "a transaction was not confirmed");
            // What is unknown for so long can't land any more; whatever a node sends is looked for before it is sent again.
            let unknown = matches!(error, ChainError::Unsettled { .. });
            if error.retry() == Retry::Never && !unknown { SendOutcome::Refused } else { SendOutcome::Failed }
        }
        Err(error) => {
            tracing::warn!(actor = "run", purpose, %error, "a transaction was lost");
            SendOutcome::Failed
        }
    };
    Some(Event::ChainSent { id, outcome })
}
