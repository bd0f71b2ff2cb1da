//! Where each rank computes: a pure function of the operator's spelling, the layout, and what the machine has.

use std::fmt;

use serde::Serialize;
use tch::Device;

use super::cores::CoreShare;
use super::cpu::CpuReport;
use super::cuda::{CudaDevice, CudaReport, cuda_report};
use super::spec::DeviceSpec;
use crate::GpuError;
use crate::mesh::Topology;
use crate::shim;

/// What a machine offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Its CPU.
    pub cpu: CpuReport,
    /// Its CUDA devices.
    pub cuda: CudaReport,
}

impl Machine {
    /// This machine, as far as this process may use it.
    #[must_use]
    pub fn look() -> Self {
        Self { cpu: CpuReport::read(), cuda: cuda_report() }
    }
}

/// One rank's device, and the cores that are its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Where its tensors are.
    pub device: Device,
    /// Where its thread runs.
    pub cores: CoreShare,
}

impl Seat {
    /// Whether the rank computes on a CUDA device.
    #[must_use]
    pub fn is_cuda(&self) -> bool {
        matches!(self.device, Device::Cuda(_))
    }

    /// Keeps the calling thread, which is to be the rank's own, to its cores and makes the device its own. To be called
    /// before the thread makes a tensor.
    ///
    /// # Errors
    /// [`GpuError::Shim`] if libtorch does not know the CUDA device.
    pub fn take(&self) -> Result<(), GpuError> {
        self.cores.take();
        match self.device {
            Device::Cuda(index) => shim::set_cuda_device(index),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device {
            Device::Cuda(index) => write!(f, "cuda:{index}"),
            _ => write!(f, "cpu ({})", self.cores),
        }
    }
}

/// The seats of all ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// By rank.
    pub seats: Vec<Seat>,
    /// What the operator should know: devices that are not used, cores that are shared.
    pub warnings: Vec<String>,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seats: Vec<String> = self.seats.iter().map(ToString::to_string).collect();
        f.write_str(&seats.join(", "))
    }
}

impl DeviceSpec {
    /// The seat of every rank of `topology` on `machine`. `load_cuda` is called before a CUDA device is given out, and must
    /// make libtorch able to compute there: [`super::load_torch_cuda`].
    ///
    /// # Errors
    /// [`GpuError::Device`], with the numbers and what to set instead, if there are fewer devices than ranks, or devices
    /// that nothing can be trained on; what `load_cuda` says, unless this is [`DeviceSpec::Auto`], which then takes the CPU.
    pub fn place(
        &self,
        topology: Topology,
        machine: &Machine,
        load_cuda: impl FnOnce() -> Result<(), GpuError>,
    ) -> Result<Placement, GpuError> {
        match self {
            Self::Cpu(limit) => self.on_cpu(*limit, topology, &machine.cpu),
            Self::Cuda(indices) => {
                let devices = self.cuda_devices(indices.as_deref(), &machine.cuda)?;
                let seats = self.on_cuda(&devices, topology, &machine.cpu)?;
                load_cuda()?;
                Ok(Placement { seats, warnings: Vec::new() })
            }
            Self::Auto => self.automatic(topology, machine, load_cuda),
        }
    }

    /// CUDA where it works, otherwise the CPU and, where there is a driver, why.
    fn automatic(
        &self,
        topology: Topology,
        machine: &Machine,
        load_cuda: impl FnOnce() -> Result<(), GpuError>,
    ) -> Result<Placement, GpuError> {
        let listed = machine.cuda.devices();
        let mut warnings: Vec<String> = listed.iter().filter_map(CudaDevice::unfit).collect();
        let fit: Vec<usize> = listed.iter().filter(|device| device.unfit().is_none()).map(|device| device.index).collect();
        if fit.is_empty() {
            if machine.cuda != CudaReport::NoDriver {
                warnings.push(format!("no CUDA device can be used ({}): training on the CPU", machine.cuda));
            }
        } else {
            // Too few devices are refused rather than left unused: somebody has set a layout for more of them.
            let seats = self.on_cuda(&fit, topology, &machine.cpu)?;
            match load_cuda() {
                Ok(()) => return Ok(Placement { seats, warnings }),
                Err(error) => warnings.push(format!("training on the CPU: failed to {error}")),
            }
        }
        let mut placement = self.on_cpu(None, topology, &machine.cpu)?;
        warnings.append(&mut placement.warnings);
        Ok(Placement { warnings, ..placement })
    }

    fn refuse<T>(&self, problem: String) -> Result<T, GpuError> {
        Err(GpuError::Device { device: self.to_string(), problem })
    }

    /// The devices that are meant, each of them there and fit.
    fn cuda_devices(&self, indices: Option<&[usize]>, report: &CudaReport) -> Result<Vec<usize>, GpuError> {
        let listed = report.devices();
        if listed.is_empty() {
            return self.refuse(format!("{report}; set DEVICE=cpu, or leave it at auto"));
        }
        let Some(indices) = indices else {
            let (fit, unfit): (Vec<_>, Vec<_>) = listed.iter().partition(|device| device.unfit().is_none());
            if fit.is_empty() {
                let reasons: Vec<String> = unfit.into_iter().filter_map(CudaDevice::unfit).collect();
                return self.refuse(format!("{}; set DEVICE=cpu", reasons.join(", ")));
            }
            return Ok(fit.into_iter().map(|device| device.index).collect());
        };
        for &index in indices {
            let Some(device) = listed.iter().find(|device| device.index == index) else {
                let known: Vec<String> = listed.iter().map(|device| device.index.to_string()).collect();
                return self.refuse(format!(
                    "there is no device {index} among the {} here ({}), counted as CUDA_VISIBLE_DEVICES leaves them",
                    listed.len(),
                    known.join(",")
                ));
            };
            if let Some(reason) = device.unfit() {
                return self.refuse(reason);
            }
        }
        Ok(indices.to_vec())
    }

    fn on_cuda(&self, devices: &[usize], topology: Topology, cpu: &CpuReport) -> Result<Vec<Seat>, GpuError> {
        self.check_count(devices.len(), topology, "usable CUDA devices")?;
        let cores = CoreShare::floating(cpu, topology.ranks());
        let seat = |&index: &usize| Seat { device: Device::Cuda(index), cores: cores.clone() };
        Ok(devices.iter().take(topology.ranks()).map(seat).collect())
    }

    fn on_cpu(&self, limit: Option<usize>, topology: Topology, cpu: &CpuReport) -> Result<Placement, GpuError> {
        if let Some(limit) = limit {
            self.check_count(limit, topology, "CPU devices")?;
        }
        let ranks = topology.ranks();
        let mut warnings = Vec::new();
        if ranks > cpu.threads {
            let (threads, cores) = (cpu.threads, if cpu.threads == 1 { "core" } else { "cores" });
            warnings.push(format!("{ranks} CPU devices take turns on {threads} {cores}: fewer would train as fast"));
        }
        let seats = CoreShare::of(cpu, ranks).into_iter().map(|cores| Seat { device: Device::Cpu, cores });
        Ok(Placement { seats: seats.collect(), warnings })
    }

    fn check_count(&self, devices: usize, topology: Topology, what: &str) -> Result<(), GpuError> {
        let (dp, tp, ranks) = (topology.data_parallel(), topology.tensor_parallel(), topology.ranks());
        if ranks <= devices {
            return Ok(());
        }
        let (fitting_dp, fitting_tp) = fitting(dp, tp, devices);
        self.refuse(format!(
            "DATA_PARALLELISM {dp} × TENSOR_PARALLELISM {tp} are {ranks} ranks, and there are {devices} {what}; \
             DATA_PARALLELISM={fitting_dp} TENSOR_PARALLELISM={fitting_tp} would fit"
        ))
    }
}

/// The nearest layout on fewer devices: as much tensor parallelism as fits evenly, since the model may need it, and
/// replicas as room is left.
fn fitting(data_parallel: usize, tensor_parallel: usize, devices: usize) -> (usize, usize) {
    let tp = (1..=tensor_parallel.min(devices)).rev().find(|tp| tensor_parallel.is_multiple_of(*tp)).unwrap_or(1);
    ((devices / tp).clamp(1, data_parallel), tp)
}
