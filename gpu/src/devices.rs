//! Which devices a node trains on, and the process-wide settings that come with them.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use tch::Device;

use crate::GpuError;
use crate::mesh::RANKS_MAX;

mod cuda;
#[cfg(test)]
mod tests;

pub use cuda::{CudaDevice, CudaReport, cuda_report};

/// The devices an operator asks for, as `--device` spells them: `auto`, `cpu`, `cpu:N`, `cuda`, `cuda:0,1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceSpec {
    /// The best that this build supports: the CPU.
    Auto,
    /// The CPU, as at most this many devices; without a number as many as the layout asks for.
    Cpu(Option<usize>),
    /// CUDA devices by index; without a list all of them.
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
                let indices = indices.map_err(|_| refuse("the list must be device numbers, such as cuda:0,1"))?;
                let distinct: HashSet<usize> = indices.iter().copied().collect();
                if distinct.len() != indices.len() {
                    return Err(refuse("each device may be named once"));
                }
                Ok(Self::Cuda(Some(indices)))
            }
            _ => Err(refuse("known devices are auto, cpu, cpu:N, cuda and cuda:0,1")),
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
    /// The device of each of `ranks` ranks.
    ///
    /// # Errors
    /// [`GpuError::Device`] if there are fewer devices than ranks, or if CUDA is asked for: its collectives do not
    /// exist yet.
    pub fn resolve(&self, ranks: usize) -> Result<Vec<Device>, GpuError> {
        let refuse = |problem: String| Err(GpuError::Device { device: self.to_string(), problem });
        match self {
            Self::Auto | Self::Cpu(None) => Ok(vec![Device::Cpu; ranks]),
            Self::Cpu(Some(count)) if *count >= ranks => Ok(vec![Device::Cpu; ranks]),
            Self::Cpu(Some(count)) => refuse(format!("{count} devices can't hold {ranks} ranks")),
            Self::Cuda(_) => refuse("this build trains on the CPU only, CUDA devices are not supported yet".to_owned()),
        }
    }
}

/// Sets how many threads libtorch uses inside one operation, for the whole process; once, before any rank starts.
///
/// One thread per rank is best where ranks share the machine's cores: libtorch's thread teams spin against each other.
pub fn init_threads(threads_per_rank: usize) {
    let threads = i32::try_from(threads_per_rank.clamp(1, 1024)).unwrap_or(1);
    tch::set_num_threads(threads);
}
