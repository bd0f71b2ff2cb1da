//! Collectives of CUDA devices, by NCCL, on the stream that torch uses.
//!
//! Communicators don't block: a call returns at once and this rank asks NCCL until it is enqueued, so that the mutex
//! around a communicator is only ever held for a moment. Whoever breaks the mesh down can therefore take every rank's
//! communicators away and abort them, which also ends what their devices wait for: no rank waits for ever, whether for
//! NCCL or for a device. After an aborted step the ranks rejoin and make communicators anew.

use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cudarc::nccl::sys::{cudaStream_t, ncclComm_t, ncclDataType_t, ncclRedOp_t};
use tch::{Device, Kind, Tensor};

use super::collective::{Collective, Element, Reduction};
use super::topology::{Group, Seat};
use super::{MeshRank, Shared};
use crate::GpuError;
use crate::shim::stream;
use library::{IN_PROGRESS, Id, Library, SUCCESS};

mod library;
#[cfg(test)]
mod tests;

pub(super) use library::library;

/// How long a rank that waits for its device sleeps between two looks, unless the mesh breaks down.
const LOOK_AGAIN: Duration = Duration::from_micros(50);

/// One rank's communicator in one group; lost while the mesh is broken.
pub(super) struct Link {
    library: &'static Library,
    shared: Arc<Shared>,
    /// In the world.
    rank: usize,
    seat: Seat,
    device: Device,
    wait_max: Duration,
    /// For what may happen beside the computation; none if nothing may.
    beside: Option<stream::SideStream>,
    communicator: Mutex<Option<Communicator>>,
}

struct Communicator(ncclComm_t);

// SAFETY: NCCL allows any thread to use a communicator, one at a time; the mutex around it sees to that.
unsafe impl Send for Communicator {}

impl Link {
    /// Makes the communicators of all groups of this kind; every rank of the node calls this.
    pub(super) fn connect(
        mesh: &MeshRank,
        group: Group,
        device: Device,
        (library, overlap): (&'static Library, bool),
    ) -> Result<Arc<Self>, GpuError> {
        let beside = if overlap { stream::SideStream::new(device)? } else { None };
        let link = Arc::new(Self {
            library,
            shared: Arc::clone(&mesh.shared),
            rank: mesh.rank(),
            seat: mesh.topology().seat(group, mesh.rank()),
            device,
            wait_max: mesh.shared.options.wait_max,
            beside,
            communicator: Mutex::new(None),
        });
        mesh.shared.register(&link);
        link.establish(mesh)?;
        Ok(link)
    }

    /// The rank of the world whose link this is.
    pub(super) fn rank(&self) -> usize {
        self.rank
    }

    /// Makes a new communicator; every rank of the node calls this for its link of the same group.
    pub(super) fn establish(&self, mesh: &MeshRank) -> Result<(), GpuError> {
        let own = (self.seat.place == 0).then(|| self.library.unique_id()).transpose()?;
        let ids: Vec<Option<Id>> = mesh.agree(own)?;
        let topology = mesh.topology();
        let first = (0..topology.ranks()).find(|&rank| {
            let seat = topology.seat(self.seat.group, rank);
            (seat.number, seat.place) == (self.seat.number, 0)
        });
        let Some(id) = first.and_then(|first| ids[first]) else {
            return Err(GpuError::MeshDesynchronised { rank: self.rank });
        };
        stream::use_device(self.device)?;
        let (communicator, code) = self.library.begin_communicator(id, self.seat.size, self.seat.place);
        *self.lock() = (!communicator.is_null()).then_some(Communicator(communicator));
        self.enqueued(code, "make a communicator")?;
        // Nobody goes on, and perhaps fails, before all have theirs.
        mesh.agree(()).map(drop)
    }

    /// Takes the communicator away and aborts it, which ends everything that waits for it.
    pub(super) fn sever(&self) {
        // Held until it is aborted: whoever waits and finds it gone gives its memory back, which nobody must write to by then.
        let mut held = self.lock();
        if let Some(Communicator(communicator)) = held.take() {
            let code = self.library.abort(communicator);
            if code != SUCCESS && code != IN_PROGRESS {
                tracing::warn!(rank = self.rank, code, "a communicator could not be aborted");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Communicator>> {
        self.communicator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands one operation to NCCL and waits until it is enqueued.
    fn enqueue(
        &self,
        operation: &'static str,
        stream: *mut c_void,
        call: impl FnOnce(&Library, ncclComm_t, cudaStream_t) -> c_int,
    ) -> Result<(), GpuError> {
        let code = match &*self.lock() {
            Some(Communicator(communicator)) => call(self.library, *communicator, stream.cast()),
            None => return Err(self.severed()),
        };
        self.enqueued(code, operation)
    }

    /// Asks NCCL until it has done with the call that returned `code`.
    fn enqueued(&self, mut code: c_int, operation: &'static str) -> Result<(), GpuError> {
        let deadline = Instant::now() + self.wait_max;
        while code == IN_PROGRESS {
            self.still_whole(deadline, operation)?;
            std::thread::yield_now();
            code = self.state()?;
        }
        if code == SUCCESS { Ok(()) } else { Err(self.broken(code, operation)) }
    }

    /// What NCCL says about the communicator at the moment.
    fn state(&self) -> Result<c_int, GpuError> {
        match &*self.lock() {
            Some(Communicator(communicator)) => Ok(self.library.state(*communicator)),
            None => Err(self.severed()),
        }
    }

    /// Gives up when the mesh has broken down, or the others are late.
    fn still_whole(&self, deadline: Instant, operation: &'static str) -> Result<(), GpuError> {
        if let Some(breakdown) = self.shared.meeting(self.seat).breakdown() {
            self.sever();
            return Err(breakdown.into());
        }
        if Instant::now() < deadline {
            return Ok(());
        }
        let message = format!("not done within {} ms", self.wait_max.as_millis());
        let error = GpuError::Nccl { operation, message };
        self.shared.fail(self.rank, &error.to_string());
        Err(error)
    }

    /// Why there is no communicator.
    fn severed(&self) -> GpuError {
        let left = || GpuError::MeshPoisoned { rank: self.rank, reason: "it has no communicator".to_owned() };
        self.shared.meeting(self.seat).breakdown().map_or_else(left, GpuError::from)
    }

    /// Ends the mesh, because NCCL can't go on.
    fn broken(&self, code: c_int, operation: &'static str) -> GpuError {
        let message = match &*self.lock() {
            Some(Communicator(communicator)) => self.library.explain(code, *communicator),
            None => self.library.explain(code, std::ptr::null_mut()),
        };
        let error = GpuError::Nccl { operation, message };
        self.shared.fail(self.rank, &error.to_string());
        error
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.sever();
    }
}

/// The collectives of one group of CUDA devices.
pub struct Nccl {
    link: Arc<Link>,
}

impl Nccl {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }

    /// Where a tensor lies and what it holds, if it is on this rank's device.
    fn buffer(&self, tensor: &Tensor) -> Result<(*mut c_void, usize, ncclDataType_t), GpuError> {
        let device = tensor.device();
        if device != self.link.device {
            let problem = format!("a tensor on {device:?} is not within this rank's reach");
            return Err(GpuError::Device { device: format!("{:?}", self.link.device), problem });
        }
        let kind = match Element::of(tensor)? {
            Element::F32 => ncclDataType_t::ncclFloat32,
            Element::Bf16 => ncclDataType_t::ncclBfloat16,
        };
        Ok((tensor.data_ptr(), tensor.numel(), kind))
    }

    /// Whole and part of a scatter or gather: both places, the part's length and type.
    fn parts(&self, whole: &Tensor, part: &Tensor) -> Result<(*mut c_void, *mut c_void, usize, ncclDataType_t), GpuError> {
        let ((whole, whole_len, kind), (part, len, part_kind)) = (self.buffer(whole)?, self.buffer(part)?);
        let size = self.size();
        if whole_len != len * size || kind != part_kind {
            let problem = format!("{whole_len} elements are not {size} parts of {len} of the same type");
            return Err(GpuError::Layout { problem });
        }
        Ok((whole, part, len, kind))
    }

    /// Whether NCCL's own sums would be rounded more than once: it adds bf16 pairwise, rank by rank.
    fn needs_f32(&self, tensor: &Tensor, reduction: Reduction) -> bool {
        tensor.kind() == Kind::BFloat16 && reduction == Reduction::Sum && self.size() > 2
    }

    fn reduce_on(&self, stream: *mut c_void, tensor: &Tensor, reduction: Reduction) -> Result<(), GpuError> {
        let (memory, len, kind) = self.buffer(tensor)?;
        let operation = match reduction {
            Reduction::Sum => ncclRedOp_t::ncclSum,
            Reduction::Max => ncclRedOp_t::ncclMax,
        };
        self.link.enqueue("all-reduce", stream, |library, communicator, stream| {
            // SAFETY: the tensor is live and on this communicator's device. What follows on the stream, its memory's
            // reuse included, comes after the operation.
            unsafe { (library.all_reduce)(memory, memory, len, kind, operation, communicator, stream) }
        })
    }
}

impl Collective for Nccl {
    fn rank(&self) -> usize {
        self.link.seat.place
    }

    fn size(&self) -> usize {
        self.link.seat.size
    }

    fn all_reduce(&self, tensor: &mut Tensor, reduction: Reduction) -> Result<(), GpuError> {
        if self.needs_f32(tensor, reduction) {
            let exact = tensor.f_to_kind(Kind::Float)?;
            self.reduce_on(stream::current(self.link.device)?, &exact, reduction)?;
            return Ok(tensor.f_copy_(&exact)?);
        }
        self.reduce_on(stream::current(self.link.device)?, tensor, reduction)
    }

    fn reduce_scatter(&self, input: &Tensor, output: &mut Tensor) -> Result<(), GpuError> {
        if self.needs_f32(input, Reduction::Sum) {
            let (exact, mut part) = (input.f_to_kind(Kind::Float)?, output.f_to_kind(Kind::Float)?);
            self.reduce_scatter(&exact, &mut part)?;
            return Ok(output.f_copy_(&part)?);
        }
        let (whole, part, len, kind) = self.parts(input, output)?;
        self.link.enqueue("reduce-scatter", stream::current(self.link.device)?, |library, communicator, stream| {
            // SAFETY: as in `reduce_on`, for both tensors.
            unsafe { (library.reduce_scatter)(whole, part, len, kind, ncclRedOp_t::ncclSum, communicator, stream) }
        })
    }

    fn all_gather(&self, input: &Tensor, output: &mut Tensor) -> Result<(), GpuError> {
        let (whole, part, len, kind) = self.parts(output, input)?;
        self.link.enqueue("all-gather", stream::current(self.link.device)?, |library, communicator, stream| {
            // SAFETY: as in `reduce_on`, for both tensors.
            unsafe { (library.all_gather)(part, whole, len, kind, communicator, stream) }
        })
    }

    fn broadcast(&self, tensor: &mut Tensor, root: usize) -> Result<(), GpuError> {
        let place = c_int::try_from(root).ok().filter(|_| root < self.size());
        let Some(place) = place else {
            return Err(GpuError::Layout { problem: format!("place {root} in a group of {}", self.size()) });
        };
        let (memory, len, kind) = self.buffer(tensor)?;
        self.link.enqueue("broadcast", stream::current(self.link.device)?, |library, communicator, stream| {
            // SAFETY: as in `reduce_on`.
            unsafe { (library.broadcast)(memory, memory, len, kind, place, communicator, stream) }
        })
    }

    fn begin_all_reduce(&self, tensor: &mut Tensor, reduction: Reduction) -> Result<(), GpuError> {
        match &self.link.beside {
            // All operations of a communicator stay in one order: this one after what the current stream was told so
            // far, and whatever comes next after `finish`.
            Some(beside) if !self.needs_f32(tensor, reduction) => {
                beside.fork()?;
                self.reduce_on(beside.handle(), tensor, reduction)
            }
            _ => self.all_reduce(tensor, reduction),
        }
    }

    fn finish(&self) -> Result<(), GpuError> {
        self.link.beside.as_ref().map_or(Ok(()), stream::SideStream::join)
    }

    fn settle(&self) -> Result<(), GpuError> {
        let deadline = Instant::now() + self.link.wait_max;
        loop {
            match self.link.state()? {
                SUCCESS | IN_PROGRESS => {}
                code => return Err(self.link.broken(code, "finish a collective")),
            }
            if stream::is_idle(self.link.device)? {
                return Ok(());
            }
            self.link.still_whole(deadline, "finish a collective")?;
            self.link.shared.meeting(self.link.seat).pause(LOOK_AGAIN);
        }
    }
}
