//! The payload: one training result as bytes.
//!
//! # Format
//! One format byte (1: one-bit, 2: bf16), then the parameters in layout order, each as its blocks. A block is a bit
//! stream, least significant bit first, padded with zeros to whole bytes; it holds its chunks one after another. A chunk
//! is the code of its index set (see the `subset` module: a length fixed by chunk length and k), then `k` values in the
//! order of ascending indices: one sign bit each (1: −1), or a bf16.
//!
//! The length is fixed by the layout and each selection has exactly one payload; all else is refused.

use super::bits::{BitReader, BitWriter};
use super::compress::check_selection;
use super::subset::AT_ONCE;
use super::{CodecError, Layout, ParameterLayout, Part, Quantization, Selection};

const BF16_LARGEST: u16 = 0x7f7f;
const BF16_INFINITY: u16 = 0x7f80;
const BF16_SIGN: u16 = 0x8000;

impl Layout {
    /// Encodes one part: the bytes at [`Part::bytes`] of the payload.
    ///
    /// # Errors
    /// A selection that is not the part's, unordered indices, a value that is not finite.
    pub fn encode_part(&self, part: &Part, selection: &Selection) -> Result<Vec<u8>, CodecError> {
        let parameter = self.known(part)?;
        check_selection(parameter, part, selection)?;
        let k = parameter.k();
        if let Some(at) = selection.values.iter().position(|value| !value.is_finite()) {
            return Err(CodecError::NotFinite { chunk: at / k });
        }
        let mut bytes = Vec::with_capacity(part.bytes().len());
        let per_block = parameter.block_chunks() * k;
        for (indices, values) in selection.indices.chunks(per_block).zip(selection.values.chunks(per_block)) {
            let mut out = BitWriter::new(&mut bytes);
            for (indices, values) in indices.chunks_exact(k).zip(values.chunks_exact(k)) {
                parameter.code.write(indices, &mut out);
                for &value in values {
                    match self.quantization() {
                        Quantization::OneBit => out.push(u64::from(value < 0.0), 1),
                        Quantization::Bf16 => out.push(u64::from(to_bf16(value)), 16),
                    }
                }
            }
            out.finish();
        }
        Ok(bytes)
    }

    /// Joins encoded parts, in any order, to a payload.
    ///
    /// # Errors
    /// Parts that leave a gap or overlap, bytes of another length than the part's.
    pub fn assemble<B: AsRef<[u8]>>(&self, parts: &[(Part, B)]) -> Result<Vec<u8>, CodecError> {
        let mut order: Vec<&(Part, B)> = parts.iter().collect();
        order.sort_by_key(|(part, _)| part.bytes().start);
        let mut payload = Vec::with_capacity(self.payload_len());
        payload.push(self.quantization().format_byte());
        for (part, bytes) in order {
            self.known(part)?;
            let (range, bytes) = (part.bytes(), bytes.as_ref());
            if range.start != payload.len() {
                return Err(CodecError::Coverage { offset: payload.len().min(range.start) });
            }
            if bytes.len() != range.len() {
                return Err(CodecError::BufferLength { unit: "bytes", expected: range.len(), actual: bytes.len() });
            }
            payload.extend_from_slice(bytes);
        }
        if payload.len() != self.payload_len() {
            return Err(CodecError::Coverage { offset: payload.len() });
        }
        Ok(payload)
    }

    /// Checks a peer's bytes: length, format, every index set, every value, every padding bit.
    ///
    /// # Errors
    /// The first thing that an honest encoder would not have written.
    pub fn validate<'a>(&'a self, bytes: &'a [u8]) -> Result<ValidPayload<'a>, CodecError> {
        if bytes.len() != self.payload_len() {
            return Err(CodecError::PayloadLength { expected: self.payload_len(), actual: bytes.len() });
        }
        let expected = self.quantization().format_byte();
        match bytes.first() {
            Some(&actual) if actual == expected => {}
            first => return Err(CodecError::PayloadFormat { expected, actual: first.copied().unwrap_or(0) }),
        }
        let payload = ValidPayload { layout: self, bytes };
        for index in 0..self.parameters().len() {
            payload.check_parameter(index)?;
        }
        Ok(payload)
    }
}

/// A payload that [`Layout::validate`] accepted; decoding it can't fail.
#[derive(Debug, Clone, Copy)]
pub struct ValidPayload<'a> {
    layout: &'a Layout,
    bytes: &'a [u8],
}

impl ValidPayload<'_> {
    /// The selection of one part; with one-bit payloads its values are +1 and −1.
    ///
    /// # Errors
    /// A part of another layout.
    pub fn decode(&self, part: &Part) -> Result<Selection, CodecError> {
        let mut selection = Selection::default();
        self.decode_into(part, &mut selection)?;
        Ok(selection)
    }

    /// [`Self::decode`] into a selection whose memory is used again.
    pub(crate) fn decode_into(&self, part: &Part, selection: &mut Selection) -> Result<(), CodecError> {
        let parameter = self.layout.known(part)?;
        let k = parameter.k();
        selection.indices.resize(part.chunks().len() * k, 0);
        selection.values.resize(part.chunks().len() * k, 0.0);
        let places = selection.indices.chunks_mut(AT_ONCE * k).zip(selection.values.chunks_mut(AT_ONCE * k));
        for (first, (indices, values)) in part.chunks().step_by(AT_ONCE).zip(places) {
            let mut bits = std::array::from_fn::<_, AT_ONCE, _>(|chunk| self.chunk_bits(parameter, first + chunk));
            let bits = &mut bits[..values.len() / k];
            parameter.code.read_several(bits, indices);
            for (bits, values) in bits.iter_mut().zip(values.chunks_exact_mut(k)) {
                match self.layout.quantization() {
                    Quantization::OneBit => take_signs(bits, values),
                    Quantization::Bf16 => values.iter_mut().for_each(|value| *value = take_bf16(bits).unwrap_or(0.0)),
                }
            }
        }
        Ok(())
    }

    fn check_parameter(&self, index: usize) -> Result<(), CodecError> {
        let Ok(part) = self.layout.whole(index) else { return Ok(()) };
        let Some(parameter) = self.layout.parameters().get(index) else { return Ok(()) };
        let mut indices = vec![0; parameter.k()];
        let per_block = parameter.block_chunks();
        let last = part.chunks().end - 1;
        for chunk in part.chunks() {
            let mut bits = self.chunk_bits(parameter, chunk);
            if !parameter.code.check(&mut bits, &mut indices) {
                return Err(CodecError::PayloadIndices { parameter: index, chunk });
            }
            match self.layout.quantization() {
                // Any bit is a sign.
                Quantization::OneBit => bits.skip(parameter.k()),
                Quantization::Bf16 => {
                    if (0..parameter.k()).any(|_| take_bf16(&mut bits).is_none()) {
                        return Err(CodecError::PayloadValue { parameter: index, chunk });
                    }
                }
            }
            let chunks_in_block = chunk % per_block + 1;
            if chunks_in_block == per_block || chunk == last {
                let used = chunks_in_block * parameter.chunk_bits();
                if bits.take((used.next_multiple_of(8) - used) as u32) != 0 {
                    return Err(CodecError::PayloadPadding { parameter: index, block: chunk / per_block });
                }
            }
        }
        Ok(())
    }

    /// Positioned at the code of one chunk; at the parameter's end for one that is beyond it.
    fn chunk_bits(&self, parameter: &ParameterLayout, chunk: usize) -> BitReader<'_> {
        let (block, within) = (chunk / parameter.block_chunks(), chunk % parameter.block_chunks());
        let start = parameter.payload().start + block * parameter.block_bytes();
        let end = parameter.payload().end;
        BitReader::at(&self.bytes[start.min(end)..end], within * parameter.chunk_bits())
    }
}

/// Signs of one-bit payloads.
fn take_signs(bits: &mut BitReader<'_>, values: &mut [f32]) {
    for values in values.chunks_mut(64) {
        let mut signs = bits.take(values.len() as u32);
        for value in values {
            *value = if signs & 1 == 1 { -1.0 } else { 1.0 };
            signs >>= 1;
        }
    }
}

/// One value; none where its bits are not canonical.
fn take_bf16(bits: &mut BitReader<'_>) -> Option<f32> {
    let value = bits.take(16) as u16;
    let finite = value & !BF16_SIGN < BF16_INFINITY;
    (finite && value != BF16_SIGN).then(|| f32::from_bits(u32::from(value) << 16))
}

/// Nearest bf16, ties to even, clamped to finite values; −0 becomes +0.
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    match rounded & !BF16_SIGN {
        0 => 0,
        BF16_INFINITY => BF16_LARGEST | rounded & BF16_SIGN,
        _ => rounded,
    }
}
