// CUDA's words in C++, so that the kernels' sources run on the CPU, thread by thread, in tests.
#pragma once
#include <cmath>
#include <cstring>

struct Dimension {
  unsigned x;
};
static Dimension threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) float4 {
  float x, y, z, w;
};

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(threads)

// Lets the block's other threads come as far as here.
static void __syncthreads();

// Threads of a block take turns at barriers only, so this needs no more.
static unsigned atomicAdd(unsigned* at, unsigned value) {
  unsigned before = *at;
  *at += value;
  return before;
}

static unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
