//! Collectives of CPU devices: threads of one process that work on each other's memory in place.
//!
//! Each operation is one [`Meeting`]: ranks lend their tensors, each does its share of the work, and nobody leaves before
//! all are done. An all-reduce is a reduce-scatter and an all-gather in one pass: a rank reads its share of every tensor,
//! block by block, and writes the result back everywhere while the block is in its cache.

use std::ops::Range;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::collective::{Collective, Element, Reduction};
use super::lanes;
use super::meeting::Meeting;
use super::topology::Seat;
use super::{Group, Shared};
use crate::GpuError;

/// Elements that are reduced at a time: all ranks' blocks and the sum stay in the first-level cache.
const BLOCK: usize = 1024;

/// The collectives of one group of CPU devices.
pub struct SharedMemory {
    shared: Arc<Shared>,
    seat: Seat,
}

/// The elements of one tensor, lent to other ranks for one exchange.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    pointer: *mut u8,
    len: usize,
    element: Element,
}

// SAFETY: a window is only dereferenced inside an exchange, while its owner waits, and writers keep to disjoint ranges.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// Lends a contiguous f32 or bf16 CPU tensor; anything else is refused.
    pub(crate) fn of(tensor: &Tensor) -> Result<Self, GpuError> {
        let element = Element::of(tensor)?;
        if tensor.device() != Device::Cpu {
            let problem = "shared memory reaches tensors on the CPU only".to_owned();
            return Err(GpuError::Device { device: format!("{:?}", tensor.device()), problem });
        }
        Ok(Self { pointer: tensor.data_ptr().cast(), len: tensor.numel(), element })
    }

    /// Lends a slice, to be read only.
    pub(crate) fn of_slice(elements: &[f32]) -> Self {
        Self { pointer: elements.as_ptr().cast_mut().cast(), len: elements.len(), element: Element::F32 }
    }

    pub(crate) fn element(&self) -> Element {
        self.element
    }

    /// Elements `range` of an f32 window.
    ///
    /// # Safety
    /// The range lies inside, the elements are f32, the owner keeps them alive, and nobody writes to them meanwhile.
    pub(crate) unsafe fn f32(&self, range: Range<usize>) -> &[f32] {
        debug_assert!(range.end <= self.len && self.element == Element::F32);
        // SAFETY: as the caller promises; libtorch aligns its memory far beyond 4 bytes.
        unsafe { std::slice::from_raw_parts(self.pointer.cast::<f32>().add(range.start), range.len()) }
    }

    /// Elements `range` of an f32 window, to write to.
    ///
    /// # Safety
    /// As [`Window::f32`], and nobody else reads them meanwhile either.
    #[expect(clippy::mut_from_ref, reason = "a window stands for memory that its holder may not own; callers promise")]
    pub(crate) unsafe fn f32_mut(&self, range: Range<usize>) -> &mut [f32] {
        debug_assert!(range.end <= self.len && self.element == Element::F32);
        // SAFETY: as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.cast::<f32>().add(range.start), range.len()) }
    }

    /// Elements `range` of a bf16 window, as bit patterns.
    ///
    /// # Safety
    /// As [`Window::f32`], but the elements are bf16.
    pub(crate) unsafe fn bf16(&self, range: Range<usize>) -> &[u16] {
        debug_assert!(range.end <= self.len && self.element == Element::Bf16);
        // SAFETY: as the caller promises.
        unsafe { std::slice::from_raw_parts(self.pointer.cast::<u16>().add(range.start), range.len()) }
    }

    /// Elements `range` of a bf16 window, as bit patterns, to write to.
    ///
    /// # Safety
    /// As [`Window::bf16`], and nobody else reads them meanwhile either.
    #[expect(clippy::mut_from_ref, reason = "a window stands for memory that its holder may not own; callers promise")]
    pub(crate) unsafe fn bf16_mut(&self, range: Range<usize>) -> &mut [u16] {
        debug_assert!(range.end <= self.len && self.element == Element::Bf16);
        // SAFETY: as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.cast::<u16>().add(range.start), range.len()) }
    }

    /// A strided part of the elements as a tensor that shares their memory.
    ///
    /// # Errors
    /// libtorch's.
    ///
    /// # Safety
    /// The part lies inside, and the owner keeps the elements alive for as long as the tensor.
    pub(crate) unsafe fn rectangle(&self, start: usize, size: [i64; 2], strides: [i64; 2]) -> Result<Tensor, GpuError> {
        let kind = match self.element {
            Element::F32 => Kind::Float,
            Element::Bf16 => Kind::BFloat16,
        };
        // SAFETY: as the caller promises.
        unsafe {
            let first = self.pointer.add(start * self.element.width());
            Ok(Tensor::f_from_blob(first, &size, &strides, kind, Device::Cpu)?)
        }
    }

    /// Copies `from`, of the same element type, to the elements from `at` on.
    ///
    /// # Safety
    /// Both owners keep their memory alive, `from` is not written to and these elements are nobody else's meanwhile.
    unsafe fn fill_from(&self, at: usize, from: &Window) {
        debug_assert!(at + from.len <= self.len && self.element == from.element);
        let (width, bytes) = (self.element.width(), from.len * self.element.width());
        // SAFETY: as the caller promises; the memory of two tensors does not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from.pointer, self.pointer.add(at * width), bytes) };
    }
}

impl Window {
    /// Copies elements `range` of `from`, of the same type and length, to the same place here.
    ///
    /// # Safety
    /// Both owners keep their memory alive, and nobody else touches these elements meanwhile.
    unsafe fn repeat(&self, range: Range<usize>, from: &Window) {
        debug_assert!(range.end <= self.len && self.len == from.len && self.element == from.element);
        let width = self.element.width();
        // SAFETY: as the caller promises; the memory of two tensors does not overlap.
        unsafe {
            let to = self.pointer.add(range.start * width);
            std::ptr::copy_nonoverlapping(from.pointer.add(range.start * width), to, range.len() * width);
        }
    }
}

/// What ranks bring to a meeting; they must agree on all but the addresses.
struct Job {
    operation: Operation,
    input: Window,
    output: Window,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    AllReduce(Reduction),
    ReduceScatter,
    AllGather,
    Broadcast { root: usize },
}

impl Job {
    fn matches(&self, other: &Self) -> bool {
        let shape = |job: &Self| (job.input.len, job.input.element, job.output.len, job.output.element);
        self.operation == other.operation && shape(self) == shape(other)
    }
}

impl SharedMemory {
    pub(super) fn new(shared: Arc<Shared>, rank: usize, group: Group) -> Self {
        let seat = shared.topology.seat(group, rank);
        Self { shared, seat }
    }

    fn meeting(&self) -> &Meeting {
        self.shared.meeting(self.seat)
    }

    /// Meets the group over `job` and does this rank's part of it, unless ranks disagree.
    fn perform(&self, job: &Job, work: impl FnOnce(&[&Job])) -> Result<(), GpuError> {
        let agreed = self.meeting().exchange(self.seat.place, job, |all| {
            let same = all.iter().all(|other| job.matches(other));
            if same {
                work(all);
            }
            same
        })?;
        if agreed { Ok(()) } else { Err(GpuError::MeshDesynchronised { rank: self.seat.place }) }
    }

    /// Refuses tensors of which one is not `size()` times the other.
    fn check_parts(&self, whole: Window, part: Window) -> Result<(), GpuError> {
        if whole.len == part.len * self.seat.size && whole.element == part.element {
            return Ok(());
        }
        let (size, whole, part) = (self.seat.size, whole.len, part.len);
        Err(GpuError::Layout { problem: format!("{whole} elements are not {size} parts of {part} of the same type") })
    }
}

impl Collective for SharedMemory {
    fn rank(&self) -> usize {
        self.seat.place
    }

    fn size(&self) -> usize {
        self.seat.size
    }

    fn all_reduce(&self, tensor: &mut Tensor, reduction: Reduction) -> Result<(), GpuError> {
        if self.seat.size == 1 {
            return Ok(());
        }
        let mine = Window::of(tensor)?;
        let share = mine.len * self.seat.place / self.seat.size..mine.len * (self.seat.place + 1) / self.seat.size;
        let job = Job { operation: Operation::AllReduce(reduction), input: mine, output: mine };
        self.perform(&job, |all| {
            reduce(all, share, reduction, |range, block| {
                // SAFETY: `range` lies inside every window, all of the same length, and inside this rank's share, which
                // no other rank touches; owners keep the memory alive until the exchange ends.
                unsafe {
                    write(&mine, range.clone(), block);
                    let others = all.iter().enumerate().filter(|(place, _)| *place != self.seat.place);
                    others.for_each(|(_, job)| job.output.repeat(range.clone(), &mine));
                }
            });
        })
    }

    fn reduce_scatter(&self, input: &Tensor, output: &mut Tensor) -> Result<(), GpuError> {
        let (input, output) = (Window::of(input)?, Window::of(output)?);
        self.check_parts(input, output)?;
        let start = output.len * self.seat.place;
        let job = Job { operation: Operation::ReduceScatter, input, output };
        self.perform(&job, |all| {
            reduce(all, start..start + output.len, Reduction::Sum, |range, block| {
                // SAFETY: the range, moved to the part's beginning, lies inside this rank's own output.
                unsafe { write(&output, range.start - start..range.end - start, block) };
            });
        })
    }

    fn all_gather(&self, input: &Tensor, output: &mut Tensor) -> Result<(), GpuError> {
        let (input, output) = (Window::of(input)?, Window::of(output)?);
        self.check_parts(output, input)?;
        self.perform(&Job { operation: Operation::AllGather, input, output }, |all| {
            for (place, job) in all.iter().enumerate() {
                // SAFETY: inputs are only read; the output is this rank's own and as long as all inputs.
                unsafe { output.fill_from(place * input.len, &job.input) };
            }
        })
    }

    fn broadcast(&self, tensor: &mut Tensor, root: usize) -> Result<(), GpuError> {
        if root >= self.seat.size {
            return Err(GpuError::Layout { problem: format!("place {root} in a group of {}", self.seat.size) });
        }
        let mine = Window::of(tensor)?;
        let job = Job { operation: Operation::Broadcast { root }, input: mine, output: mine };
        self.perform(&job, |all| {
            if root != self.seat.place {
                // SAFETY: the root's tensor is only read, and this rank's is its own.
                unsafe { mine.fill_from(0, &all[root].input) };
            }
        })
    }
}

/// Reduces elements `share` of all inputs in rank order and hands each finished block to `done` with its place.
fn reduce(jobs: &[&Job], share: Range<usize>, reduction: Reduction, mut done: impl FnMut(Range<usize>, &[f32])) {
    let mut block = [0.0_f32; BLOCK];
    let mut from = share.start;
    while from < share.end {
        let range = from..share.end.min(from + BLOCK);
        let block = &mut block[..range.len()];
        for (index, job) in jobs.iter().enumerate() {
            // SAFETY: the range lies inside every window; inside it, no rank but this one writes before the exchange
            // ends, and owners keep the memory alive until then.
            unsafe { fold(block, &job.input, range.clone(), (index > 0).then_some(reduction)) };
        }
        done(range.clone(), block);
        from = range.end;
    }
}

/// Puts elements `range` of a window into `block`, over what is there or reduced with it.
///
/// # Safety
/// As [`Window::f32`] and [`Window::bf16`], whichever it is.
unsafe fn fold(block: &mut [f32], window: &Window, range: Range<usize>, reduction: Option<Reduction>) {
    match window.element {
        Element::F32 => {
            // SAFETY: as the caller promises.
            let part = unsafe { window.f32(range) };
            match reduction {
                None => block.copy_from_slice(part),
                Some(Reduction::Sum) => lanes::add(block, part),
                Some(Reduction::Max) => lanes::max(block, part),
            }
        }
        Element::Bf16 => {
            // SAFETY: as the caller promises.
            let part = unsafe { window.bf16(range) };
            match reduction {
                None => lanes::widen(block, part),
                Some(Reduction::Sum) => lanes::add_widened(block, part),
                Some(Reduction::Max) => lanes::max_widened(block, part),
            }
        }
    }
}

/// Writes `block` to elements `range` of a window, rounded to its element type.
///
/// # Safety
/// As [`Window::f32_mut`] and [`Window::bf16_mut`], whichever it is.
unsafe fn write(window: &Window, range: Range<usize>, block: &[f32]) {
    match window.element {
        // SAFETY: as the caller promises.
        Element::F32 => unsafe { window.f32_mut(range) }.copy_from_slice(block),
        // SAFETY: as the caller promises.
        Element::Bf16 => lanes::narrow(unsafe { window.bf16_mut(range) }, block),
    }
}
