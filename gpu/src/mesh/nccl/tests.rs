//! The logic around NCCL, over a stand-in for its library that works on the CPU; and NCCL itself where there are devices.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use std::collections::HashMap;
use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use cudarc::nccl::sys::{ncclConfig_t, ncclUniqueId};

use super::*;
use crate::devices::{CudaReport, cuda_report};
use crate::mesh::{MeshOptions, Topology, mesh};
use crate::testing::on_ranks;

/// A call that waits for the rest of its group.
#[derive(Clone, Copy)]
struct Call {
    from: *const c_void,
    to: *mut c_void,
    len: usize,
    kind: ncclDataType_t,
    what: What,
}

// SAFETY: whoever made the call asks about it until it is done, and keeps its memory alive meanwhile.
unsafe impl Send for Call {}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Join,
    Reduce(ncclRedOp_t),
    Scatter,
    Gather,
    Broadcast(c_int),
}

/// The members of a group that have met so far, by place.
struct Members {
    calls: Mutex<Vec<Option<Call>>>,
    states: Vec<AtomicI32>,
}

/// What a communicator points to.
struct Member {
    members: Arc<Members>,
    place: usize,
}

static GROUPS: Mutex<Option<HashMap<[c_char; 128], Arc<Members>>>> = Mutex::new(None);
static NAMES: AtomicUsize = AtomicUsize::new(0);
static ALIVE: AtomicUsize = AtomicUsize::new(0);
/// One test at a time may count communicators.
static ALONE: Mutex<()> = Mutex::new(());

const INVALID_USAGE: c_int = 5;

unsafe extern "C" fn unique_id(id: *mut ncclUniqueId) -> c_int {
    let number = NAMES.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    // SAFETY: the caller's `id` is live.
    let id = unsafe { &mut (*id).internal };
    id.iter_mut().zip(number).for_each(|(to, from)| *to = from as c_char);
    SUCCESS
}

unsafe extern "C" fn init(
    to: *mut ncclComm_t,
    size: c_int,
    id: ncclUniqueId,
    place: c_int,
    config: *mut ncclConfig_t,
) -> c_int {
    // SAFETY: the caller's configuration is live.
    assert_eq!(unsafe { (*config).blocking }, 0, "a blocking communicator could not be taken away");
    let mut groups = GROUPS.lock().unwrap();
    let members = groups.get_or_insert_default().entry(id.internal).or_insert_with(|| {
        let states = (0..size).map(|_| AtomicI32::new(SUCCESS)).collect();
        Arc::new(Members { calls: Mutex::new(vec![None; size as usize]), states })
    });
    let member = Box::new(Member { members: Arc::clone(members), place: place as usize });
    drop(groups);
    ALIVE.fetch_add(1, Ordering::SeqCst);
    let member = Box::into_raw(member);
    // SAFETY: the caller's place is live, the member was just made.
    unsafe {
        *to = member.cast();
        call(member.cast(), std::ptr::null(), std::ptr::null_mut(), (0, ncclDataType_t::ncclFloat32), What::Join)
    }
}

/// Adds a call; the last one of the group does the work of all.
unsafe fn call(
    communicator: ncclComm_t,
    from: *const c_void,
    to: *mut c_void,
    (len, kind): (usize, ncclDataType_t),
    what: What,
) -> c_int {
    // SAFETY: made by `init` and not aborted.
    let Member { members, place } = unsafe { &*communicator.cast::<Member>() };
    let mut calls = members.calls.lock().unwrap();
    members.states[*place].store(IN_PROGRESS, Ordering::SeqCst);
    calls[*place] = Some(Call { from, to, len, kind, what });
    let all: Vec<Call> = calls.iter().flatten().copied().collect();
    if all.len() == calls.len() {
        calls.fill(None);
        let same = all.iter().all(|other| (other.len, other.what) == (len, what));
        if same {
            // SAFETY: every caller asks until its call is done, and keeps its memory alive meanwhile.
            unsafe { work(&all) };
        }
        let code = if same { SUCCESS } else { INVALID_USAGE };
        members.states.iter().for_each(|state| state.store(code, Ordering::SeqCst));
    }
    IN_PROGRESS
}

/// # Safety
/// The calls' memory is live.
unsafe fn work(calls: &[Call]) {
    let tensor = |memory: *const c_void, len: usize, kind| {
        let kind = if kind == ncclDataType_t::ncclBfloat16 { Kind::BFloat16 } else { Kind::Float };
        // SAFETY: as the caller promises.
        unsafe { Tensor::from_blob(memory.cast(), &[len as i64], &[1], kind, Device::Cpu) }
    };
    let size = calls.len();
    let Call { len, kind, what, .. } = calls[0];
    let sent = if what == What::Scatter { len * size } else { len };
    let received = if what == What::Gather { len * size } else { len };
    if what == What::Join {
        return;
    }
    let inputs: Vec<Tensor> = calls.iter().map(|call| tensor(call.from, sent, kind).copy()).collect();
    let sum = || inputs.iter().skip(1).fold(inputs[0].copy(), |sum, input| sum + input);
    for (place, call) in calls.iter().enumerate() {
        let result = match what {
            What::Join => return,
            What::Reduce(ncclRedOp_t::ncclMax) => {
                inputs.iter().skip(1).fold(inputs[0].copy(), |most, input| most.maximum(input))
            }
            What::Reduce(_) => sum(),
            What::Scatter => sum().narrow(0, (place * len) as i64, len as i64),
            What::Gather => Tensor::cat(&inputs, 0),
            What::Broadcast(root) => inputs[root as usize].copy(),
        };
        tensor(call.to, received, kind).copy_(&result);
    }
}

unsafe extern "C" fn state(communicator: ncclComm_t, to: *mut c_int) -> c_int {
    // SAFETY: made by `init` and not aborted; the caller's place is live.
    unsafe {
        let Member { members, place } = &*communicator.cast::<Member>();
        *to = members.states[*place].load(Ordering::SeqCst);
    }
    SUCCESS
}

unsafe extern "C" fn abort(communicator: ncclComm_t) -> c_int {
    // SAFETY: made by `init`, and aborted once.
    let member = unsafe { Box::from_raw(communicator.cast::<Member>()) };
    member.members.calls.lock().unwrap()[member.place] = None;
    ALIVE.fetch_sub(1, Ordering::SeqCst);
    SUCCESS
}

unsafe extern "C" fn error_string(_: c_int) -> *const c_char {
    c"invalid usage".as_ptr()
}

unsafe extern "C" fn last_error(_: ncclComm_t) -> *const c_char {
    const TEXT: &CStr = c"ranks called different operations";
    TEXT.as_ptr()
}

macro_rules! reduction {
    ($name:ident, $operation:ident, $what:expr) => {
        unsafe extern "C" fn $name(
            from: *const c_void,
            to: *mut c_void,
            len: usize,
            kind: ncclDataType_t,
            $operation: ncclRedOp_t,
            communicator: ncclComm_t,
            _: cudaStream_t,
        ) -> c_int {
            // SAFETY: as the mesh promises to NCCL.
            unsafe { call(communicator, from, to, (len, kind), $what) }
        }
    };
}

reduction!(all_reduce, operation, What::Reduce(operation));
reduction!(reduce_scatter, _operation, What::Scatter);

unsafe extern "C" fn all_gather(
    from: *const c_void,
    to: *mut c_void,
    len: usize,
    kind: ncclDataType_t,
    communicator: ncclComm_t,
    _: cudaStream_t,
) -> c_int {
    // SAFETY: as the mesh promises to NCCL.
    unsafe { call(communicator, from, to, (len, kind), What::Gather) }
}

unsafe extern "C" fn broadcast(
    from: *const c_void,
    to: *mut c_void,
    len: usize,
    kind: ncclDataType_t,
    root: c_int,
    communicator: ncclComm_t,
    _: cudaStream_t,
) -> c_int {
    // SAFETY: as the mesh promises to NCCL.
    unsafe { call(communicator, from, to, (len, kind), What::Broadcast(root)) }
}

static STAND_IN: Library = Library {
    get_unique_id: unique_id,
    comm_init: init,
    comm_state: state,
    comm_abort: abort,
    error_string,
    last_error,
    all_reduce,
    reduce_scatter,
    all_gather,
    broadcast,
};

fn connect(mesh: &MeshRank, group: Group) -> Nccl {
    Nccl::new(Link::connect(mesh, group, Device::Cpu, (&STAND_IN, true)).unwrap())
}

fn numbers(rank: usize, len: usize, kind: Kind) -> Tensor {
    let values: Vec<f32> = (0..len).map(|index| ((index * 31 + rank * 17) % 64) as f32 - 20.0).collect();
    Tensor::from_slice(&values).to_kind(kind)
}

/// What every operation of a group makes of [`numbers`].
fn results(group: &dyn Collective, rank: usize, kind: Kind, device: Device) -> Vec<Tensor> {
    let len = group.size() * 40;
    let input = || numbers(rank, len, kind).to_device(device);
    let part = || numbers(rank, 40, kind).to_device(device);
    let (mut sum, mut most, mut begun, mut sent) = (input(), input(), input(), input());
    let (mut scattered, mut gathered) = (part(), input());
    group.all_reduce(&mut sum, Reduction::Sum).unwrap();
    group.all_reduce(&mut most, Reduction::Max).unwrap();
    group.begin_all_reduce(&mut begun, Reduction::Sum).unwrap();
    group.finish().unwrap();
    group.reduce_scatter(&input(), &mut scattered).unwrap();
    group.all_gather(&part(), &mut gathered).unwrap();
    group.broadcast(&mut sent, group.size() - 1).unwrap();
    group.settle().unwrap();
    let results = [sum, most, begun, scattered, gathered, sent];
    results.iter().map(|result| result.to_device(Device::Cpu).to_kind(Kind::Float)).collect()
}

fn assert_like_shared_memory(rank: &MeshRank, group: Group, nccl: &dyn Collective, device: Device) {
    for kind in [Kind::Float, Kind::BFloat16] {
        let theirs = results(nccl, rank.rank(), kind, device);
        let ours = results(&rank.group(group), rank.rank(), kind, Device::Cpu);
        assert!(theirs.iter().zip(&ours).all(|(theirs, ours)| theirs.equal(ours)), "{group:?}, {kind:?}");
    }
}

#[test]
fn every_operation_of_every_group_gives_what_shared_memory_gives() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for result in on_ranks((2, 3), |rank| {
        for group in [Group::World, Group::Tensor, Group::Data] {
            assert_like_shared_memory(&rank, group, &connect(&rank, group), Device::Cpu);
        }
        rank.agree(()).unwrap();
    }) {
        result.unwrap();
    }
    assert_eq!(ALIVE.load(Ordering::SeqCst), 0);
}

#[test]
fn a_rank_that_goes_takes_every_communicator_with_it() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let errors = on_ranks((1, 3), |rank| {
        let group = connect(&rank, Group::Tensor);
        if rank.rank() == 2 {
            // The others wait within NCCL for what this rank never does.
            assert!(rank.rank() != 2, "the test wants it");
        }
        let first = group.all_reduce(&mut numbers(0, 8, Kind::Float), Reduction::Sum).unwrap_err();
        let second = group.all_reduce(&mut numbers(0, 8, Kind::Float), Reduction::Sum).unwrap_err();
        (first, second, group.settle().unwrap_err())
    });
    for (rank, result) in errors.into_iter().enumerate() {
        match result {
            Ok((first, second, third)) => {
                for error in [first, second, third] {
                    assert!(matches!(error, GpuError::MeshPoisoned { rank: 2, .. }), "{error:?}");
                }
            }
            Err(_) => assert_eq!(rank, 2),
        }
    }
    assert_eq!(ALIVE.load(Ordering::SeqCst), 0);
}

#[test]
fn communicators_are_made_anew_after_an_aborted_step() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for result in on_ranks((2, 2), |rank| {
        let groups = [connect(&rank, Group::Tensor), connect(&rank, Group::Data)];
        for attempt in 0..5 {
            if rank.rank() == attempt % 4 {
                rank.abort();
            } else {
                let error = groups[attempt % 2].all_reduce(&mut numbers(0, 8, Kind::Float), Reduction::Sum);
                // Its partner may have come, so that only the next wait ends.
                let error = error.and_then(|()| rank.agree(()).map(drop)).unwrap_err();
                assert!(matches!(error, GpuError::MeshAborted { .. }), "{error:?}");
            }
            rank.rejoin().unwrap();
            let mut tensor = numbers(0, 8, Kind::Float);
            groups.iter().for_each(|group| group.all_reduce(&mut tensor, Reduction::Sum).unwrap());
            assert!(tensor.equal(&(numbers(0, 8, Kind::Float) * 4)));
            // The next one to abort must not end this attempt for those who are behind.
            rank.agree(()).unwrap();
        }
    }) {
        result.unwrap();
    }
    assert_eq!(ALIVE.load(Ordering::SeqCst), 0);
}

#[test]
fn a_rank_that_does_not_call_ends_the_wait_of_the_others_in_a_typed_error() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let options = MeshOptions { wait_max: Duration::from_millis(300), overlap: false };
    let ranks = mesh(Topology::new(1, 2).unwrap(), options);
    let errors: Vec<Option<GpuError>> = std::thread::scope(|scope| {
        let wait = |rank: &MeshRank| {
            let group = connect(rank, Group::Tensor);
            (rank.rank() == 0).then(|| group.all_reduce(&mut numbers(0, 8, Kind::Float), Reduction::Sum).unwrap_err())
        };
        let threads: Vec<_> = ranks.iter().map(|rank| scope.spawn(move || wait(rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let error = errors[0].as_ref().unwrap();
    assert!(matches!(error, GpuError::Nccl { operation: "all-reduce", .. }), "{error:?}");
    assert_eq!(error.to_string(), "have NCCL all-reduce: not done within 300 ms");
    assert!(matches!(ranks[1].agree(()), Err(GpuError::MeshPoisoned { rank: 0, .. })));
    assert_eq!(ALIVE.load(Ordering::SeqCst), 0);
}

#[test]
fn what_nccl_refuses_is_told_in_its_own_words_and_ends_the_mesh() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let errors = on_ranks((1, 2), |rank| {
        let group = connect(&rank, Group::Tensor);
        let mut tensor = numbers(0, 8 + rank.rank(), Kind::Float);
        let error = group.all_reduce(&mut tensor, Reduction::Sum).unwrap_err();
        (error, rank.agree(()).unwrap_err())
    });
    let errors: Vec<_> = errors.into_iter().map(|result| result.unwrap()).collect();
    // The first to notice says why; the other one may learn of it from the mesh.
    let texts: Vec<String> = errors.iter().map(|(first, _)| first.to_string()).collect();
    assert!(texts.iter().any(|text| text.ends_with("invalid usage: ranks called different operations")), "{texts:?}");
    assert!(errors.iter().all(|(_, second)| matches!(second, GpuError::MeshPoisoned { .. })));
}

#[test]
fn a_tensor_elsewhere_or_in_another_shape_is_refused_before_nccl_sees_it() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for result in on_ranks((1, 2), |rank| {
        let group = connect(&rank, Group::Tensor);
        let mut double = Tensor::ones([4], (Kind::Double, Device::Cpu));
        assert!(matches!(group.all_reduce(&mut double, Reduction::Sum), Err(GpuError::Device { .. })));
        let (input, mut output) = (numbers(0, 5, Kind::Float), numbers(0, 2, Kind::Float));
        assert!(matches!(group.reduce_scatter(&input, &mut output), Err(GpuError::Layout { .. })));
        assert!(matches!(group.broadcast(&mut output, 2), Err(GpuError::Layout { .. })));
        rank.agree(()).unwrap();
    }) {
        result.unwrap();
    }
}

#[test]
fn a_library_that_is_not_there_is_told_in_one_line() {
    let problem = library::load(&["libnccl-of-no-machine.so.2", "libnccl-of-none.so"]).err().unwrap();
    let error = GpuError::NcclMissing { problem }.to_string();
    assert!(error.contains("libnccl-of-no-machine.so.2") && error.contains("libnccl-of-none.so"), "{error}");
    assert!(!error.contains('\n') && error.contains("LD_LIBRARY_PATH"), "{error}");
    // A library that is something else is told apart.
    let other = library::load(&["libc.so.6"]).err().unwrap();
    assert!(other.contains("ncclGetVersion"), "{other}");
}

/// CUDA devices that torch and NCCL can use here; tells why there are none.
fn devices() -> usize {
    let count = match cuda_report() {
        CudaReport::Devices(_, devices) if tch::Cuda::is_available() => devices.len(),
        _ => 0,
    };
    if count == 0 {
        eprintln!("no CUDA device here");
    }
    count
}

#[test]
fn nccl_itself_gives_what_shared_memory_gives_on_as_many_devices_as_there_are() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for ranks in [1, 2, 4].into_iter().filter(|&ranks| ranks <= devices()) {
        for result in on_ranks((1, ranks), |rank| {
            let device = Device::Cuda(rank.rank());
            for overlap in [false, true] {
                let link = Link::connect(&rank, Group::Tensor, device, (library().unwrap(), overlap)).unwrap();
                assert_like_shared_memory(&rank, Group::Tensor, &Nccl::new(link), device);
            }
            rank.agree(()).unwrap();
        }) {
            result.unwrap();
        }
    }
}
