//! How an operator spells devices.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use tch::Device;

use super::placement::Machine;
use super::torch_cuda::load_torch_cuda;
use crate::GpuError;
use crate::mesh::{RANKS_MAX, Topology};

/// Largest number that a CUDA device may be asked for by.
const CUDA_INDEX_MAX: usize = 127;

/// The devices an operator asks for, as `--device` spells them: `auto`, `cpu`, `cpu:N`, `cuda`, `cuda:0,1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceSpec {
    /// CUDA devices where there are usable ones, otherwise the CPU.
    Auto,
    /// The CPU, as at most this many devices; without a number as many as the layout asks for.
    Cpu(Option<usize>),
    /// CUDA devices by index, in this order; without a list all of them.
    Cuda(Option<Vec<usize>>),
}

impl FromStr for DeviceSpec {
    type Err = GpuError;

    fn from_str(text: &str) -> Result<Self, GpuError> {
        let refuse = |problem: &str| GpuError::Device { device: text.to_owned(), problem: problem.to_owned() };
        let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        match (kind, rest) {
            ("auto", None) => Ok(Self::Auto),
            ("cpu", None) => Ok(Self::Cpu(None)),
            ("cpu", Some(count)) => match count.parse() {
                Ok(count) if (1..=RANKS_MAX).contains(&count) => Ok(Self::Cpu(Some(count))),
                _ => Err(refuse(&format!("the number of CPU devices must be in 1..={RANKS_MAX}"))),
            },
            ("cuda", None) => Ok(Self::Cuda(None)),
            ("cuda", Some(list)) => {
                let indices: Result<Vec<usize>, _> = list.split(',').map(str::parse).collect();
                let known = indices.ok().filter(|indices| indices.iter().all(|&index| index <= CUDA_INDEX_MAX));
                let indices = known.ok_or_else(|| refuse("the list must be device numbers, such as cuda:0,1"))?;
                let distinct: HashSet<usize> = indices.iter().copied().collect();
                if distinct.len() != indices.len() {
                    return Err(refuse("each device may be named once"));
                }
                Ok(Self::Cuda(Some(indices)))
            }
            _ => Err(refuse("there is no such kind of device")),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu(None) => f.write_str("cpu"),
            Self::Cpu(Some(count)) => write!(f, "cpu:{count}"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(indices)) => {
                let list: Vec<String> = indices.iter().map(ToString::to_string).collect();
                write!(f, "cuda:{}", list.join(","))
            }
        }
    }
}

impl DeviceSpec {
    /// Whether this can lead to a CUDA device.
    #[must_use]
    pub fn may_be_cuda(&self) -> bool {
        !matches!(self, Self::Cpu(_))
    }

    /// The devices of `ranks` data-parallel ranks on this machine; for tools that need no more than that.
    ///
    /// # Errors
    /// As [`DeviceSpec::place`].
    pub fn resolve(&self, ranks: usize) -> Result<Vec<Device>, GpuError> {
        let placement = self.place(Topology::new(ranks, 1)?, &Machine::look(), load_torch_cuda)?;
        Ok(placement.seats.iter().map(|seat| seat.device).collect())
    }
}
