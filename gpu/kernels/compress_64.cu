// psyche_compress for chunks of 64 x 64, in registers: a thread per column, then a thread per row.

#define EDGE 64
// Rows of the tile are a word longer than its columns, so that threads on one column meet different banks.
#define TILE_STRIDE (EDGE + 1)

// Basis function u of 64 at j: sqrt(2 / 64) * cos(pi * (2 j + 1) u / 128) as f32, by symmetry one of 65 values.
__device__ constexpr float basis_64(u32 u, u32 j) {
  constexpr float wave[EDGE + 1] = {
      0x1.6a09e6p-3f, 0x1.69edfcp-3f, 0x1.699a42p-3f, 0x1.690ec6p-3f, 0x1.684b9cp-3f, 0x1.6750e4p-3f, 0x1.661ec2p-3f,
      0x1.64b568p-3f, 0x1.63150cp-3f, 0x1.613deep-3f, 0x1.5f3056p-3f, 0x1.5cec98p-3f, 0x1.5a730cp-3f, 0x1.57c414p-3f,
      0x1.54e018p-3f, 0x1.51c78cp-3f, 0x1.4e7aeap-3f, 0x1.4afab2p-3f, 0x1.474772p-3f, 0x1.4361bap-3f, 0x1.3f4a24p-3f,
      0x1.3b015p-3f, 0x1.3687eap-3f, 0x1.31dea2p-3f, 0x1.2d062ep-3f, 0x1.27ff5p-3f, 0x1.22caccp-3f, 0x1.1d6972p-3f,
      0x1.17dc14p-3f, 0x1.12238ep-3f, 0x1.0c40c2p-3f, 0x1.063498p-3f, 0x1p-3f, 0x1.f347dcp-4f, 0x1.e642b8p-4f,
      0x1.d8f29ap-4f, 0x1.cb598cp-4f, 0x1.bd79aap-4f, 0x1.af5516p-4f, 0x1.a0edfep-4f, 0x1.92469cp-4f, 0x1.836132p-4f,
      0x1.74400ap-4f, 0x1.64e57cp-4f, 0x1.5553e4p-4f, 0x1.458daap-4f, 0x1.35953cp-4f, 0x1.256d12p-4f, 0x1.1517a8p-4f,
      0x1.049782p-4f, 0x1.e7de5ep-5f, 0x1.c6427ap-5f, 0x1.a4608ap-5f, 0x1.823dc8p-5f, 0x1.5fdf76p-5f, 0x1.3d4aep-5f,
      0x1.1a855ep-5f, 0x1.ef2894p-6f, 0x1.a8fa12p-6f, 0x1.628a08p-6f, 0x1.1be352p-6f, 0x1.aa21a8p-7f, 0x1.1c3af6p-7f,
      0x1.1c50e2p-8f, 0.0f,
  };
  if (u == 0) return 0.125f;
  u32 angle = (2 * j + 1) * u % (4 * EDGE);
  if (angle > 2 * EDGE) angle = 4 * EDGE - angle;
  return angle > EDGE ? -wave[2 * EDGE - angle] : wave[angle];
}

// Halves x, of which M elements are left, and hands the odd multiples of STEP on as put(u, coefficient).
template <u32 M, u32 STEP>
struct Halving {
  template <class Put>
  static __device__ inline void run(float (&x)[EDGE], const Put& put) {
    constexpr u32 half = M / 2, together = half < 4 ? half : 4;
    float difference[half];
#pragma unroll
    for (u32 j = 0; j < half; j++) {
      float front = x[j], back = x[M - 1 - j];
      x[j] = front + back;
      difference[j] = front - back;
    }
    // Several chains side by side hide each other's latency.
#pragma unroll
    for (u32 q = 0; q < half; q += together) {
      float sum[together];
#pragma unroll
      for (u32 r = 0; r < together; r++) sum[r] = 0.0f;
#pragma unroll
      for (u32 j = 0; j < half; j++) {
#pragma unroll
        for (u32 r = 0; r < together; r++) {
          sum[r] = fmaf(basis_64(STEP * (2 * (q + r) + 1), j), difference[j], sum[r]);
        }
      }
#pragma unroll
      for (u32 r = 0; r < together; r++) put(STEP * (2 * (q + r) + 1), sum[r]);
    }
    Halving<half, STEP * 2>::run(x, put);
  }
};

template <u32 STEP>
struct Halving<1, STEP> {
  template <class Put>
  static __device__ inline void run(float (&x)[EDGE], const Put& put) {
    put(0, fmaf(basis_64(0, 0), x[0], 0.0f));
  }
};

// Column `column` of a chunk's new momentum, as take_in makes it.
__device__ inline void take_in_column(const Compress& a, u64 chunk, u64 corner, u32 column, float (&x)[EDGE]) {
#pragma unroll
  for (u32 i = 0; i < EDGE; i++) x[i] = 0.0f;
  if (a.sent_indices) {
    for (u64 p = chunk * a.k; p < (chunk + 1) * a.k; p++) {
      u32 u = a.sent_indices[p] / EDGE, v = a.sent_indices[p] % EDGE;
      float value = a.sent_values[p], across = a.basis_width[v * EDGE + column];
      const float4* down = (const float4*)(a.basis_height + u * EDGE);
#pragma unroll
      for (u32 i = 0; i < EDGE; i += 4) {
        float4 four = down[i / 4];
        x[i] = fmaf(four.x * value, across, x[i]);
        x[i + 1] = fmaf(four.y * value, across, x[i + 1]);
        x[i + 2] = fmaf(four.z * value, across, x[i + 2]);
        x[i + 3] = fmaf(four.w * value, across, x[i + 3]);
      }
    }
  }
#pragma unroll
  for (u32 i = 0; i < EDGE; i++) {
    u64 at = corner + i * a.width + column;
    float momentum = a.momentum[at] - x[i];
    if (a.gradient) momentum = a.decay * momentum + a.rate * a.gradient[at];
    if (a.sent_indices || a.gradient) a.momentum[at] = momentum;
    x[i] = momentum;
  }
}

// A block has EDGE threads.
extern "C" __global__ void __launch_bounds__(EDGE) psyche_compress_64(Compress a) {
  __shared__ float tile[EDGE * TILE_STRIDE];
  __shared__ Selecting selecting;
  u32 own = threadIdx.x;
  for (u64 chunk = blockIdx.x; chunk < a.chunks; chunk += gridDim.x) {
    u64 corner = chunk / a.chunks_per_row * EDGE * a.width + chunk % a.chunks_per_row * EDGE;
    float x[EDGE];
    take_in_column(a, chunk, corner, own, x);
    Halving<EDGE, 1>::run(x, [&](u32 u, float value) { tile[u * TILE_STRIDE + own] = value; });
    __syncthreads();
#pragma unroll
    for (u32 j = 0; j < EDGE; j++) x[j] = tile[own * TILE_STRIDE + j];
    // The row is this thread's alone from here on.
    Halving<EDGE, 1>::run(x, [&](u32 v, float value) { tile[own * TILE_STRIDE + v] = value; });
#pragma unroll
    for (u32 j = 0; j < EDGE; j++) x[j] = tile[own * TILE_STRIDE + j];
    select_largest<EDGE>([&](u32 i) { return magnitude_of(x[i]); }, EDGE, a.k, selecting,
                         [&](u32 place, u32 i) {
                           a.indices[chunk * a.k + place] = (u16)(own * EDGE + i);
                           a.values[chunk * a.k + place] = x[i];
                         });
  }
}
