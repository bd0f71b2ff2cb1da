//! NCCL's library, found at run time: the functions that the mesh uses, and cudarc's types for them.
//!
//! cudarc does not look for `libnccl.so.2`, the only name that NVIDIA's packages give it, and panics where a library is
//! missing; so it is loaded here.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use cudarc::nccl::sys::{cudaStream_t, ncclComm_t, ncclConfig_t, ncclDataType_t, ncclRedOp_t, ncclUniqueId};
use libloading::Library as Loaded;

use crate::GpuError;

/// `ncclSuccess`.
pub(super) const SUCCESS: c_int = 0;
/// `ncclInProgress`.
pub(super) const IN_PROGRESS: c_int = 7;
/// NCCL 2.28.9, whose `ncclConfig_t` cudarc declares: the one that libtorch 2.11 comes with.
const CONFIG_VERSION: u32 = 22_809;
/// Oldest version that knows all of that configuration, and the first of which nothing is known.
const VERSIONS: std::ops::Range<c_int> = 22_800..30_000;
/// What `NCCL_CONFIG_INITIALIZER` puts in front.
const CONFIG_MAGIC: u32 = 0xcafe_beef;
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

type Reduce =
    unsafe extern "C" fn(*const c_void, *mut c_void, usize, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t) -> c_int;

/// NCCL's functions; results are its `ncclResult_t`, as a number because newer versions know more of them.
pub(in crate::mesh) struct Library {
    pub(super) get_unique_id: unsafe extern "C" fn(*mut ncclUniqueId) -> c_int,
    pub(super) comm_init: unsafe extern "C" fn(*mut ncclComm_t, c_int, ncclUniqueId, c_int, *mut ncclConfig_t) -> c_int,
    pub(super) comm_state: unsafe extern "C" fn(ncclComm_t, *mut c_int) -> c_int,
    pub(super) comm_abort: unsafe extern "C" fn(ncclComm_t) -> c_int,
    pub(super) error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    pub(super) last_error: unsafe extern "C" fn(ncclComm_t) -> *const c_char,
    pub(super) all_reduce: Reduce,
    pub(super) reduce_scatter: Reduce,
    pub(super) all_gather:
        unsafe extern "C" fn(*const c_void, *mut c_void, usize, ncclDataType_t, ncclComm_t, cudaStream_t) -> c_int,
    pub(super) broadcast:
        unsafe extern "C" fn(*const c_void, *mut c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> c_int,
}

/// What the members of a group need to find each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(pub(super) [c_char; 128]);

/// NCCL, loaded on first use and never unloaded.
///
/// # Errors
/// [`GpuError::NcclMissing`] in one line: not there, or of a version that is not known.
pub(in crate::mesh) fn library() -> Result<&'static Library, GpuError> {
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    let loaded = LIBRARY.get_or_init(|| load(&NAMES));
    loaded.as_ref().map_err(|problem| GpuError::NcclMissing { problem: problem.clone() })
}

/// Loads the first of these libraries that is there.
pub(super) fn load(names: &[&str]) -> Result<Library, String> {
    let mut problems = Vec::new();
    for name in names {
        // SAFETY: NCCL's library has no initialisers with preconditions; libtorch loads the same one.
        match unsafe { Loaded::new(*name) } {
            Ok(loaded) => return functions(loaded).map_err(|problem| format!("{name}: {problem}")),
            Err(error) => problems.push(told(&error)),
        }
    }
    Err(problems.join("; "))
}

fn functions(loaded: Loaded) -> Result<Library, String> {
    // The library stays for as long as the process, so that its functions may be called at any time.
    let loaded: &'static Loaded = Box::leak(Box::new(loaded));
    // SAFETY: the type is that of NCCL's header for this name, as are those below.
    let version = unsafe { find::<unsafe extern "C" fn(*mut c_int) -> c_int>(loaded, "ncclGetVersion")? };
    let mut number = 0;
    // SAFETY: `number` outlives the call.
    let code = unsafe { version(&raw mut number) };
    if code != SUCCESS || !VERSIONS.contains(&number) {
        return Err(format!("version {number} is not in {}..{}", VERSIONS.start, VERSIONS.end));
    }
    // SAFETY: as above.
    unsafe {
        Ok(Library {
            get_unique_id: find(loaded, "ncclGetUniqueId")?,
            comm_init: find(loaded, "ncclCommInitRankConfig")?,
            comm_state: find(loaded, "ncclCommGetAsyncError")?,
            comm_abort: find(loaded, "ncclCommAbort")?,
            error_string: find(loaded, "ncclGetErrorString")?,
            last_error: find(loaded, "ncclGetLastError")?,
            all_reduce: find(loaded, "ncclAllReduce")?,
            reduce_scatter: find(loaded, "ncclReduceScatter")?,
            all_gather: find(loaded, "ncclAllGather")?,
            broadcast: find(loaded, "ncclBroadcast")?,
        })
    }
}

/// What the loader said.
fn told(error: &libloading::Error) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// # Safety
/// `F` is the type of the function of that name.
unsafe fn find<F: Copy>(loaded: &'static Loaded, name: &str) -> Result<F, String> {
    // SAFETY: as the caller promises.
    unsafe { loaded.get::<F>(name) }.map(|function| *function).map_err(|error| told(&error))
}

impl Library {
    /// A new group's identity.
    ///
    /// # Errors
    /// NCCL's.
    pub(super) fn unique_id(&self) -> Result<Id, GpuError> {
        let mut id = ncclUniqueId { internal: [0; 128] };
        // SAFETY: `id` outlives the call.
        let code = unsafe { (self.get_unique_id)(&raw mut id) };
        if code == SUCCESS {
            return Ok(Id(id.internal));
        }
        let message = self.explain(code, std::ptr::null_mut());
        Err(GpuError::Nccl { operation: "name a group", message })
    }

    /// Begins to make this rank's communicator on the thread's device: null if that failed at once.
    pub(super) fn begin_communicator(&self, id: Id, size: usize, place: usize) -> (ncclComm_t, c_int) {
        let mut communicator = std::ptr::null_mut();
        let mut config = config();
        let (size, place) = (size as c_int, place as c_int);
        let id = ncclUniqueId { internal: id.0 };
        // SAFETY: all places outlive the call; NCCL copies the configuration.
        let code = unsafe { (self.comm_init)(&raw mut communicator, size, id, place, &raw mut config) };
        (communicator, code)
    }

    /// What has become of the communicator's last call: success, in progress, or an error.
    pub(super) fn state(&self, communicator: ncclComm_t) -> c_int {
        let mut state = SUCCESS;
        // SAFETY: the communicator is live, its owner holds it locked; `state` outlives the call.
        let code = unsafe { (self.comm_state)(communicator, &raw mut state) };
        if code == SUCCESS { state } else { code }
    }

    /// Ends a communicator and everything that waits for it; nobody may use it afterwards.
    pub(super) fn abort(&self, communicator: ncclComm_t) -> c_int {
        // SAFETY: the caller has taken the communicator out of its link, so that nobody else uses it.
        unsafe { (self.comm_abort)(communicator) }
    }

    /// NCCL's own words for a result.
    pub(super) fn explain(&self, code: c_int, communicator: ncclComm_t) -> String {
        let text = |text: *const c_char| {
            if text.is_null() {
                return None;
            }
            // SAFETY: NCCL returns terminated text, static or the communicator's, which is copied before it runs again.
            Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned())
        };
        // SAFETY: take a number, and a live communicator or null.
        let (kind, detail) = unsafe { (text((self.error_string)(code)), text((self.last_error)(communicator))) };
        let parts = [kind, detail].into_iter().flatten().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join(": ")
    }
}

/// All settings left to NCCL, but that calls return at once.
fn config() -> ncclConfig_t {
    const UNSET: c_int = c_int::MIN;
    ncclConfig_t {
        size: size_of::<ncclConfig_t>(),
        magic: CONFIG_MAGIC,
        version: CONFIG_VERSION,
        blocking: 0,
        cgaClusterSize: UNSET,
        minCTAs: UNSET,
        maxCTAs: UNSET,
        netName: std::ptr::null(),
        splitShare: UNSET,
        trafficClass: UNSET,
        commName: std::ptr::null(),
        collnetEnable: UNSET,
        CTAPolicy: UNSET,
        shrinkShare: UNSET,
        nvlsCTAs: UNSET,
        nChannelsPerNetPeer: UNSET,
        nvlinkCentricSched: UNSET,
    }
}
