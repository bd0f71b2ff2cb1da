//! Large chunks of a part, one after another: what is kept of them, and what leaves them.

use super::ParameterLayout;
use super::compress::{Intake, Kept, KeptMut};
use super::select::TopK;
use super::wave::{Entry, LargeTransform, inverse_rows};

/// Keeps the top-k coefficients of whole chunk rows.
pub(super) fn compress(parameter: &ParameterLayout, transform: &LargeTransform, rows: &[f32], kept: KeptMut<'_>) {
    let (geometry, k) = (parameter.geometry(), parameter.k());
    let (mut scratch, mut top) = (transform.scratch(), TopK::default());
    let places = kept.0.chunks_exact_mut(k).zip(kept.1.chunks_exact_mut(k));
    for (chunk, (indices, values)) in places.enumerate() {
        let coefficients = transform.forward(&rows[geometry.corner(chunk)..], geometry.width(), &mut scratch);
        indices.copy_from_slice(top.select(coefficients, k));
        values.iter_mut().zip(indices).for_each(|(value, &mut index)| *value = coefficients[index as usize]);
    }
}

/// Subtracts what was sent from whole chunk rows.
pub(super) fn subtract(parameter: &ParameterLayout, transform: &LargeTransform, sent: Kept<'_>, rows: &mut [f32]) {
    let (geometry, k) = (parameter.geometry(), parameter.k());
    let (w, stride) = (geometry.chunk_width(), geometry.width());
    let mut entries: Vec<Entry> = Vec::new();
    for (chunk, (indices, values)) in sent.0.chunks_exact(k).zip(sent.1.chunks_exact(k)).enumerate() {
        entries.clear();
        let entry = |(&index, &value): (&u32, &f32)| (index as usize % w, index as usize / w, f64::from(value));
        entries.extend(indices.iter().zip(values).map(entry));
        // Indices ascend by row, and a stable sort keeps them so.
        entries.sort_by_key(|entry| entry.0);
        let corner = geometry.corner(chunk);
        inverse_rows(
            transform.real(),
            &entries,
            |sum| sum,
            |i, sums| {
                let row = &mut rows[corner + i * stride..][..w];
                row.iter_mut().zip(sums).for_each(|(element, &sent)| *element -= sent as f32);
            },
        );
    }
}

/// The momentum takes in the gradient.
pub(super) fn take_in(rows: &mut [f32], Intake { gradient, decay, rate }: Intake<'_>) {
    for (momentum, gradient) in rows.iter_mut().zip(gradient) {
        *momentum = decay * *momentum + rate * gradient;
    }
}
