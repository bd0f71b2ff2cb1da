//! The machine's CUDA devices. The driver is loaded when it is asked for: the same binary runs where there is none.

use std::fmt;

use cudarc::driver::{result, sys};

/// A CUDA device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaDevice {
    /// Its index, as `CUDA_VISIBLE_DEVICES` leaves it.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Its memory in bytes.
    pub memory_bytes: u64,
}

/// What the driver says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CudaReport {
    /// No NVIDIA driver is installed.
    NoDriver,
    /// The driver refuses to work.
    Broken(String),
    /// The devices, by index.
    Devices(Vec<CudaDevice>),
}

impl fmt::Display for CudaReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver => f.write_str("no NVIDIA driver on this machine"),
            Self::Broken(reason) => write!(f, "the NVIDIA driver does not work: {reason}"),
            Self::Devices(devices) if devices.is_empty() => f.write_str("an NVIDIA driver, but no device"),
            Self::Devices(devices) => {
                let one = |d: &CudaDevice| format!("{} ({} GiB)", d.name, d.memory_bytes >> 30);
                f.write_str(&devices.iter().map(one).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Asks the driver for its devices.
#[must_use]
pub fn cuda_report() -> CudaReport {
    // SAFETY: only tries to load the driver's library and gives it back; cudarc's own constructors panic without it.
    if !unsafe { sys::is_culib_present() } {
        return CudaReport::NoDriver;
    }
    match devices() {
        Ok(devices) => CudaReport::Devices(devices),
        Err(error) => CudaReport::Broken(format!("{error:?}")),
    }
}

fn devices() -> Result<Vec<CudaDevice>, result::DriverError> {
    result::init()?;
    let count = result::device::get_count()?;
    let device = |ordinal| {
        let handle = result::device::get(ordinal)?;
        let name = result::device::get_name(handle)?;
        // SAFETY: the handle comes from the driver, a line above.
        let memory_bytes = unsafe { result::device::total_mem(handle)? } as u64;
        Ok(CudaDevice { index: usize::try_from(ordinal).unwrap_or_default(), name, memory_bytes })
    };
    (0..count).map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_is_safe_wherever_the_binary_runs() {
        let report = cuda_report();
        assert_eq!(report, cuda_report());
        assert!(!report.to_string().is_empty());
    }

    #[test]
    fn devices_are_listed_with_their_memory() {
        let device = |index| CudaDevice { index, name: "H200".to_owned(), memory_bytes: 139 << 30 };
        assert_eq!(CudaReport::Devices(vec![device(0), device(1)]).to_string(), "H200 (139 GiB), H200 (139 GiB)");
        assert_eq!(CudaReport::Devices(Vec::new()).to_string(), "an NVIDIA driver, but no device");
    }
}
