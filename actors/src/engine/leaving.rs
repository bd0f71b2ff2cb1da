//! When a node leaves a run that goes on without it: the run wants another client, or is not the run it was.

use psyche_messages::Step;
use psyche_messages::events::Phase;

use super::api::Effect;
use super::{Busy, Engine};
use crate::CLIENT_VERSION;

/// The version that test runs name: every client will do.
const ANY_VERSION: &str = "test";

/// Why a node leaves a run that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// The run wants another version of the client.
    OtherVersion {
        /// Which one.
        wanted: String,
    },
    /// The run was closed and created anew under its name: a fresh node may take part in it.
    Replaced,
}

/// Whether a run whose account names the client version `wanted` can be trained with this client. An empty one says
/// nothing.
#[must_use]
pub fn version_fits(wanted: &str) -> bool {
    wanted.is_empty() || wanted == CLIENT_VERSION || wanted == ANY_VERSION
}

impl Engine {
    /// The run was closed and created anew: everything that this engine knows is about another one.
    pub(super) fn on_replaced(&mut self) {
        self.leave(Leaving::Replaced);
    }

    /// Leaves for another client version at the next safe point: no epoch is in work in which this node could let others
    /// down, what was witnessed is applied, and the snapshot from which the next client goes on lies on the disk.
    pub(super) fn drive_leaving(&mut self) {
        let Some(view) = &self.view else { return };
        let wanted = view.account.state.client_version.as_str();
        if version_fits(wanted) || matches!(self.busy, Some(Busy::Applying { .. })) {
            return;
        }
        let member = view.index_of(&self.me()).is_some();
        let in_epoch = matches!(view.phase(), Phase::Warmup | Phase::RoundTrain | Phase::RoundWitness | Phase::Cooldown);
        if in_epoch && member {
            return;
        }
        let end = Step(view.step().0.saturating_sub(1));
        let owes_snapshot = self.model.step == Some(end)
            && self.model.served != Some(end)
            && self.model.snapshot_tries.is_some_and(|(step, _)| step == end);
        let lasted_ms = self.now.mono_ms.saturating_sub(view.since_ms);
        if owes_snapshot && lasted_ms < self.config.patience.finish_ms {
            return;
        }
        let wanted = wanted.to_owned();
        self.leave(Leaving::OtherVersion { wanted });
    }

    fn leave(&mut self, why: Leaving) {
        if !self.finished {
            self.finished = true;
            self.out.push(Effect::Leave(why));
        }
    }
}
