//! What can be wrong with a layout's configuration, with what a caller passes in, and with a peer's payload.

/// Why a layout, an encoding or a payload was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The tensor has no dimension, or one of length 0.
    #[error("split a tensor of shape {shape:?} into chunks: empty shape")]
    EmptyShape {
        /// The shape that was refused.
        shape: Vec<usize>,
    },
    /// The chunk edge is 0 or above [`crate::codec::MAX_CHUNK`].
    #[error("use chunk edge {chunk}: must lie in 1..={max}")]
    ChunkEdge {
        /// The edge that was refused.
        chunk: usize,
        /// The largest edge allowed.
        max: usize,
    },
    /// No coefficient would ever be sent.
    #[error("use top-k of 0: at least one coefficient per chunk must be sent")]
    ZeroTopK,
    /// Two parameters share one name.
    #[error("lay out parameter {name}: the name occurs twice")]
    DuplicateParameter {
        /// The name.
        name: String,
    },
    /// The model does not fit the address space.
    #[error("lay out parameter {name}: sizes overflow")]
    TooLarge {
        /// The parameter at which the overflow happened.
        name: String,
    },
    /// A parameter index or a block range outside the layout.
    #[error("address blocks {start}..{end} of parameter {parameter}: outside the layout")]
    OutsideLayout {
        /// Index of the parameter.
        parameter: usize,
        /// First block asked for.
        start: usize,
        /// One past the last block asked for.
        end: usize,
    },
    /// A buffer whose length does not follow from the layout.
    #[error("use a buffer of {actual} {unit}: expected {expected}")]
    BufferLength {
        /// What is counted.
        unit: &'static str,
        /// What the layout asks for.
        expected: usize,
        /// What was passed.
        actual: usize,
    },
    /// The parts passed to an assembly leave a gap, overlap or lie outside the layout.
    #[error("assemble a payload: parts do not cover byte {offset} exactly once")]
    Coverage {
        /// Payload byte at which coverage breaks.
        offset: usize,
    },
    /// A coefficient that is NaN or infinite.
    #[error("encode chunk {chunk}: coefficient is not finite")]
    NotFinite {
        /// Chunk inside the part.
        chunk: usize,
    },
    /// Indices of a chunk that are not strictly ascending, or not below the chunk's length.
    #[error("use the selection of chunk {chunk}: indices are not strictly ascending inside the chunk")]
    IndexOrder {
        /// Chunk inside the part.
        chunk: usize,
    },
    /// A payload of the wrong length.
    #[error("decode a payload of {actual} bytes: expected exactly {expected}")]
    PayloadLength {
        /// What the layout asks for.
        expected: usize,
        /// What arrived.
        actual: usize,
    },
    /// A payload that starts with another format byte.
    #[error("decode a payload with format byte {actual:#04x}: expected {expected:#04x}")]
    PayloadFormat {
        /// The byte that this layout's payloads start with.
        expected: u8,
        /// The byte that arrived.
        actual: u8,
    },
    /// A chunk whose bits name no index set.
    #[error("decode parameter {parameter}, chunk {chunk}: no index set has this code")]
    PayloadIndices {
        /// Index of the parameter.
        parameter: usize,
        /// Chunk inside the parameter.
        chunk: usize,
    },
    /// A value that is not finite, or a negative zero.
    #[error("decode parameter {parameter}, chunk {chunk}: value is not canonical")]
    PayloadValue {
        /// Index of the parameter.
        parameter: usize,
        /// Chunk inside the parameter.
        chunk: usize,
    },
    /// Padding bits that are not zero.
    #[error("decode parameter {parameter}, block {block}: padding is not zero")]
    PayloadPadding {
        /// Index of the parameter.
        parameter: usize,
        /// Block inside the parameter.
        block: usize,
    },
}
