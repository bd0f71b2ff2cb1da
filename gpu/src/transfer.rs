//! How weights get from their owners to the ranks that compute with them, and gradients back.
//!
//! Each transfer is one exchange of the whole mesh: ranks lend what they have and take, rectangle by rectangle, what
//! they need. Every element crosses from its owner to each replica once, and each replica's gradient to its owner once,
//! which is what an all-gather and a reduce-scatter move at the least.
//!
//! Between CUDA devices a rectangle is one copy by torch, device to device where the driver allows it: ranks are threads
//! of one process, so that NCCL, which knows equal contiguous parts only, would need packing and save nothing. Element
//! types are converted on the way; bf16 copies cross as bf16.

use std::ops::Range;

use tch::Tensor;

use crate::GpuError;
use crate::flat::{FlatMut, FlatRef, Lent};
use crate::layout::{NodeLayout, Overlap, Place};
use crate::mesh::{Element, MeshRank, Window, lanes};

#[cfg(test)]
mod tests;

/// Fills this rank's compute copies from `owned`, which every rank lends: one flat buffer of its pieces.
///
/// # Shapes
/// `compute`: by parameter, this rank's shard of it, contiguous f32, or bf16 to be rounded to.
///
/// # Errors
/// A broken mesh; libtorch's.
pub(crate) fn spread(mesh: &MeshRank, layout: &NodeLayout, owned: FlatRef<'_>, compute: &[Tensor]) -> Result<(), GpuError> {
    let copies = compute.iter().map(Lent::of).collect::<Result<Vec<_>, _>>()?;
    mesh.exchange(&owned.lent(), |all| {
        for (rank, from) in all.iter().enumerate() {
            for piece in layout.pieces(rank) {
                let Some(overlap) = layout.overlap(piece, mesh.tensor_index()) else { continue };
                copy(&copies[piece.part.parameter()], from, &overlap)?;
            }
        }
        Ok(())
    })?
}

/// Copies a rectangle of a lent piece into one of this rank's compute copies.
fn copy(to: &Lent, from: &Lent, overlap: &Overlap) -> Result<(), GpuError> {
    let &Overlap { rows, columns, in_piece, in_shard } = overlap;
    match (to, from) {
        (Lent::Host(to), Lent::Host(from)) => {
            for row in 0..rows {
                // SAFETY: `overlap` lies inside both. The compute copy is a live tensor of this rank, which nobody else
                // uses: it is not lent, and no autograd graph over it exists between two steps. What is lent stays
                // alive and unchanged until the exchange ends.
                unsafe { copy_row(to, line(in_shard, row, columns), from.f32(line(in_piece, row, columns))) };
            }
            Ok(())
        }
        _ => tch::no_grad(|| {
            // SAFETY: as above, and both views are dropped here.
            let (mut to, from) = unsafe { (to.rectangle(in_shard, rows, columns)?, from.rectangle(in_piece, rows, columns)?) };
            Ok(to.f_copy_(&from)?)
        }),
    }
}

/// # Safety
/// The range lies inside the window, whose memory is this rank's own.
unsafe fn copy_row(to: &Window, range: Range<usize>, from: &[f32]) {
    match to.element() {
        // SAFETY: as the caller promises.
        Element::F32 => unsafe { to.f32_mut(range) }.copy_from_slice(from),
        // SAFETY: as the caller promises.
        Element::Bf16 => lanes::narrow(unsafe { to.bf16_mut(range) }, from),
    }
}

/// Adds up every replica's gradients, in the order of the replicas, for the pieces that this rank owns.
///
/// # Shapes
/// `gradients`: by parameter, contiguous f32 of this rank's shard, or none where it had no sample; `owned`: the rank's
/// flat buffer, overwritten.
///
/// # Errors
/// A broken mesh; libtorch's.
pub(crate) fn collect(
    mesh: &MeshRank,
    layout: &NodeLayout,
    gradients: &[Option<Tensor>],
    mut owned: FlatMut<'_>,
) -> Result<(), GpuError> {
    let lent = gradients.iter().map(|gradient| gradient.as_ref().map(lend_gradient).transpose());
    let lent = lent.collect::<Result<Vec<_>, _>>()?;
    mesh.exchange(&lent, |all| {
        for piece in layout.pieces(mesh.rank()) {
            let parameter = piece.part.parameter();
            for tensor_index in layout.gradient_sources(parameter) {
                let Some(overlap) = layout.overlap(piece, tensor_index) else { continue };
                let replicas = all.iter().skip(tensor_index).step_by(layout.topology.tensor_parallel());
                let replicas = replicas.filter_map(|lent| lent[parameter].as_ref());
                match &mut owned {
                    FlatMut::Host(owned) => add_up_on_host(owned, replicas, &overlap)?,
                    FlatMut::Device(owned) => add_up_on_device(owned, replicas, &overlap)?,
                }
            }
        }
        Ok(())
    })?
}

fn lend_gradient(gradient: &Tensor) -> Result<Lent, GpuError> {
    match Element::of(gradient)? {
        Element::F32 => Lent::of(gradient),
        Element::Bf16 => Err(GpuError::Layout { problem: "sums of gradients are f32, this one is bf16".to_owned() }),
    }
}

fn add_up_on_host<'a>(owned: &mut [f32], replicas: impl Iterator<Item = &'a Lent>, overlap: &Overlap) -> Result<(), GpuError> {
    let &Overlap { rows, columns, in_piece, in_shard } = overlap;
    let mut first = true;
    for replica in replicas {
        let copied;
        let (window, place) = match replica {
            Lent::Host(window) => (*window, in_shard),
            Lent::Device(_) => {
                // SAFETY: the rectangle lies inside the shard; the view is dropped within this statement.
                copied = tch::no_grad(|| unsafe { replica.rectangle(in_shard, rows, columns) })?
                    .f_contiguous()?
                    .f_to_device(tch::Device::Cpu)?;
                (Window::of(&copied)?, Place { start: 0, stride: columns })
            }
        };
        for row in 0..rows {
            // SAFETY: the rectangle lies inside the window. Its owner keeps the gradient alive and unchanged until the
            // exchange ends, and every rank only reads what is lent here.
            let from = unsafe { window.f32(line(place, row, columns)) };
            let to = &mut owned[line(in_piece, row, columns)];
            if first { to.copy_from_slice(from) } else { lanes::add(to, from) }
        }
        first = false;
    }
    if first {
        (0..rows).for_each(|row| owned[line(in_piece, row, columns)].fill(0.0));
    }
    Ok(())
}

fn add_up_on_device<'a>(owned: &Tensor, replicas: impl Iterator<Item = &'a Lent>, overlap: &Overlap) -> Result<(), GpuError> {
    let &Overlap { rows, columns, in_piece, in_shard } = overlap;
    let device = owned.device();
    let owned = Lent::Device(owned.shallow_clone());
    // SAFETY: both rectangles lie inside their buffers; all views are dropped before the exchange ends.
    let mut to = unsafe { owned.rectangle(in_piece, rows, columns)? };
    let mut first = true;
    tch::no_grad(|| {
        for replica in replicas {
            // SAFETY: as above.
            let from = unsafe { replica.rectangle(in_shard, rows, columns)? };
            if std::mem::take(&mut first) {
                to.f_copy_(&from)?;
            } else {
                drop(to.f_add_(&from.f_to_device(device)?)?);
            }
        }
        if first {
            drop(to.f_zero_()?);
        }
        Ok(())
    })
}

/// Elements of one row of a rectangle inside the buffer in which it lies.
fn line(place: Place, row: usize, columns: usize) -> Range<usize> {
    let start = place.start + row * place.stride;
    start..start + columns
}
