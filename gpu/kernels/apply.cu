// The exact apply in 64-bit integers, by the definition in src/exact/mod.rs; one thread block per chunk.
//
// Basis functions are even or odd about the middle of the chunk, as integers too. So the columns of even and of odd index
// are summed apart, for half of the elements, and their sum and difference are the result on either side.

// Fractional bits that the first pass gives up.
#define COEFFICIENT_BITS 20
#define MAX_EDGE 256
// Sums of the first pass that fit into shared memory.
#define PASSED_IN_SHARED 4096
// Rows of the second pass that share a load of the basis.
#define ROWS 4

struct Apply {
  float* weights;
  const u64* starts;        // [chunks + 1]: the chunk's votes in the two lists below
  const u16* indices;       // by chunk, each chunk's sorted by its column
  const int* means;         // the coefficients, at most 2^20 in size
  const int* basis_height;  // [h, h]
  const int* basis_width;   // [w, w]
  int* scratch;             // [blocks, h, w], where shared memory may not do
  u64 chunks;
  u64 width;
  u32 height_of_chunk;
  u32 width_of_chunk;
  u32 chunks_per_row;
  float factor;             // of the weight decay; 1: none
  float rate;
};

// The columns of one chunk that have votes.
struct Columns {
  u64 first[MAX_EDGE];
  u64 end[MAX_EDGE];
  u16 list[2][MAX_EDGE];  // even ones, odd ones
  u32 count[2];
};

// sum / 2^COEFFICIENT_BITS to nearest, ties to even.
__device__ inline int shifted(i64 sum) {
  i64 floor = sum >> COEFFICIENT_BITS, rest = sum & ((1 << COEFFICIENT_BITS) - 1), tie = 1 << (COEFFICIENT_BITS - 1);
  return (int)(floor + (rest > tie || (rest == tie && (floor & 1))));
}

__device__ inline void find_columns(const Apply& a, u64 chunk, Columns& columns) {
  u32 w = a.width_of_chunk;
  u64 begin = a.starts[chunk], end = a.starts[chunk + 1];
  for (u32 t = threadIdx.x; t < w; t += blockDim.x) columns.first[t] = columns.end[t] = 0;
  if (threadIdx.x == 0) columns.count[0] = columns.count[1] = 0;
  __syncthreads();
  for (u64 p = begin + threadIdx.x; p < end; p += blockDim.x) {
    u32 v = a.indices[p] % w;
    if (p == begin || a.indices[p - 1] % w != v) columns.first[v] = p;
    if (p + 1 == end || a.indices[p + 1] % w != v) columns.end[v] = p + 1;
  }
  __syncthreads();
  for (u32 v = threadIdx.x; v < w; v += blockDim.x) {
    // Sums of integers have no order, so the order of the list does not matter.
    if (columns.end[v] > 0) columns.list[v % 2][atomicAdd(&columns.count[v % 2], 1)] = (u16)v;
  }
  __syncthreads();
}

__device__ inline void move_weight(float* weight, i64 sum, float factor, float rate) {
  float moved = factor == 1.0f ? *weight : *weight * factor;
  if (sum > 0) moved = moved - rate;
  if (sum < 0) moved = moved + rate;
  *weight = moved;
}

extern "C" __global__ void __launch_bounds__(128) psyche_apply(Apply a) {
  __shared__ int in_shared[PASSED_IN_SHARED];
  __shared__ Columns columns;
  u32 h = a.height_of_chunk, w = a.width_of_chunk;
  for (u64 chunk = blockIdx.x; chunk < a.chunks; chunk += gridDim.x) {
    find_columns(a, chunk, columns);
    u32 even = columns.count[0], all = even + columns.count[1];
    int* passed = all * h <= PASSED_IN_SHARED ? in_shared : a.scratch + (u64)blockIdx.x * h * w;
    for (u32 t = threadIdx.x; t < all * h; t += blockDim.x) {
      u32 slot = t / h, i = t % h;
      u32 v = slot < even ? columns.list[0][slot] : columns.list[1][slot - even];
      i64 sum = 0;
      for (u64 p = columns.first[v]; p < columns.end[v]; p++) {
        sum += (i64)a.means[p] * a.basis_height[a.indices[p] / w * h + i];
      }
      passed[t] = shifted(sum);
    }
    __syncthreads();
    u32 pairs = (w + 1) / 2;
    float* corner = a.weights + chunk / a.chunks_per_row * h * a.width + chunk % a.chunks_per_row * w;
    for (u32 t = threadIdx.x; t < pairs * ((h + ROWS - 1) / ROWS); t += blockDim.x) {
      u32 j = t % pairs, top = t / pairs * ROWS;
      u32 row[ROWS];
      i64 sums[2][ROWS];
#pragma unroll
      for (u32 r = 0; r < ROWS; r++) {
        row[r] = top + r < h ? top + r : h - 1;
        sums[0][r] = sums[1][r] = 0;
      }
#pragma unroll
      for (u32 odd = 0; odd < 2; odd++) {
        for (u32 s = 0; s < columns.count[odd]; s++) {
          int basis = a.basis_width[columns.list[odd][s] * w + j];
          const int* line = passed + (odd * even + s) * h;
#pragma unroll
          for (u32 r = 0; r < ROWS; r++) sums[odd][r] += (i64)line[row[r]] * basis;
        }
      }
#pragma unroll
      for (u32 r = 0; r < ROWS; r++) {
        if (top + r >= h) continue;
        float* line = corner + (top + r) * a.width;
        move_weight(line + j, sums[0][r] + sums[1][r], a.factor, a.rate);
        if (w - 1 - j != j) move_weight(line + w - 1 - j, sums[0][r] - sums[1][r], a.factor, a.rate);
      }
    }
    __syncthreads();
  }
}
