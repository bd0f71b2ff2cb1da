//! The model description in Borsh: one-byte tags, fields in declared order, texts in full.

use super::{
    Architecture, Checkpoint, DataLocation, DataType, DecayLr, GcsRepo, HttpLocation, HttpSource, HubRepo, Llm, LrSchedule,
    Model, Optimizer, Shuffle, TokenSize,
};
use crate::codec::{DecodeError, EncodeError, Reader, Writer};
use crate::layout::FixedString;
use crate::{F32Bits, F64Bits};

type Decoded<T> = Result<T, DecodeError>;
type Encoded = Result<(), EncodeError>;

fn read_text<const L: usize>(r: &mut Reader<'_>) -> Decoded<FixedString<L>> {
    Ok(FixedString::from_bytes(*r.array::<L>()?))
}

fn read_f32(r: &mut Reader<'_>) -> Decoded<F32Bits> {
    r.u32().map(F32Bits)
}

fn read_f64(r: &mut Reader<'_>) -> Decoded<F64Bits> {
    r.u64().map(F64Bits)
}

fn write_f32(w: &mut Writer<'_>, value: &F32Bits) -> Encoded {
    w.put(&value.0.to_le_bytes())
}

fn write_f64(w: &mut Writer<'_>, value: &F64Bits) -> Encoded {
    w.put(&value.0.to_le_bytes())
}

impl Model {
    /// Reads the description.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn read(r: &mut Reader<'_>) -> Decoded<Self> {
        match r.u8()? {
            0 => Ok(Self::Llm(Llm {
                max_seq_len: r.u32()?,
                cold_start_warmup_steps: r.u32()?,
                architecture: Architecture::from_number(u32::from(r.u8()?)).ok_or(DecodeError::Tag)?,
                checkpoint: Checkpoint::read(r)?,
                data_type: DataType::from_number(u32::from(r.u8()?)).ok_or(DecodeError::Tag)?,
                data_location: DataLocation::read(r)?,
                lr_schedule: LrSchedule::read(r)?,
                optimizer: Optimizer::read(r)?,
            })),
            _ => Err(DecodeError::Tag),
        }
    }

    /// Writes the description.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn write(&self, w: &mut Writer<'_>) -> Encoded {
        let Self::Llm(llm) = self;
        w.put(&[0])?;
        w.put(&llm.max_seq_len.to_le_bytes())?;
        w.put(&llm.cold_start_warmup_steps.to_le_bytes())?;
        w.put(&[llm.architecture.number()])?;
        llm.checkpoint.write(w)?;
        w.put(&[llm.data_type.number()])?;
        llm.data_location.write(w)?;
        llm.lr_schedule.write(w)?;
        llm.optimizer.write(w)
    }
}

impl HubRepo {
    fn read(r: &mut Reader<'_>) -> Decoded<Self> {
        Ok(Self { repo_id: read_text(r)?, revision: r.option(read_text)? })
    }

    fn write(&self, w: &mut Writer<'_>) -> Encoded {
        w.put(self.repo_id.as_bytes())?;
        w.option(self.revision.as_ref(), |w, revision| w.put(revision.as_bytes()))
    }
}

impl GcsRepo {
    fn read(r: &mut Reader<'_>) -> Decoded<Self> {
        Ok(Self { bucket: read_text(r)?, prefix: r.option(read_text)? })
    }

    fn write(&self, w: &mut Writer<'_>) -> Encoded {
        w.put(self.bucket.as_bytes())?;
        w.option(self.prefix.as_ref(), |w, prefix| w.put(prefix.as_bytes()))
    }
}

impl Checkpoint {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// [`DecodeError`].
    #[inline(never)]
    pub fn read(r: &mut Reader<'_>) -> Decoded<Self> {
        Ok(match r.u8()? {
            0 => Self::Ephemeral,
            1 => Self::Dummy(HubRepo::read(r)?),
            2 => Self::Hub(HubRepo::read(r)?),
            3 => Self::P2P(HubRepo::read(r)?),
            4 => Self::Gcs(GcsRepo::read(r)?),
            5 => Self::P2PGcs(GcsRepo::read(r)?),
            _ => return Err(DecodeError::Tag),
        })
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn write(&self, w: &mut Writer<'_>) -> Encoded {
        match self {
            Self::Ephemeral => w.put(&[0]),
            Self::Dummy(repo) => w.put(&[1]).and_then(|()| repo.write(w)),
            Self::Hub(repo) => w.put(&[2]).and_then(|()| repo.write(w)),
            Self::P2P(repo) => w.put(&[3]).and_then(|()| repo.write(w)),
            Self::Gcs(repo) => w.put(&[4]).and_then(|()| repo.write(w)),
            Self::P2PGcs(repo) => w.put(&[5]).and_then(|()| repo.write(w)),
        }
    }
}

impl DataLocation {
    #[inline(never)]
    fn read(r: &mut Reader<'_>) -> Decoded<Self> {
        Ok(match r.u8()? {
            0 => Self::Dummy,
            1 => Self::Server(read_text(r)?),
            2 => Self::Local(read_text(r)?),
            3 => Self::Http(HttpLocation::read(r)?),
            4 => Self::WeightedHttp(read_text(r)?),
            5 => Self::Preprocessed(read_text(r)?),
            _ => return Err(DecodeError::Tag),
        })
    }

    fn write(&self, w: &mut Writer<'_>) -> Encoded {
        match self {
            Self::Dummy => w.put(&[0]),
            Self::Server(address) => w.put(&[1]).and_then(|()| w.put(address.as_bytes())),
            Self::Local(path) => w.put(&[2]).and_then(|()| w.put(path.as_bytes())),
            Self::Http(http) => w.put(&[3]).and_then(|()| http.write(w)),
            Self::WeightedHttp(url) => w.put(&[4]).and_then(|()| w.put(url.as_bytes())),
            Self::Preprocessed(path) => w.put(&[5]).and_then(|()| w.put(path.as_bytes())),
        }
    }
}

impl HttpLocation {
    fn read(r: &mut Reader<'_>) -> Decoded<Self> {
        let source = match r.u8()? {
            0 => HttpSource::SingleUrl(read_text(r)?),
            1 => HttpSource::NumberedFiles {
                url_template: read_text(r)?,
                start_index: r.u32()?,
                n_left_pad_zeros: r.u8()?,
                num_files: r.u32()?,
            },
            2 => HttpSource::Gcp { bucket_name: read_text(r)?, filter_directory: read_text(r)? },
            _ => return Err(DecodeError::Tag),
        };
        let token_size = TokenSize::from_number(u32::from(r.u8()?)).ok_or(DecodeError::Tag)?;
        let shuffle = match r.u8()? {
            0 => Shuffle::DontShuffle,
            1 => Shuffle::Seeded(*r.array()?),
            _ => return Err(DecodeError::Tag),
        };
        Ok(Self { source, token_size, shuffle })
    }

    fn write(&self, w: &mut Writer<'_>) -> Encoded {
        match &self.source {
            HttpSource::SingleUrl(url) => {
                w.put(&[0])?;
                w.put(url.as_bytes())?;
            }
            HttpSource::NumberedFiles { url_template, start_index, n_left_pad_zeros, num_files } => {
                w.put(&[1])?;
                w.put(url_template.as_bytes())?;
                w.put(&start_index.to_le_bytes())?;
                w.put(&[*n_left_pad_zeros])?;
                w.put(&num_files.to_le_bytes())?;
            }
            HttpSource::Gcp { bucket_name, filter_directory } => {
                w.put(&[2])?;
                w.put(bucket_name.as_bytes())?;
                w.put(filter_directory.as_bytes())?;
            }
        }
        w.put(&[self.token_size.number()])?;
        match &self.shuffle {
            Shuffle::DontShuffle => w.put(&[0]),
            Shuffle::Seeded(seed) => w.put(&[1]).and_then(|()| w.put(seed)),
        }
    }
}

impl DecayLr {
    fn read(r: &mut Reader<'_>) -> Decoded<Self> {
        Ok(Self {
            base_lr: read_f64(r)?,
            warmup_init_lr: read_f64(r)?,
            final_lr: read_f64(r)?,
            warmup_steps: r.u32()?,
            total_steps: r.u32()?,
        })
    }

    fn write(&self, w: &mut Writer<'_>) -> Encoded {
        write_f64(w, &self.base_lr)?;
        write_f64(w, &self.warmup_init_lr)?;
        write_f64(w, &self.final_lr)?;
        w.put(&self.warmup_steps.to_le_bytes())?;
        w.put(&self.total_steps.to_le_bytes())
    }
}

impl LrSchedule {
    #[inline(never)]
    fn read(r: &mut Reader<'_>) -> Decoded<Self> {
        Ok(match r.u8()? {
            0 => Self::Constant { base_lr: read_f64(r)?, warmup_init_lr: read_f64(r)?, warmup_steps: r.u32()? },
            1 => Self::Linear(DecayLr::read(r)?),
            2 => Self::Cosine(DecayLr::read(r)?),
            3 => Self::WarmupStableDecay {
                base_lr: read_f64(r)?,
                warmup_init_lr: read_f64(r)?,
                cosine_decay_final_lr: read_f64(r)?,
                linear_decay_final_lr: read_f64(r)?,
                warmup_steps: r.u32()?,
                stable_steps: r.u32()?,
                cosine_decay_steps: r.u32()?,
                linear_decay_steps: r.u32()?,
            },
            _ => return Err(DecodeError::Tag),
        })
    }

    fn write(&self, w: &mut Writer<'_>) -> Encoded {
        match self {
            Self::Constant { base_lr, warmup_init_lr, warmup_steps } => {
                w.put(&[0])?;
                write_f64(w, base_lr)?;
                write_f64(w, warmup_init_lr)?;
                w.put(&warmup_steps.to_le_bytes())
            }
            Self::Linear(lr) => w.put(&[1]).and_then(|()| lr.write(w)),
            Self::Cosine(lr) => w.put(&[2]).and_then(|()| lr.write(w)),
            Self::WarmupStableDecay {
                base_lr,
                warmup_init_lr,
                cosine_decay_final_lr,
                linear_decay_final_lr,
                warmup_steps,
                stable_steps,
                cosine_decay_steps,
                linear_decay_steps,
            } => {
                w.put(&[3])?;
                for rate in [base_lr, warmup_init_lr, cosine_decay_final_lr, linear_decay_final_lr] {
                    write_f64(w, rate)?;
                }
                for steps in [warmup_steps, stable_steps, cosine_decay_steps, linear_decay_steps] {
                    w.put(&steps.to_le_bytes())?;
                }
                Ok(())
            }
        }
    }
}

impl Optimizer {
    #[inline(never)]
    fn read(r: &mut Reader<'_>) -> Decoded<Self> {
        Ok(match r.u8()? {
            0 => Self::Dummy,
            1 => Self::AdamW {
                betas: [read_f32(r)?, read_f32(r)?],
                weight_decay: read_f32(r)?,
                eps: read_f32(r)?,
                clip_grad_norm: r.option(read_f32)?,
            },
            2 => Self::Distro {
                clip_grad_norm: r.option(read_f32)?,
                weight_decay: r.option(read_f32)?,
                compression_decay: read_f32(r)?,
                compression_topk: r.u16()?,
                compression_chunk: r.u16()?,
                quantize_1bit: r.bool()?,
            },
            _ => return Err(DecodeError::Tag),
        })
    }

    fn write(&self, w: &mut Writer<'_>) -> Encoded {
        match self {
            Self::Dummy => w.put(&[0]),
            Self::AdamW { betas: [first, second], weight_decay, eps, clip_grad_norm } => {
                w.put(&[1])?;
                for value in [first, second, weight_decay, eps] {
                    write_f32(w, value)?;
                }
                w.option(clip_grad_norm.as_ref(), write_f32)
            }
            Self::Distro {
                clip_grad_norm,
                weight_decay,
                compression_decay,
                compression_topk,
                compression_chunk,
                quantize_1bit,
            } => {
                w.put(&[2])?;
                w.option(clip_grad_norm.as_ref(), write_f32)?;
                w.option(weight_decay.as_ref(), write_f32)?;
                write_f32(w, compression_decay)?;
                w.put(&compression_topk.to_le_bytes())?;
                w.put(&compression_chunk.to_le_bytes())?;
                w.bool(*quantize_1bit)
            }
        }
    }
}
