//! What transactions of nodes are for.

use crate::engine::ChainAction;

/// Names the kinds, and lists all of them, so that none can be missing where they are counted.
macro_rules! kinds {
    ($($(#[$meta:meta])* $kind:ident = $name:literal,)*) => {
        /// What a transaction of a node's is for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum TxKind {
            $($(#[$meta])* $kind,)*
        }

        impl TxKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// In a word or two, for logs, events and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// Join the next epoch.
    Join = "join",
    /// Move the run on.
    Tick = "tick",
    /// Report that the model is ready.
    WarmupWitness = "warmup witness",
    /// Witness a round's results.
    Witness = "witness",
    /// Name the run's newest checkpoint.
    Checkpoint = "checkpoint",
    /// Report that a client is gone.
    HealthCheck = "health check",
    /// Claim rewards.
    Claim = "claim",
}

impl TxKind {
    /// What `action` is.
    #[must_use]
    pub const fn of(action: &ChainAction) -> Self {
        match action {
            ChainAction::Join => Self::Join,
            ChainAction::Tick => Self::Tick,
            ChainAction::WarmupWitness(_) => Self::WarmupWitness,
            ChainAction::Witness { .. } => Self::Witness,
            ChainAction::Checkpoint(_) => Self::Checkpoint,
            ChainAction::HealthCheck { .. } => Self::HealthCheck,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_by_name_and_a_checkpoint_is_one() {
        for (place, kind) in TxKind::ALL.iter().enumerate() {
            assert!(TxKind::ALL[..place].iter().all(|other| other.name() != kind.name()), "{kind:?}");
        }
        let repo = psyche_protocol::model::HubRepo { repo_id: psyche_protocol::layout::FixedString::default(), revision: None };
        let kind = TxKind::of(&ChainAction::Checkpoint(repo));
        assert!(TxKind::ALL.contains(&kind) && kind.name() == "checkpoint");
    }
}
