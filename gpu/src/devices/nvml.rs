//! How busy the machine's CUDA devices are, asked of NVIDIA's management library. It comes with the driver and is loaded at
//! run time; where it is not there, nobody knows.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use cudarc::driver::{result, sys};
use libloading::Library as Loaded;

const NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];
/// `NVML_SUCCESS`.
const SUCCESS: c_int = 0;
/// `NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE`; the driver needs less.
const BUS_ID_BYTES: usize = 32;

/// `nvmlDevice_t`.
type Device = *mut c_void;

/// `nvmlUtilization_t`: hundredths of the last sample period in which anything ran, and in which memory moved.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

/// The library's functions, once it is initialised.
struct Library {
    by_bus_id: unsafe extern "C" fn(*const c_char, *mut Device) -> c_int,
    utilization: unsafe extern "C" fn(Device, *mut Utilization) -> c_int,
}

/// Which part of the last second or less the CUDA device `index` computed, from 0 to 1; `None` where there is no such device,
/// or nobody knows, as of a part of a device (MIG). Indices are those of `CUDA_VISIBLE_DEVICES`, as everywhere.
#[must_use]
pub fn cuda_utilisation(index: usize) -> Option<f32> {
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| NAMES.iter().find_map(|name| load(name))).as_ref()?;
    utilisation(library, &bus_id(index)?)
}

fn utilisation(library: &Library, bus_id: &CStr) -> Option<f32> {
    let (mut device, mut busy) = (std::ptr::null_mut(), Utilization::default());
    // SAFETY: the id is a string that ends; the library writes one handle.
    let found = unsafe { (library.by_bus_id)(bus_id.as_ptr(), &raw mut device) } == SUCCESS;
    // SAFETY: the handle is the library's; it writes one such struct.
    let known = found && unsafe { (library.utilization)(device, &raw mut busy) } == SUCCESS;
    #[expect(clippy::cast_precision_loss, reason = "at most 100")]
    let share = busy.gpu.min(100) as f32 / 100.0;
    known.then_some(share)
}

/// Loads the library and initialises it, both for as long as the process lives.
fn load(name: &str) -> Option<Library> {
    // SAFETY: the library has no initialisers with preconditions.
    let loaded: &'static Loaded = Box::leak(Box::new(unsafe { Loaded::new(name) }.ok()?));
    // SAFETY: the types are those of the library's header for these names.
    let (start, library) = unsafe {
        let start = *loaded.get::<unsafe extern "C" fn() -> c_int>("nvmlInit_v2").ok()?;
        let by_bus_id = *loaded.get("nvmlDeviceGetHandleByPciBusId_v2").ok()?;
        let utilization = *loaded.get("nvmlDeviceGetUtilizationRates").ok()?;
        (start, Library { by_bus_id, utilization })
    };
    // SAFETY: may be called at any time, and as often as one likes.
    (unsafe { start() } == SUCCESS).then_some(library)
}

/// Where the device sits, by which both libraries know it: their indices need not be the same.
fn bus_id(index: usize) -> Option<std::ffi::CString> {
    // SAFETY: only tries to load the driver's library and gives it back; cudarc's own functions panic without it.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    result::init().ok()?;
    let device = result::device::get(c_int::try_from(index).ok()?).ok()?;
    let (mut id, length) = ([0 as c_char; BUS_ID_BYTES], c_int::try_from(BUS_ID_BYTES).ok()?);
    // SAFETY: the driver writes at most `length` bytes, and ends them.
    unsafe { sys::cuDeviceGetPCIBusId(id.as_mut_ptr(), length, device) }.result().ok()?;
    let bytes: Vec<u8> = id.iter().map(|byte| byte.to_ne_bytes()[0]).collect();
    CStr::from_bytes_until_nul(&bytes).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn nobody_knows_how_busy_a_device_is_that_is_not_there() {
        assert_eq!(cuda_utilisation(10_000), None);
        assert_eq!(cuda_utilisation(usize::MAX), None);
        // With a device, or without the library: an answer or none, and no panic.
        assert!(cuda_utilisation(0).is_none_or(|share| (0.0..=1.0).contains(&share)));
    }

    #[test]
    fn a_library_that_is_missing_or_another_one_is_not_used() {
        assert!(load("libnothing-of-that-name.so.1").is_none());
        assert!(load("libc.so.6").is_none());
    }

    #[test]
    fn what_the_library_says_is_a_share_and_what_it_refuses_is_unknown() {
        unsafe extern "C" fn found(_id: *const c_char, device: *mut Device) -> c_int {
            // SAFETY: the caller's variable.
            unsafe { *device = std::ptr::dangling_mut() };
            SUCCESS
        }
        unsafe extern "C" fn missing(_id: *const c_char, _device: *mut Device) -> c_int {
            6
        }
        unsafe extern "C" fn busy(_device: Device, busy: *mut Utilization) -> c_int {
            // SAFETY: the caller's variable.
            unsafe { *busy = Utilization { gpu: 87, memory: 12 } };
            SUCCESS
        }
        unsafe extern "C" fn unsupported(_device: Device, _busy: *mut Utilization) -> c_int {
            3
        }
        let ask = |by_bus_id, utilization| utilisation(&Library { by_bus_id, utilization }, c"0000:01:00.0");
        assert_eq!(ask(found, busy), Some(0.87));
        assert_eq!((ask(missing, busy), ask(found, unsupported)), (None, None));
    }
}
