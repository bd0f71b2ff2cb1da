//! The arguments of the kernels, field by field as `kernels/*.cu` declare them; addresses are the device's.

/// What some kernel takes, as one struct.
pub(super) trait Arguments: bytemuck::NoUninit {}

/// Of `psyche_look_ahead`.
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
pub(super) struct LookAhead {
    pub(super) master: u64,
    pub(super) momentum: u64,
    pub(super) ahead: u64,
    pub(super) len: u64,
    pub(super) rate: f32,
    pub(super) padding: u32,
}

/// Of `psyche_scale`.
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
pub(super) struct Scale {
    pub(super) values: u64,
    pub(super) len: u64,
    pub(super) factor: f32,
    pub(super) padding: u32,
}

/// Of `psyche_compress` and `psyche_compress_64`.
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
pub(super) struct Compress {
    pub(super) momentum: u64,
    pub(super) gradient: u64,
    pub(super) basis_height: u64,
    pub(super) basis_width: u64,
    pub(super) sent_indices: u64,
    pub(super) sent_values: u64,
    pub(super) indices: u64,
    pub(super) values: u64,
    pub(super) scratch: u64,
    pub(super) chunks: u64,
    pub(super) width: u64,
    pub(super) height_of_chunk: u32,
    pub(super) width_of_chunk: u32,
    pub(super) chunks_per_row: u32,
    pub(super) k: u32,
    pub(super) decay: f32,
    pub(super) rate: f32,
}

/// Of `psyche_apply`.
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
pub(super) struct Apply {
    pub(super) weights: u64,
    pub(super) starts: u64,
    pub(super) indices: u64,
    pub(super) means: u64,
    pub(super) basis_height: u64,
    pub(super) basis_width: u64,
    pub(super) scratch: u64,
    pub(super) chunks: u64,
    pub(super) width: u64,
    pub(super) height_of_chunk: u32,
    pub(super) width_of_chunk: u32,
    pub(super) chunks_per_row: u32,
    pub(super) factor: f32,
    pub(super) rate: f32,
    pub(super) padding: u32,
}

/// Of `psyche_digest_leaves` and `psyche_digest_trees`.
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
pub(super) struct Digest {
    pub(super) elements: u64,
    pub(super) header: u64,
    pub(super) chaining: u64,
    pub(super) digests: u64,
    pub(super) blocks: u64,
    pub(super) first_block: u64,
    pub(super) block_elements: u64,
    pub(super) len: u64,
    pub(super) header_len: u32,
    pub(super) leaves_max: u32,
    pub(super) key: [u32; 8],
}

impl Arguments for LookAhead {}
impl Arguments for Scale {}
impl Arguments for Compress {}
impl Arguments for Apply {}
impl Arguments for Digest {}
