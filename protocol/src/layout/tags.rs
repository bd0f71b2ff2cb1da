//! The enums that the account and the arguments store as numbers.

/// Declares a numbered enum with checked conversion.
macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $number,)+
        }

        impl $name {
            /// Every value, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The value with this number, if there is one.
            #[must_use]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The value's number.
            #[must_use]
            pub const fn number(self) -> u8 {
                self as u8
            }
        }
    };
}

numbered! {
    /// What a run is doing.
    RunState {
        /// Created, not configured.
        Uninitialized = 0,
        /// Waiting until enough clients have joined.
        WaitingForMembers = 1,
        /// The epoch's clients load the model.
        Warmup = 2,
        /// Clients train their batches.
        RoundTrain = 3,
        /// Witnesses report what they received.
        RoundWitness = 4,
        /// The epoch ends; clients apply the rest and save.
        Cooldown = 5,
        /// All steps are done.
        Finished = 6,
        /// Stopped by the owner.
        Paused = 7,
    }
}

impl RunState {
    /// Whether nothing moves until the owner acts.
    #[must_use]
    pub const fn halted(self) -> bool {
        matches!(self, Self::Uninitialized | Self::Finished | Self::Paused)
    }

    /// Whether an epoch's training is under way, so that a pause has to wait for its end.
    #[must_use]
    pub const fn training(self) -> bool {
        matches!(self, Self::RoundTrain | Self::RoundWitness | Self::Cooldown)
    }
}

numbered! {
    /// How a client of an epoch stands.
    ClientState {
        /// Takes part.
        Healthy = 0,
        /// Removed by a health check.
        Dropped = 1,
        /// Left, or was sent home with everyone.
        Withdrawn = 2,
        /// Removed by a health check that a quorum of witnesses proved, and slashed at the epoch's end.
        Ejected = 3,
    }
}

numbered! {
    /// A client's part in a round.
    Committee {
        /// Would settle disagreement; never assigned today.
        TieBreaker = 0,
        /// Would repeat others' work; not assigned while `verification_percent` is 0.
        Verifier = 1,
        /// Trains a batch.
        Trainer = 2,
    }
}

numbered! {
    /// The model family that a run trains.
    Architecture {
        /// LLaMA in Hugging Face's form.
        HfLlama = 0,
        /// DeepSeek in Hugging Face's form.
        HfDeepseek = 1,
        /// Whatever the checkpoint's configuration says.
        HfAuto = 2,
        /// Torchtitan.
        Torchtitan = 3,
    }
}

numbered! {
    /// What the data is for.
    DataType {
        /// Plain token streams.
        Pretraining = 0,
        /// Samples with labels.
        Finetuning = 1,
    }
}

numbered! {
    /// How many bytes a token takes in a data file.
    TokenSize {
        /// u16 little-endian.
        TwoBytes = 0,
        /// u32 little-endian.
        FourBytes = 1,
    }
}
