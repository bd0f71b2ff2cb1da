// From momentum and gradient to the coefficients that are sent; one thread block per chunk.
//
// A transform of length n = 2^a * b, b odd, halves its input a times: sums x[j] + x[m-1-j] go on to the next halving,
// differences make the odd multiples of the current step, and what is left after the last halving makes the multiples of
// 2^a. Each coefficient is one chain of fused multiply-adds in ascending order, so that its bits are those of the CPU.

struct Compress {
  float* momentum;
  const float* gradient;      // null: the momentum is compressed as it is
  const float* basis_height;  // [h, h]: row u is the u-th basis function
  const float* basis_width;   // [w, w]
  const u16* sent_indices;    // [chunks, k]; null: nothing leaves the momentum
  const float* sent_values;   // [chunks, k]
  u16* indices;               // [chunks, k]
  float* values;              // [chunks, k]
  float* scratch;             // [blocks, 2, h, w]; psyche_compress only
  u64 chunks;
  u64 width;
  u32 height_of_chunk;
  u32 width_of_chunk;
  u32 chunks_per_row;
  u32 k;
  float decay;
  float rate;
};

// Most threads of a block that selects.
#define SELECT_THREADS 256

struct Selecting {
  u32 reached[32];
  u32 above[SELECT_THREADS];
  u32 equal[SELECT_THREADS];
};

__device__ inline u32 magnitude_of(float value) { return __float_as_uint(value) & 0x7fffffffu; }

// Calls keep(place, i) for the k largest magnitudes of the block, places ascending with the index; ties go to the lower
// index. This thread has `count` (or FIXED, if that is not 0) of them, which follow those of the thread before.
//
// The threshold is found bit by bit, and the search ends early once exactly k magnitudes reach it.
template <u32 FIXED, class Magnitude, class Keep>
__device__ inline void select_largest(const Magnitude& magnitude, u32 count, u32 k, Selecting& shared, const Keep& keep) {
  if (FIXED) count = FIXED;
  for (u32 t = threadIdx.x; t < 32; t += blockDim.x) shared.reached[t] = 0;
  __syncthreads();
  u32 threshold = 0;
  for (int bit = 30; bit >= 0; bit--) {
    u32 tried = threshold | 1u << bit;
    u32 own = 0;
#pragma unroll
    for (u32 i = 0; i < (FIXED ? FIXED : count); i++) own += magnitude(i) >= tried;
    if (own) atomicAdd(&shared.reached[bit], own);
    __syncthreads();
    u32 reached = shared.reached[bit];
    if (reached >= k) threshold = tried;
    if (reached == k) break;
  }
  u32 above = 0, equal = 0;
#pragma unroll
  for (u32 i = 0; i < (FIXED ? FIXED : count); i++) {
    above += magnitude(i) > threshold;
    equal += magnitude(i) == threshold;
  }
  shared.above[threadIdx.x] = above;
  shared.equal[threadIdx.x] = equal;
  __syncthreads();
  u32 place = 0, above_in_all = 0, equal_before = 0;
  for (u32 t = 0; t < blockDim.x; t++) {
    above_in_all += shared.above[t];
    if (t < threadIdx.x) {
      place += shared.above[t];
      equal_before += shared.equal[t];
    }
  }
  u32 room = k - above_in_all;
  place += equal_before < room ? equal_before : room;
#pragma unroll
  for (u32 i = 0; i < (FIXED ? FIXED : count); i++) {
    u32 own = magnitude(i);
    bool kept = own > threshold;
    if (own == threshold) kept = equal_before++ < room;
    if (kept) keep(place++, i);
  }
  __syncthreads();
}

// The new momentum of element (i, j) of a chunk: what was sent leaves it, then the gradient comes in.
__device__ inline float take_in(const Compress& a, u64 chunk, u32 i, u32 j, u64 at) {
  u32 h = a.height_of_chunk, w = a.width_of_chunk;
  float momentum = a.momentum[at];
  if (a.sent_indices) {
    float sent = 0.0f;
    for (u64 p = chunk * a.k; p < (chunk + 1) * a.k; p++) {
      u32 u = a.sent_indices[p] / w, v = a.sent_indices[p] % w;
      sent = fmaf(a.basis_height[u * h + i] * a.sent_values[p], a.basis_width[v * w + j], sent);
    }
    momentum -= sent;
  }
  if (a.gradient) momentum = a.decay * momentum + a.rate * a.gradient[at];
  if (a.sent_indices || a.gradient) a.momentum[at] = momentum;
  return momentum;
}

// Halves `lines` lines of length n in place: sums at the front, differences mirrored at the back.
__device__ inline void fold(float* data, u32 lines, u32 n, u32 line_stride, u32 stride) {
  for (u32 m = n; m % 2 == 0; m /= 2) {
    for (u32 t = threadIdx.x; t < lines * (m / 2); t += blockDim.x) {
      float* front = data + t % lines * line_stride + t / lines * stride;
      float* back = data + t % lines * line_stride + (m - 1 - t / lines) * stride;
      float x = *front, y = *back;
      *front = x + y;
      *back = x - y;
    }
    __syncthreads();
  }
}

// Coefficient u of a folded line.
__device__ inline float project(const float* line, const float* basis, u32 n, u32 u, u32 stride) {
  u32 m = n, step = 1;
  while (m % 2 == 0 && u / step % 2 == 0) {
    m /= 2;
    step *= 2;
  }
  float sum = 0.0f;
  if (m % 2 == 0) {
    for (u32 j = 0; j < m / 2; j++) sum = fmaf(basis[u * n + j], line[(m - 1 - j) * stride], sum);
  } else {
    for (u32 j = 0; j < m; j++) sum = fmaf(basis[u * n + j], line[j * stride], sum);
  }
  return sum;
}

// Chunks of any size, by way of scratch memory.
extern "C" __global__ void __launch_bounds__(SELECT_THREADS) psyche_compress(Compress a) {
  __shared__ Selecting selecting;
  u32 h = a.height_of_chunk, w = a.width_of_chunk, n = h * w;
  float* chunk_values = a.scratch + (u64)blockIdx.x * 2 * n;
  float* half = chunk_values + n;
  u32 segment = (n + blockDim.x - 1) / blockDim.x;
  u32 first = threadIdx.x * segment < n ? threadIdx.x * segment : n;
  u32 count = n - first < segment ? n - first : segment;
  for (u64 chunk = blockIdx.x; chunk < a.chunks; chunk += gridDim.x) {
    u64 corner = chunk / a.chunks_per_row * h * a.width + chunk % a.chunks_per_row * w;
    for (u32 t = threadIdx.x; t < n; t += blockDim.x) {
      chunk_values[t] = take_in(a, chunk, t / w, t % w, corner + t / w * a.width + t % w);
    }
    __syncthreads();
    fold(chunk_values, w, h, 1, w);
    for (u32 t = threadIdx.x; t < n; t += blockDim.x) {
      half[t] = project(chunk_values + t % w, a.basis_height, h, t / w, w);
    }
    __syncthreads();
    fold(half, h, w, w, 1);
    for (u32 t = threadIdx.x; t < n; t += blockDim.x) {
      chunk_values[t] = project(half + t / w * w, a.basis_width, w, t % w, 1);
    }
    __syncthreads();
    select_largest<0>([&](u32 i) { return magnitude_of(chunk_values[first + i]); }, count, a.k, selecting,
                      [&](u32 place, u32 i) {
                        a.indices[chunk * a.k + place] = (u16)(first + i);
                        a.values[chunk * a.k + place] = chunk_values[first + i];
                      });
  }
}
