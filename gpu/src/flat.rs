//! A rank's flat buffers: the f32 elements of all its pieces, one after another, in the host's memory or a device's.

use std::borrow::Cow;

use tch::{Device, Tensor};

use crate::GpuError;
use crate::layout::Place;
use crate::mesh::{Element, Window};

/// One flat buffer: master weights, momentum, looked-ahead weights or a gradient.
#[derive(Debug)]
pub(crate) enum Flat {
    /// For ranks on the CPU, and for state that is kept off the device.
    Host(Vec<f32>),
    /// Contiguous f32 of one dimension, on the rank's device.
    Device(Tensor),
}

impl Flat {
    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.view().len()
    }

    /// The elements in the host's memory, copied there if they are on a device.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn to_host(&self) -> Result<Cow<'_, [f32]>, GpuError> {
        match self {
            Self::Host(elements) => Ok(Cow::Borrowed(elements)),
            Self::Device(tensor) => {
                let mut elements = vec![0.0; tensor.numel()];
                let len = elements.len();
                tensor.f_to_device(Device::Cpu)?.f_copy_data(&mut elements, len)?;
                Ok(Cow::Owned(elements))
            }
        }
    }

    /// To lend it.
    pub(crate) fn view(&self) -> FlatRef<'_> {
        match self {
            Self::Host(elements) => FlatRef::Host(elements),
            Self::Device(tensor) => FlatRef::Device(tensor),
        }
    }

    /// To fill it.
    pub(crate) fn view_mut(&mut self) -> FlatMut<'_> {
        match self {
            Self::Host(elements) => FlatMut::Host(elements),
            Self::Device(tensor) => FlatMut::Device(tensor),
        }
    }
}

/// A flat buffer to read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FlatRef<'a> {
    Host(&'a [f32]),
    Device(&'a Tensor),
}

impl FlatRef<'_> {
    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Host(elements) => elements.len(),
            Self::Device(tensor) => tensor.numel(),
        }
    }

    /// What other ranks see of it during an exchange.
    pub(crate) fn lent(&self) -> Lent {
        match self {
            Self::Host(elements) => Lent::Host(Window::of_slice(elements)),
            Self::Device(tensor) => Lent::Device(tensor.shallow_clone()),
        }
    }
}

impl<'a> From<&'a Vec<f32>> for FlatRef<'a> {
    fn from(elements: &'a Vec<f32>) -> Self {
        Self::Host(elements)
    }
}

/// A flat buffer to write.
#[derive(Debug)]
pub(crate) enum FlatMut<'a> {
    Host(&'a mut [f32]),
    Device(&'a mut Tensor),
}

impl<'a> From<&'a mut Vec<f32>> for FlatMut<'a> {
    fn from(elements: &'a mut Vec<f32>) -> Self {
        Self::Host(elements)
    }
}

/// Memory that a rank lends to the others for one exchange: the host's, or a device's that they reach through torch.
pub(crate) enum Lent {
    Host(Window),
    Device(Tensor),
}

// SAFETY: other ranks only make views of the tensor (libtorch counts its references atomically) and read through them;
// its owner waits meanwhile. On a CUDA device torch enqueues these reads on the owner's default stream, after what the
// owner has enqueued there before the exchange and before what it enqueues afterwards.
unsafe impl Sync for Lent {}

impl Lent {
    /// Lends a contiguous tensor wherever it is.
    ///
    /// # Errors
    /// Element types that are not known, and tensors with holes.
    pub(crate) fn of(tensor: &Tensor) -> Result<Self, GpuError> {
        match tensor.device() {
            Device::Cpu => Ok(Self::Host(Window::of(tensor)?)),
            _ => {
                Element::of(tensor)?;
                Ok(Self::Device(tensor.f_detach()?))
            }
        }
    }

    /// A rectangle of the row-major elements as a tensor that shares their memory.
    ///
    /// # Shapes
    /// The result: `[rows, columns]`.
    ///
    /// # Errors
    /// libtorch's.
    ///
    /// # Safety
    /// The rectangle lies inside, and the result is dropped before the exchange ends.
    pub(crate) unsafe fn rectangle(&self, place: Place, rows: usize, columns: usize) -> Result<Tensor, GpuError> {
        let (size, strides) = ([rows as i64, columns as i64], [place.stride as i64, 1]);
        match self {
            // SAFETY: as the caller promises.
            Self::Host(window) => unsafe { window.rectangle(place.start, size, strides) },
            Self::Device(tensor) => {
                let reach = (rows - 1) * place.stride + columns;
                let row_major = tensor.f_view([-1])?.f_narrow(0, place.start as i64, reach as i64)?;
                Ok(row_major.f_as_strided(size, strides, None)?)
            }
        }
    }
}
