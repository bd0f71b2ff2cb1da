//! The model description as it lies in the account.

use core::mem::offset_of;

use bytemuck::{Pod, Zeroable};

use super::{
    Architecture, Checkpoint, DataLocation, DataType, DecayLr, GcsRepo, HttpLocation, HttpSource, HubRepo, Llm, LrSchedule,
    Model, Optimizer, Shuffle, TokenSize,
};
use crate::layout::{FixedString, LayoutError, LayoutFault};
use crate::{F32Bits, F64Bits};

/// Tags of [`CheckpointRaw`].
mod checkpoint_tag {
    pub(super) const EPHEMERAL: u32 = 0;
    pub(super) const DUMMY: u32 = 1;
    pub(super) const HUB: u32 = 2;
    pub(super) const P2P: u32 = 3;
    pub(super) const GCS: u32 = 4;
    pub(super) const P2P_GCS: u32 = 5;
}

/// The whole description: 552 bytes at offset 416 of the account.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ModelRaw {
    /// 0: a language model.
    pub tag: u32,
    pub(crate) _pad: [u8; 4],
    /// Tokens per sample.
    pub max_seq_len: u32,
    /// Steps over which the learning rate warms up after a pause.
    pub cold_start_warmup_steps: u32,
    /// [`Architecture`] by number.
    pub architecture: u32,
    /// Where its weights are.
    pub checkpoint: CheckpointRaw,
    /// [`DataType`] by number.
    pub data_type: u32,
    /// Where the data is.
    pub data_location: DataLocationRaw,
    /// Learning rate by step.
    pub lr_schedule: LrScheduleRaw,
    /// Optimiser.
    pub optimizer: OptimizerRaw,
}

const _: () = assert!(size_of::<ModelRaw>() == 552);

/// [`Checkpoint`] as a tag and a payload: option tag, optional text, then text.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct CheckpointRaw {
    /// Variant number.
    pub tag: u32,
    /// `revision` or `prefix` (tag u8, 64 bytes), then `repo_id` or `bucket` (64 bytes).
    pub payload: [u8; 129],
    pub(crate) _pad: [u8; 3],
}

/// [`DataLocation`] as a tag and a payload.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct DataLocationRaw {
    /// Variant number.
    pub tag: u32,
    /// The variant's fields.
    pub payload: [u8; 300],
}

/// [`LrSchedule`] as a tag and a payload: f64s, then u32s.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct LrScheduleRaw {
    /// Variant number.
    pub tag: u32,
    pub(crate) _pad: [u8; 4],
    /// The variant's fields.
    pub payload: [u64; 6],
}

/// [`Optimizer`] as a tag and a payload.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct OptimizerRaw {
    /// Variant number.
    pub tag: u32,
    /// The variant's fields.
    pub payload: [u32; 7],
}

const fn bad_tag(offset: usize) -> LayoutError {
    LayoutError { offset, what: LayoutFault::Tag }
}

impl ModelRaw {
    /// The typed description.
    ///
    /// # Errors
    /// [`LayoutError`] with an offset from the start of the description.
    pub fn get(&self) -> Result<Model, LayoutError> {
        if self.tag != 0 {
            return Err(bad_tag(0));
        }
        Ok(Model::Llm(Llm {
            max_seq_len: self.max_seq_len,
            cold_start_warmup_steps: self.cold_start_warmup_steps,
            architecture: Architecture::from_number(self.architecture).ok_or(bad_tag(offset_of!(Self, architecture)))?,
            checkpoint: self.checkpoint.get().ok_or(bad_tag(offset_of!(Self, checkpoint)))?,
            data_type: DataType::from_number(self.data_type).ok_or(bad_tag(offset_of!(Self, data_type)))?,
            data_location: self.data_location.get().ok_or(bad_tag(offset_of!(Self, data_location)))?,
            lr_schedule: self.lr_schedule.get().ok_or(bad_tag(offset_of!(Self, lr_schedule)))?,
            optimizer: self.optimizer.get().ok_or(bad_tag(offset_of!(Self, optimizer)))?,
        }))
    }

    /// Whether [`ModelRaw::get`] would succeed.
    ///
    /// # Errors
    /// As [`ModelRaw::get`].
    pub fn validate(&self) -> Result<(), LayoutError> {
        self.get().map(drop)
    }

    /// Replaces the description; bytes that it does not use become zero.
    pub fn set(&mut self, model: &Model) {
        let Model::Llm(llm) = model;
        self.tag = 0;
        self._pad = [0; 4];
        self.max_seq_len = llm.max_seq_len;
        self.cold_start_warmup_steps = llm.cold_start_warmup_steps;
        self.architecture = u32::from(llm.architecture.number());
        self.checkpoint.set(&llm.checkpoint);
        self.data_type = u32::from(llm.data_type.number());
        self.data_location.set(&llm.data_location);
        self.lr_schedule.set(&llm.lr_schedule);
        self.optimizer.set(&llm.optimizer);
    }
}

/// `N` bytes of `bytes` from `at`.
fn slice<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

fn text<const L: usize>(bytes: &[u8], at: usize) -> Option<FixedString<L>> {
    slice(bytes, at).map(|text| FixedString::from_bytes(*text))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    slice(bytes, at).map(|number| u32::from_le_bytes(*number))
}

/// Writes where there is room; every offset below is a constant inside its payload.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..value.len())) {
        place.copy_from_slice(value);
    }
}

impl CheckpointRaw {
    /// The typed checkpoint; `None` where a tag has no meaning.
    #[must_use]
    pub fn get(&self) -> Option<Checkpoint> {
        use checkpoint_tag::{DUMMY, EPHEMERAL, GCS, HUB, P2P, P2P_GCS};
        if self.tag == EPHEMERAL {
            return Some(Checkpoint::Ephemeral);
        }
        let optional = match self.payload[0] {
            0 => None,
            1 => Some(text(&self.payload, 1)?),
            _ => return None,
        };
        let name = text(&self.payload, 65)?;
        let hub = HubRepo { repo_id: name, revision: optional };
        let gcs = GcsRepo { bucket: name, prefix: optional };
        match self.tag {
            DUMMY => Some(Checkpoint::Dummy(hub)),
            HUB => Some(Checkpoint::Hub(hub)),
            P2P => Some(Checkpoint::P2P(hub)),
            GCS => Some(Checkpoint::Gcs(gcs)),
            P2P_GCS => Some(Checkpoint::P2PGcs(gcs)),
            _ => None,
        }
    }

    /// Replaces the checkpoint.
    pub fn set(&mut self, checkpoint: &Checkpoint) {
        use checkpoint_tag::{DUMMY, EPHEMERAL, GCS, HUB, P2P, P2P_GCS};
        *self = Self::zeroed();
        let (tag, name, optional) = match checkpoint {
            Checkpoint::Ephemeral => {
                self.tag = EPHEMERAL;
                return;
            }
            Checkpoint::Dummy(repo) => (DUMMY, &repo.repo_id, &repo.revision),
            Checkpoint::Hub(repo) => (HUB, &repo.repo_id, &repo.revision),
            Checkpoint::P2P(repo) => (P2P, &repo.repo_id, &repo.revision),
            Checkpoint::Gcs(repo) => (GCS, &repo.bucket, &repo.prefix),
            Checkpoint::P2PGcs(repo) => (P2P_GCS, &repo.bucket, &repo.prefix),
        };
        self.tag = tag;
        if let Some(optional) = optional {
            self.payload[0] = 1;
            put(&mut self.payload, 1, optional.as_bytes());
        }
        put(&mut self.payload, 65, name.as_bytes());
    }

    /// After an epoch the members hold the weights: a hub or dummy checkpoint becomes P2P, a bucket P2PGcs.
    pub const fn hand_to_peers(&mut self) {
        use checkpoint_tag::{DUMMY, GCS, HUB, P2P, P2P_GCS};
        self.tag = match self.tag {
            HUB | DUMMY => P2P,
            GCS => P2P_GCS,
            other => other,
        };
    }

    /// No member holds the weights any more: back to what is stored outside.
    pub const fn take_from_peers(&mut self) {
        use checkpoint_tag::{GCS, HUB, P2P, P2P_GCS};
        self.tag = match self.tag {
            P2P => HUB,
            P2P_GCS => GCS,
            other => other,
        };
    }
}

impl DataLocationRaw {
    /// The typed location; `None` where a tag has no meaning.
    #[must_use]
    pub fn get(&self) -> Option<DataLocation> {
        Some(match self.tag {
            0 => DataLocation::Dummy,
            1 => DataLocation::Server(text(&self.payload, 0)?),
            2 => DataLocation::Local(text(&self.payload, 0)?),
            3 => DataLocation::Http(self.http()?),
            4 => DataLocation::WeightedHttp(text(&self.payload, 0)?),
            5 => DataLocation::Preprocessed(text(&self.payload, 0)?),
            _ => return None,
        })
    }

    fn http(&self) -> Option<HttpLocation> {
        let bytes = &self.payload;
        let source = match number(bytes, 0)? {
            0 => HttpSource::SingleUrl(text(bytes, 4)?),
            1 => HttpSource::NumberedFiles {
                url_template: text(bytes, 4)?,
                start_index: number(bytes, 68)?,
                n_left_pad_zeros: *bytes.get(72)?,
                num_files: number(bytes, 76)?,
            },
            2 => HttpSource::Gcp { bucket_name: text(bytes, 4)?, filter_directory: text(bytes, 68)? },
            _ => return None,
        };
        let token_size = TokenSize::from_number(number(bytes, 260)?)?;
        let shuffle = match number(bytes, 264)? {
            0 => Shuffle::DontShuffle,
            1 => Shuffle::Seeded(*slice(bytes, 268)?),
            _ => return None,
        };
        Some(HttpLocation { source, token_size, shuffle })
    }

    /// Replaces the location.
    pub fn set(&mut self, location: &DataLocation) {
        *self = Self::zeroed();
        self.tag = match location {
            DataLocation::Dummy => 0,
            DataLocation::Server(address) => {
                put(&mut self.payload, 0, address.as_bytes());
                1
            }
            DataLocation::Local(path) => {
                put(&mut self.payload, 0, path.as_bytes());
                2
            }
            DataLocation::Http(http) => {
                self.set_http(http);
                3
            }
            DataLocation::WeightedHttp(url) => {
                put(&mut self.payload, 0, url.as_bytes());
                4
            }
            DataLocation::Preprocessed(path) => {
                put(&mut self.payload, 0, path.as_bytes());
                5
            }
        };
    }

    fn set_http(&mut self, http: &HttpLocation) {
        let bytes = &mut self.payload;
        match &http.source {
            HttpSource::SingleUrl(url) => put(bytes, 4, url.as_bytes()),
            HttpSource::NumberedFiles { url_template, start_index, n_left_pad_zeros, num_files } => {
                put(bytes, 0, &1u32.to_le_bytes());
                put(bytes, 4, url_template.as_bytes());
                put(bytes, 68, &start_index.to_le_bytes());
                put(bytes, 72, &[*n_left_pad_zeros]);
                put(bytes, 76, &num_files.to_le_bytes());
            }
            HttpSource::Gcp { bucket_name, filter_directory } => {
                put(bytes, 0, &2u32.to_le_bytes());
                put(bytes, 4, bucket_name.as_bytes());
                put(bytes, 68, filter_directory.as_bytes());
            }
        }
        put(bytes, 260, &u32::from(http.token_size.number()).to_le_bytes());
        if let Shuffle::Seeded(seed) = &http.shuffle {
            put(bytes, 264, &1u32.to_le_bytes());
            put(bytes, 268, seed);
        }
    }
}

/// Two u32 as they share one u64 of the payload.
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | ((high as u64) << 32)
}

const fn low(word: u64) -> u32 {
    word as u32
}

const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

impl LrScheduleRaw {
    /// The typed schedule; `None` where the tag has no meaning.
    #[must_use]
    pub const fn get(&self) -> Option<LrSchedule> {
        let [a, b, c, d, e, f] = self.payload;
        let decay = DecayLr {
            base_lr: F64Bits(a),
            warmup_init_lr: F64Bits(b),
            final_lr: F64Bits(c),
            warmup_steps: low(d),
            total_steps: high(d),
        };
        Some(match self.tag {
            0 => LrSchedule::Constant { base_lr: F64Bits(a), warmup_init_lr: F64Bits(b), warmup_steps: low(c) },
            1 => LrSchedule::Linear(decay),
            2 => LrSchedule::Cosine(decay),
            3 => LrSchedule::WarmupStableDecay {
                base_lr: F64Bits(a),
                warmup_init_lr: F64Bits(b),
                cosine_decay_final_lr: F64Bits(c),
                linear_decay_final_lr: F64Bits(d),
                warmup_steps: low(e),
                stable_steps: high(e),
                cosine_decay_steps: low(f),
                linear_decay_steps: high(f),
            },
            _ => return None,
        })
    }

    /// Replaces the schedule.
    pub const fn set(&mut self, schedule: &LrSchedule) {
        self._pad = [0; 4];
        (self.tag, self.payload) = match schedule {
            LrSchedule::Constant { base_lr, warmup_init_lr, warmup_steps } => {
                (0, [base_lr.0, warmup_init_lr.0, pair(*warmup_steps, 0), 0, 0, 0])
            }
            LrSchedule::Linear(lr) => (1, Self::decay_payload(lr)),
            LrSchedule::Cosine(lr) => (2, Self::decay_payload(lr)),
            LrSchedule::WarmupStableDecay {
                base_lr,
                warmup_init_lr,
                cosine_decay_final_lr,
                linear_decay_final_lr,
                warmup_steps,
                stable_steps,
                cosine_decay_steps,
                linear_decay_steps,
            } => {
                let first = pair(*warmup_steps, *stable_steps);
                let second = pair(*cosine_decay_steps, *linear_decay_steps);
                let rates = [base_lr.0, warmup_init_lr.0, cosine_decay_final_lr.0, linear_decay_final_lr.0];
                (3, [rates[0], rates[1], rates[2], rates[3], first, second])
            }
        };
    }

    const fn decay_payload(lr: &DecayLr) -> [u64; 6] {
        [lr.base_lr.0, lr.warmup_init_lr.0, lr.final_lr.0, pair(lr.warmup_steps, lr.total_steps), 0, 0]
    }
}

impl OptimizerRaw {
    /// The typed optimiser; `None` where a tag has no meaning.
    #[must_use]
    pub fn get(&self) -> Option<Optimizer> {
        let [a, b, c, d, e, f, g] = self.payload;
        Some(match self.tag {
            0 => Optimizer::Dummy,
            1 => Optimizer::AdamW {
                betas: [F32Bits(a), F32Bits(b)],
                weight_decay: F32Bits(c),
                eps: F32Bits(d),
                clip_grad_norm: optional(e, f)?,
            },
            2 => Optimizer::Distro {
                clip_grad_norm: optional(a, b)?,
                weight_decay: optional(c, d)?,
                compression_decay: F32Bits(e),
                compression_topk: f as u16,
                compression_chunk: (f >> 16) as u16,
                // The three bytes after the flag are padding, which may hold garbage.
                quantize_1bit: match g & 0xff {
                    0 => false,
                    1 => true,
                    _ => return None,
                },
            },
            _ => return None,
        })
    }

    /// Replaces the optimiser.
    pub fn set(&mut self, optimizer: &Optimizer) {
        (self.tag, self.payload) = match optimizer {
            Optimizer::Dummy => (0, [0; 7]),
            Optimizer::AdamW { betas: [first, second], weight_decay, eps, clip_grad_norm } => {
                let (tag, clip) = option_words(*clip_grad_norm);
                (1, [first.0, second.0, weight_decay.0, eps.0, tag, clip, 0])
            }
            Optimizer::Distro {
                clip_grad_norm,
                weight_decay,
                compression_decay,
                compression_topk,
                compression_chunk,
                quantize_1bit,
            } => {
                let (clip_tag, clip) = option_words(*clip_grad_norm);
                let (decay_tag, decay) = option_words(*weight_decay);
                let sizes = u32::from(*compression_topk) | (u32::from(*compression_chunk) << 16);
                (2, [clip_tag, clip, decay_tag, decay, compression_decay.0, sizes, u32::from(*quantize_1bit)])
            }
        };
    }
}

/// An `Option<f32>` from its tag and value; the outer `None` is a tag without meaning.
#[expect(clippy::option_option, reason = "one level is the value, the other whether it decodes")]
const fn optional(tag: u32, value: u32) -> Option<Option<F32Bits>> {
    match tag {
        0 => Some(None),
        1 => Some(Some(F32Bits(value))),
        _ => None,
    }
}

const fn option_words(value: Option<F32Bits>) -> (u32, u32) {
    match value {
        Some(value) => (1, value.0),
        None => (0, 0),
    }
}
