// Kernels that treat every element alike, and what all kernels share.
//
// These sources are compiled twice: by NVRTC for the device at hand, without contraction of products and sums, and by
// the host's compiler for tests, on top of host.h. They use no warp-wide operations and no dynamic shared memory; a
// kernel takes one struct, whose twin is in src/cuda/arguments.rs.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;
typedef long long i64;

// The first item of this thread, and the distance to its next, over the whole grid.
#define GRID_START ((u64)blockIdx.x * blockDim.x + threadIdx.x)
#define GRID_STRIDE ((u64)gridDim.x * blockDim.x)

struct LookAhead {
  const float* master;
  const float* momentum;
  float* ahead;
  u64 len;
  float rate;
};

// ahead = master - rate * sign(momentum)
extern "C" __global__ void psyche_look_ahead(LookAhead a) {
  for (u64 i = GRID_START; i < a.len; i += GRID_STRIDE) {
    float momentum = a.momentum[i];
    float sign = (float)((momentum > 0.0f) - (momentum < 0.0f));
    a.ahead[i] = a.master[i] - a.rate * sign;
  }
}

struct Scale {
  float* values;
  u64 len;
  float factor;
};

extern "C" __global__ void psyche_scale(Scale a) {
  for (u64 i = GRID_START; i < a.len; i += GRID_STRIDE) a.values[i] *= a.factor;
}
