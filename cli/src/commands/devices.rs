//! `devices`: what this machine could train on.

use anyhow::Result;
use psyche_gpu::devices::{CpuReport, CudaDevice, CudaReport, Driver, Machine, load_torch_cuda};
use serde::Serialize;

use crate::args::JsonArgs;
use crate::output;

/// What scripts get.
#[derive(Serialize)]
struct Listed {
    cpu: CpuReport,
    cuda: Cuda,
}

#[derive(Serialize)]
struct Cuda {
    /// Whether a node can train on CUDA here.
    usable: bool,
    /// In one line: what there is, or what is missing.
    summary: String,
    driver: Option<Driver>,
    devices: Vec<CudaDevice>,
}

pub(crate) fn run(args: JsonArgs) -> Result<()> {
    let machine = Machine::look();
    let cuda = cuda_of(machine.cuda);
    if args.json {
        return output::json(&Listed { cpu: machine.cpu, cuda });
    }
    let devices = machine.cpu.cores.len();
    let room = if devices == 1 { "1 device".to_owned() } else { format!("up to {devices} devices") };
    output::line(format_args!("cpu   {}: {room} with cores of their own", machine.cpu))?;
    output::line(format_args!("cuda  {}", cuda.summary))?;
    for device in &cuda.devices {
        let unfit = device.unfit().map(|_| " (too old to train on)").unwrap_or_default();
        output::line(format_args!("{device}{unfit}"))?;
    }
    Ok(())
}

fn cuda_of(report: CudaReport) -> Cuda {
    let loaded = match report.devices().iter().any(|device| device.unfit().is_none()) {
        true => load_torch_cuda(),
        false => return Cuda { usable: false, summary: report.to_string(), ..parts(report) },
    };
    let summary = match &loaded {
        Ok(()) => format!("{report}; nodes can train on it"),
        Err(error) => format!("{report}; but nodes can't train on it: failed to {error}"),
    };
    Cuda { usable: loaded.is_ok(), summary, ..parts(report) }
}

fn parts(report: CudaReport) -> Cuda {
    let (driver, devices) = match report {
        CudaReport::Devices(driver, devices) => (Some(driver), devices),
        CudaReport::NoDriver | CudaReport::Broken(_) => (None, Vec::new()),
    };
    Cuda { usable: false, summary: String::new(), driver, devices }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_that_are_too_old_are_listed_and_not_usable() {
        let card = CudaDevice {
            index: 0,
            name: "Card".to_owned(),
            memory_bytes: 1 << 34,
            memory_free_bytes: None,
            compute_capability: (6, 1),
            peers: Vec::new(),
        };
        let cuda = cuda_of(CudaReport::Devices(Driver { release: None, cuda: (12, 4) }, vec![card.clone()]));
        assert!(!cuda.usable && cuda.devices == [card] && cuda.summary.contains("12.4"), "{}", cuda.summary);
        let none = cuda_of(CudaReport::NoDriver);
        assert!(!none.usable && none.driver.is_none() && none.summary == "no NVIDIA driver on this machine");
    }
}
