//! Where a rank's optimiser state lies, and what computes on it there.
//!
//! The step itself is written once, in [`Optimizer`](super::Optimizer), over [`Store`]. Every store gives the same
//! momentum, index sets, weights and digests, to the bit.

use std::borrow::Cow;
use std::path::PathBuf;

use tch::{Device, Kind, Tensor};

use crate::GpuError;
use crate::codec::{self, Layout, Part, Selection, Threads, ValidPayload};
use crate::cuda::{self, DeviceSelection, Kernels};
use crate::digest::{self, BlockDigest};
use crate::exact::apply_payloads;
use crate::flat::Flat;
use crate::layout::Piece;

/// Elements that are added up at a time on a device, which bounds the memory for their f64 copies.
const SUMMED_AT_A_TIME: i64 = 1 << 22;

/// What was sent of one piece, until it leaves the momentum: where the store can use it.
#[derive(Debug)]
pub(crate) enum Sent {
    /// In the host's memory.
    Host(Selection),
    /// On a CUDA device.
    Device(DeviceSelection),
}

impl Sent {
    /// In the host's memory.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn fetch(&self) -> Result<Cow<'_, Selection>, GpuError> {
        match self {
            Self::Host(selection) => Ok(Cow::Borrowed(selection)),
            Self::Device(selection) => Ok(Cow::Owned(selection.fetch()?)),
        }
    }
}

/// How a gradient enters the momentum: `momentum = decay · momentum + rate · gradient`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Intake<'a> {
    /// The rank's flat buffer of it.
    pub(crate) gradient: &'a Flat,
    /// Share of the momentum that survives.
    pub(crate) decay: f32,
    /// Factor of the gradient.
    pub(crate) rate: f32,
}

/// The arithmetic of the optimiser on flat buffers that [`Store::keep`] made.
pub(crate) trait Store: Send {
    /// A flat buffer of these elements.
    ///
    /// # Errors
    /// Too little memory on the device.
    fn keep(&self, elements: Vec<f32>) -> Result<Flat, GpuError>;

    /// `ahead = master − rate · sign(momentum)`.
    ///
    /// # Errors
    /// libtorch's.
    fn look_ahead(&self, master: &Flat, momentum: &Flat, rate: f32, ahead: &mut Flat) -> Result<(), GpuError>;

    /// Sum of the squares, in f64.
    ///
    /// # Errors
    /// libtorch's.
    fn square_sum(&self, flat: &Flat) -> Result<f64, GpuError>;

    /// Brings a piece's momentum up to date and chooses what is sent: first what was `sent` leaves it, then the gradient
    /// comes in.
    ///
    /// # Errors
    /// libtorch's; for finite input none of the codec's.
    fn compress(
        &mut self,
        layout: &Layout,
        piece: &Piece,
        momentum: &mut Flat,
        intake: Intake<'_>,
        sent: Option<Sent>,
    ) -> Result<Sent, GpuError>;

    /// What an earlier process sent of a piece, where the store can use it.
    ///
    /// # Errors
    /// libtorch's.
    fn put(&self, layout: &Layout, part: &Part, selection: Selection) -> Result<Sent, GpuError>;

    /// Multiplies a piece of the weights by a factor, then applies validated results exactly.
    ///
    /// `rates` are the learning rate and that factor, which is 1 without weight decay.
    ///
    /// # Errors
    /// Payloads of another layout; libtorch's.
    fn apply(
        &mut self,
        layout: &Layout,
        piece: &Piece,
        payloads: &[ValidPayload<'_>],
        master: &mut Flat,
        rates: (f32, f32),
    ) -> Result<(), GpuError>;

    /// The digests of a piece's blocks.
    ///
    /// # Errors
    /// libtorch's.
    fn block_digests(&self, layout: &Layout, piece: &Piece, master: &Flat) -> Result<Vec<BlockDigest>, GpuError>;
}

/// The store for the state of a rank on `device`.
pub(crate) fn store_of(device: Device, threads: Threads) -> Box<dyn Store> {
    let tensors = TensorStore { device, host: HostStore { threads } };
    match device {
        Device::Cpu => Box::new(tensors.host),
        Device::Cuda(_) => match Kernels::load(device, kernel_cache().as_deref()) {
            Ok(kernels) => Box::new(KernelStore { kernels, tensors }),
            Err(error) => {
                tracing::warn!(?device, %error, "no kernels for this device, its optimiser works on the processor");
                Box::new(tensors)
            }
        },
        _ => Box::new(tensors),
    }
}

/// Where compiled kernels are kept between starts: in the user's own cache folder, if there is one.
fn kernel_cache() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(cache.join("psyche-solana-client").join("kernels"))
}

/// Slices in the host's memory.
pub(crate) struct HostStore {
    pub(crate) threads: Threads,
}

impl HostStore {
    fn compress_rows(
        &self,
        layout: &Layout,
        part: &Part,
        momentum: &mut [f32],
        (gradient, decay, rate): (&[f32], f32, f32),
        sent: Option<Sent>,
    ) -> Result<Sent, GpuError> {
        let sent = sent.as_ref().map(Sent::fetch).transpose()?;
        let intake = codec::Intake { gradient, decay, rate };
        Ok(Sent::Host(layout.advance(part, momentum, intake, sent.as_deref(), self.threads)?))
    }

    fn apply_to_rows(
        &self,
        layout: &Layout,
        part: &Part,
        payloads: &[ValidPayload<'_>],
        rows: &mut [f32],
        (lr, factor): (f32, f32),
    ) -> Result<(), GpuError> {
        if factor != 1.0 {
            rows.iter_mut().for_each(|weight| *weight *= factor);
        }
        Ok(apply_payloads(layout, part, payloads, rows, lr, self.threads)?)
    }
}

impl Store for HostStore {
    fn keep(&self, elements: Vec<f32>) -> Result<Flat, GpuError> {
        Ok(Flat::Host(elements))
    }

    fn look_ahead(&self, master: &Flat, momentum: &Flat, rate: f32, ahead: &mut Flat) -> Result<(), GpuError> {
        let pairs = on_host(master)?.iter().zip(on_host(momentum)?);
        for (ahead, (&weight, &momentum)) in on_host_mut(ahead)?.iter_mut().zip(pairs) {
            // Without branches, so that it is vectorised; momentum is never NaN.
            let sign = f32::from(i8::from(momentum > 0.0) - i8::from(momentum < 0.0));
            *ahead = weight - rate * sign;
        }
        Ok(())
    }

    fn square_sum(&self, flat: &Flat) -> Result<f64, GpuError> {
        Ok(on_host(flat)?.iter().map(|&x| f64::from(x) * f64::from(x)).sum())
    }

    fn compress(
        &mut self,
        layout: &Layout,
        piece: &Piece,
        momentum: &mut Flat,
        Intake { gradient, decay, rate }: Intake<'_>,
        sent: Option<Sent>,
    ) -> Result<Sent, GpuError> {
        let gradient = &on_host(gradient)?[piece.at.clone()];
        let rows = &mut on_host_mut(momentum)?[piece.at.clone()];
        self.compress_rows(layout, &piece.part, rows, (gradient, decay, rate), sent)
    }

    fn put(&self, _: &Layout, _: &Part, selection: Selection) -> Result<Sent, GpuError> {
        Ok(Sent::Host(selection))
    }

    fn apply(
        &mut self,
        layout: &Layout,
        piece: &Piece,
        payloads: &[ValidPayload<'_>],
        master: &mut Flat,
        rates: (f32, f32),
    ) -> Result<(), GpuError> {
        self.apply_to_rows(layout, &piece.part, payloads, &mut on_host_mut(master)?[piece.at.clone()], rates)
    }

    fn block_digests(&self, layout: &Layout, piece: &Piece, master: &Flat) -> Result<Vec<BlockDigest>, GpuError> {
        Ok(digest::block_digests(layout, &piece.part, &on_host(master)?[piece.at.clone()], self.threads)?)
    }
}

/// Tensors on a device. What libtorch does there as fast as anybody stays there; the codec's part of the work visits the
/// host, piece by piece.
pub(crate) struct TensorStore {
    pub(crate) device: Device,
    pub(crate) host: HostStore,
}

impl Store for TensorStore {
    fn keep(&self, elements: Vec<f32>) -> Result<Flat, GpuError> {
        Ok(Flat::Device(Tensor::f_from_slice(&elements)?.f_to_device(self.device)?))
    }

    fn look_ahead(&self, master: &Flat, momentum: &Flat, rate: f32, ahead: &mut Flat) -> Result<(), GpuError> {
        tensor_look_ahead(on_device(master)?, on_device(momentum)?, rate, on_device(ahead)?)
    }

    fn square_sum(&self, flat: &Flat) -> Result<f64, GpuError> {
        tensor_square_sum(on_device(flat)?)
    }

    fn compress(
        &mut self,
        layout: &Layout,
        piece: &Piece,
        momentum: &mut Flat,
        Intake { gradient, decay, rate }: Intake<'_>,
        sent: Option<Sent>,
    ) -> Result<Sent, GpuError> {
        let gradient = fetch_rows(&rows_of(on_device(gradient)?, piece)?)?;
        let place = rows_of(on_device(momentum)?, piece)?;
        let mut rows = fetch_rows(&place)?;
        let sent = self.host.compress_rows(layout, &piece.part, &mut rows, (&gradient, decay, rate), sent)?;
        put_rows(place, &rows)?;
        Ok(sent)
    }

    fn put(&self, layout: &Layout, part: &Part, selection: Selection) -> Result<Sent, GpuError> {
        self.host.put(layout, part, selection)
    }

    fn apply(
        &mut self,
        layout: &Layout,
        piece: &Piece,
        payloads: &[ValidPayload<'_>],
        master: &mut Flat,
        rates: (f32, f32),
    ) -> Result<(), GpuError> {
        let place = rows_of(on_device(master)?, piece)?;
        let mut rows = fetch_rows(&place)?;
        self.host.apply_to_rows(layout, &piece.part, payloads, &mut rows, rates)?;
        put_rows(place, &rows)
    }

    fn block_digests(&self, layout: &Layout, piece: &Piece, master: &Flat) -> Result<Vec<BlockDigest>, GpuError> {
        let rows = fetch_rows(&rows_of(on_device(master)?, piece)?)?;
        Ok(digest::block_digests(layout, &piece.part, &rows, self.host.threads)?)
    }
}

/// Tensors on a CUDA device, where kernels do all of it but for parameters with large chunks, with which
/// [`TensorStore`] deals; payloads and votes are made on the host.
pub(crate) struct KernelStore {
    pub(crate) kernels: Kernels,
    pub(crate) tensors: TensorStore,
}

impl Store for KernelStore {
    fn keep(&self, elements: Vec<f32>) -> Result<Flat, GpuError> {
        self.tensors.keep(elements)
    }

    fn look_ahead(&self, master: &Flat, momentum: &Flat, rate: f32, ahead: &mut Flat) -> Result<(), GpuError> {
        self.kernels.look_ahead(on_device(master)?, on_device(momentum)?, rate, on_device(ahead)?)
    }

    fn square_sum(&self, flat: &Flat) -> Result<f64, GpuError> {
        self.tensors.square_sum(flat)
    }

    fn compress(
        &mut self,
        layout: &Layout,
        piece: &Piece,
        momentum: &mut Flat,
        intake: Intake<'_>,
        sent: Option<Sent>,
    ) -> Result<Sent, GpuError> {
        if !Kernels::take(layout, &piece.part) {
            return self.tensors.compress(layout, piece, momentum, intake, sent);
        }
        let Intake { gradient, decay, rate } = intake;
        let sent = sent.map(|sent| match sent {
            Sent::Device(selection) => Ok(selection),
            Sent::Host(selection) => self.kernels.put_selection(layout, &piece.part, &selection),
        });
        let gradient = rows_of(on_device(gradient)?, piece)?;
        let intake = cuda::Intake { gradient: &gradient, decay, rate };
        let momentum = rows_of(on_device(momentum)?, piece)?;
        let sent = sent.transpose()?;
        Ok(Sent::Device(self.kernels.compress(layout, &piece.part, &momentum, Some(intake), sent.as_ref())?))
    }

    fn put(&self, layout: &Layout, part: &Part, selection: Selection) -> Result<Sent, GpuError> {
        if !Kernels::take(layout, part) {
            return self.tensors.put(layout, part, selection);
        }
        Ok(Sent::Device(self.kernels.put_selection(layout, part, &selection)?))
    }

    fn apply(
        &mut self,
        layout: &Layout,
        piece: &Piece,
        payloads: &[ValidPayload<'_>],
        master: &mut Flat,
        rates: (f32, f32),
    ) -> Result<(), GpuError> {
        if !Kernels::take(layout, &piece.part) {
            return self.tensors.apply(layout, piece, payloads, master, rates);
        }
        let (rows, threads) = (rows_of(on_device(master)?, piece)?, self.tensors.host.threads);
        self.kernels.apply(layout, &piece.part, payloads, &rows, rates, threads)
    }

    fn block_digests(&self, layout: &Layout, piece: &Piece, master: &Flat) -> Result<Vec<BlockDigest>, GpuError> {
        self.kernels.block_digests(layout, &piece.part, &rows_of(on_device(master)?, piece)?)
    }
}

/// As [`Store::look_ahead`]; each of the three operations is exact or rounds as the host's one expression does.
fn tensor_look_ahead(master: &Tensor, momentum: &Tensor, rate: f32, ahead: &Tensor) -> Result<(), GpuError> {
    tch::no_grad(|| {
        let mut ahead = momentum.f_sign_out(ahead)?;
        let mut ahead = ahead.f_mul_scalar_(-f64::from(rate))?;
        let _ahead = ahead.f_add_(master)?;
        Ok(())
    })
}

fn tensor_square_sum(flat: &Tensor) -> Result<f64, GpuError> {
    let mut sum = Tensor::f_zeros([], (Kind::Double, flat.device()))?;
    for part in flat.f_split(SUMMED_AT_A_TIME, 0)? {
        let exact = part.f_to_kind(Kind::Double)?;
        sum = sum.f_add(&exact.f_dot(&exact)?)?;
    }
    Ok(sum.f_double_value(&[])?)
}

/// A piece's elements, sharing the memory of the flat buffer.
fn rows_of(flat: &Tensor, piece: &Piece) -> Result<Tensor, GpuError> {
    Ok(flat.f_narrow(0, piece.at.start as i64, piece.at.len() as i64)?)
}

fn fetch_rows(rows: &Tensor) -> Result<Vec<f32>, GpuError> {
    let mut elements = vec![0.0; rows.numel()];
    let len = elements.len();
    rows.f_to_device(Device::Cpu)?.f_copy_data(&mut elements, len)?;
    Ok(elements)
}

fn put_rows(mut place: Tensor, rows: &[f32]) -> Result<(), GpuError> {
    tch::no_grad(|| Ok(place.f_copy_(&Tensor::f_from_slice(rows)?)?))
}

fn on_host(flat: &Flat) -> Result<&[f32], GpuError> {
    match flat {
        Flat::Host(elements) => Ok(elements),
        Flat::Device(tensor) => Err(misplaced(tensor.device())),
    }
}

fn on_host_mut(flat: &mut Flat) -> Result<&mut [f32], GpuError> {
    match flat {
        Flat::Host(elements) => Ok(elements),
        Flat::Device(tensor) => Err(misplaced(tensor.device())),
    }
}

fn on_device(flat: &Flat) -> Result<&Tensor, GpuError> {
    match flat {
        Flat::Device(tensor) => Ok(tensor),
        Flat::Host(_) => Err(misplaced(Device::Cpu)),
    }
}

fn misplaced(device: Device) -> GpuError {
    GpuError::Device { device: format!("{device:?}"), problem: "a flat buffer lies in the memory of another store".to_owned() }
}
