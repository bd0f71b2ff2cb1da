//! The machine's CUDA devices, asked of the driver itself. Its library is loaded when it is asked for: the same binary runs
//! where there is none, and says so.
//!
//! What can be known of links between devices: whether one can read another's memory, the driver's own ranking of the
//! ways to it, and whether atomic operations work across. The last is how NVLink shows: over PCI Express they don't.

use std::ffi::c_int;
use std::fmt;

use cudarc::driver::{result, sys};
use serde::Serialize;

/// Least compute capability that libtorch's builds for CUDA 13 have kernels for: Turing.
pub const COMPUTE_CAPABILITY_MIN: (i32, i32) = (7, 5);

/// The driver, as far as it tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Driver {
    /// Its release, such as 580.65.06; none where the kernel module does not say (it tells outside of most sandboxes).
    pub release: Option<String>,
    /// Newest version of CUDA that it runs: major and minor.
    pub cuda: (i32, i32),
}

/// A CUDA device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CudaDevice {
    /// Its index, as `CUDA_VISIBLE_DEVICES` leaves it.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Its memory in bytes.
    pub memory_bytes: u64,
    /// Of it, what is free now; none where the driver lets nobody in to look (another process has the device alone).
    pub memory_free_bytes: Option<u64>,
    /// Compute capability: major and minor.
    pub compute_capability: (i32, i32),
    /// The ways to the other devices.
    pub peers: Vec<CudaPeer>,
}

/// How one device reaches another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CudaPeer {
    /// The other device's index.
    pub index: usize,
    /// Whether it can read and write the other's memory, without the CPU's help.
    pub access: bool,
    /// Whether they share an NVLink, as far as native atomic operations across tell.
    pub nvlink: bool,
    /// The driver's ranking of the link among all of the machine, 0 for the best; meaningless without access.
    pub performance_rank: i32,
}

/// What the driver says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CudaReport {
    /// No NVIDIA driver is installed.
    NoDriver,
    /// The driver refuses to work.
    Broken(String),
    /// The driver and its devices, by index; those that `CUDA_VISIBLE_DEVICES` hides are not there.
    Devices(Driver, Vec<CudaDevice>),
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let release = self.release.as_ref().map(|release| format!(" {release}")).unwrap_or_default();
        write!(f, "driver{release} for CUDA {}.{}", self.cuda.0, self.cuda.1)
    }
}

impl fmt::Display for CudaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let free = self.memory_free_bytes.map_or_else(|| "free unknown".to_owned(), |free| format!("{} free", gib(free)));
        let (major, minor) = self.compute_capability;
        write!(
            f,
            "cuda:{} {}, {} memory, {free}, compute capability {major}.{minor}",
            self.index,
            self.name,
            gib(self.memory_bytes)
        )?;
        let named = |link: &str, wanted: fn(&CudaPeer) -> bool| {
            let peers: Vec<_> = self.peers.iter().filter(|peer| wanted(peer)).map(|peer| peer.index.to_string()).collect();
            if peers.is_empty() { String::new() } else { format!(", {link} to {}", peers.join(",")) }
        };
        f.write_str(&named("NVLink", |peer| peer.access && peer.nvlink))?;
        f.write_str(&named("peer access over PCI Express", |peer| peer.access && !peer.nvlink))
    }
}

impl fmt::Display for CudaReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver => f.write_str("no NVIDIA driver on this machine"),
            Self::Broken(reason) => write!(f, "the NVIDIA driver does not work: {reason}"),
            Self::Devices(driver, devices) if devices.is_empty() => {
                write!(f, "{driver}, but no device that CUDA_VISIBLE_DEVICES leaves visible")
            }
            Self::Devices(driver, devices) => {
                let one = |d: &CudaDevice| format!("{} ({})", d.name, gib(d.memory_bytes));
                write!(f, "{}; {driver}", devices.iter().map(one).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Bytes as people read them.
pub(crate) fn gib(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10 + (1 << 29)) >> 30;
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

impl CudaDevice {
    /// Why nothing can be trained on this device, if so.
    #[must_use]
    pub fn unfit(&self) -> Option<String> {
        let (major, minor) = self.compute_capability;
        let (least_major, least_minor) = COMPUTE_CAPABILITY_MIN;
        (self.compute_capability < COMPUTE_CAPABILITY_MIN).then(|| {
            format!(
                "cuda:{} ({}) has compute capability {major}.{minor}, libtorch needs {least_major}.{least_minor}",
                self.index, self.name
            )
        })
    }
}

impl CudaReport {
    /// The devices; none where there is no driver or it does not work.
    #[must_use]
    pub fn devices(&self) -> &[CudaDevice] {
        match self {
            Self::Devices(_, devices) => devices,
            Self::NoDriver | Self::Broken(_) => &[],
        }
    }
}

/// Asks the driver for its devices. Takes moments, since each device has to be woken to say what is free.
#[must_use]
pub fn cuda_report() -> CudaReport {
    // SAFETY: only tries to load the driver's library and gives it back; cudarc's own constructors panic without it.
    if !unsafe { sys::is_culib_present() } {
        return CudaReport::NoDriver;
    }
    match result::init() {
        Ok(()) => {}
        // What `CUDA_VISIBLE_DEVICES=` or a machine without its cards makes of it.
        Err(result::DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => return CudaReport::Devices(driver(), Vec::new()),
        Err(error) => return CudaReport::Broken(error.to_string()),
    }
    match devices() {
        Ok(devices) => CudaReport::Devices(driver(), devices),
        Err(error) => CudaReport::Broken(error.to_string()),
    }
}

fn driver() -> Driver {
    let mut version: c_int = 0;
    // SAFETY: the library is loaded, as the caller has seen; the driver writes one integer.
    let known = unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().is_ok();
    let cuda = if known { (version / 1000, version % 1000 / 10) } else { (0, 0) };
    let release = std::fs::read_to_string("/proc/driver/nvidia/version").ok().and_then(|text| release_of(&text));
    Driver { release, cuda }
}

/// The release in what the kernel module says of itself: the first word that is a dotted number.
fn release_of(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version"))?;
    let dotted = |word: &&str| {
        word.contains('.') && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    line.split_whitespace().find(dotted).map(str::to_owned)
}

fn devices() -> Result<Vec<CudaDevice>, result::DriverError> {
    let count = result::device::get_count()?;
    let handles = (0..count).map(result::device::get).collect::<Result<Vec<_>, _>>()?;
    handles.iter().enumerate().map(|(index, &handle)| device(index, handle, &handles)).collect()
}

fn device(index: usize, handle: sys::CUdevice, all: &[sys::CUdevice]) -> Result<CudaDevice, result::DriverError> {
    use sys::CUdevice_attribute_enum::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let name = result::device::get_name(handle)?;
    // SAFETY: the handle comes from the driver.
    let memory_bytes = unsafe { result::device::total_mem(handle)? } as u64;
    // SAFETY: as above.
    let compute_capability =
        unsafe { (result::device::get_attribute(handle, MAJOR)?, result::device::get_attribute(handle, MINOR)?) };
    let others = all.iter().enumerate().filter(|(other, _)| *other != index);
    let peers = others.map(|(other, &to)| peer(other, handle, to)).collect();
    Ok(CudaDevice { index, name, memory_bytes, memory_free_bytes: free_memory(handle), compute_capability, peers })
}

/// What the driver tells of the way from one device to another; what it does not tell is not there.
fn peer(index: usize, from: sys::CUdevice, to: sys::CUdevice) -> CudaPeer {
    use sys::CUdevice_P2PAttribute_enum as Attribute;
    let ask = |attribute| {
        let mut value: c_int = 0;
        // SAFETY: both handles come from the driver, which writes one integer.
        unsafe { sys::cuDeviceGetP2PAttribute(&raw mut value, attribute, from, to) }.result().ok().map(|()| value)
    };
    CudaPeer {
        index,
        access: ask(Attribute::CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED) == Some(1),
        nvlink: ask(Attribute::CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED) == Some(1),
        performance_rank: ask(Attribute::CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK).unwrap_or(0),
    }
}

/// Free bytes of a device: only its context can tell, which libtorch shares and which is made where there is none.
fn free_memory(device: sys::CUdevice) -> Option<u64> {
    // SAFETY: the handle comes from the driver; the reference is given back below, whatever happens between.
    let context = unsafe { result::primary_ctx::retain(device) }.ok()?;
    // SAFETY: the context was retained above; it is taken off this thread's stack again if it was put there.
    let free = unsafe {
        let entered = sys::cuCtxPushCurrent_v2(context).result().is_ok();
        let free = if entered { result::mem_get_info().ok().map(|(free, _)| free as u64) } else { None };
        if entered {
            let mut popped = std::ptr::null_mut();
            let _left = sys::cuCtxPopCurrent_v2(&raw mut popped);
        }
        free
    };
    // SAFETY: gives back the reference taken above.
    let _released = unsafe { result::primary_ctx::release(device) };
    free
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    fn h200(index: usize) -> CudaDevice {
        CudaDevice {
            index,
            name: "NVIDIA H200".to_owned(),
            memory_bytes: 139 << 30,
            memory_free_bytes: Some(100 << 30),
            compute_capability: (9, 0),
            peers: Vec::new(),
        }
    }

    #[test]
    fn asking_is_safe_wherever_the_binary_runs() {
        let report = cuda_report();
        match &report {
            CudaReport::Devices(driver, devices) => {
                assert!(driver.cuda > (0, 0), "{driver:?}");
                for (index, device) in devices.iter().enumerate() {
                    assert_eq!(device.index, index);
                    assert!(device.compute_capability > (0, 0) && device.memory_bytes > 0, "{device:?}");
                    assert!(device.memory_free_bytes.is_none_or(|free| free <= device.memory_bytes), "{device:?}");
                    assert_eq!(device.peers.len(), devices.len() - 1);
                }
            }
            CudaReport::NoDriver | CudaReport::Broken(_) => println!("no CUDA device here: {report}"),
        }
        assert!(!report.to_string().is_empty() && !report.to_string().contains('\n'));
    }

    #[test]
    fn devices_are_listed_with_their_memory() {
        let driver = Driver { release: Some("580.65.06".to_owned()), cuda: (13, 0) };
        let two = CudaReport::Devices(driver.clone(), vec![h200(0), h200(1)]);
        let listed = "NVIDIA H200 (139.0 GiB), NVIDIA H200 (139.0 GiB); driver 580.65.06 for CUDA 13.0";
        assert_eq!(two.to_string(), listed);
        assert!(CudaReport::Devices(driver, Vec::new()).to_string().contains("CUDA_VISIBLE_DEVICES"));
    }

    #[test]
    fn a_devices_line_names_its_links_by_kind() {
        let peer = |index, nvlink, access| CudaPeer { index, access, nvlink, performance_rank: 0 };
        let device = CudaDevice { peers: vec![peer(1, true, true), peer(2, false, true), peer(3, false, false)], ..h200(0) };
        let line = "cuda:0 NVIDIA H200, 139.0 GiB memory, 100.0 GiB free, compute capability 9.0, NVLink to 1, \
                    peer access over PCI Express to 2";
        assert_eq!(device.to_string(), line);
    }

    #[test]
    fn devices_older_than_libtorchs_kernels_are_unfit() {
        for (capability, fit) in [((7, 0), false), ((7, 5), true), ((8, 0), true), ((12, 1), true), ((6, 9), false)] {
            let device = CudaDevice { compute_capability: capability, ..h200(3) };
            assert_eq!(device.unfit().is_none(), fit, "{capability:?}");
        }
        let old = CudaDevice { compute_capability: (7, 0), ..h200(3) };
        assert_eq!(old.unfit().unwrap(), "cuda:3 (NVIDIA H200) has compute capability 7.0, libtorch needs 7.5");
    }

    #[test]
    fn the_release_is_read_from_either_kind_of_kernel_module() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version:";
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (root@host)\n";
        assert_eq!(release_of(closed).unwrap(), "535.129.03");
        assert_eq!(release_of(open).unwrap(), "580.65.06");
        assert_eq!(release_of("something else 1.2"), None);
        assert_eq!(release_of(""), None);
    }

    #[test]
    fn bytes_are_written_in_tenths_of_gibibytes() {
        assert_eq!(
            [gib(0), gib(1 << 30), gib((3 << 30) + (1 << 29)), gib(u64::MAX)],
            ["0.0 GiB", "1.0 GiB", "3.5 GiB", "17179869184.0 GiB"]
        );
    }
}
