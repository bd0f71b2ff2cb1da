// Loops over rows of numbers, for CPU devices: what takes several passes over memory in tensor operations, in one or two.
//
// Everything is computed in f32. Rows lie one after another; bf16 numbers are their upper halves of f32.
#pragma once

#include <cstdint>

namespace psyche {

struct Norm {
  int64_t width;
  float epsilon;
};

// output = input · r · weight, where r = 1 / sqrt(mean(input²) + epsilon) is kept in `inverse`, one per row.
template <class T>
void rms_norm(Norm norm, int64_t rows, const T* input, const T* weight, T* output, float* inverse);

// Gradient by the input; that by the weight is added to `by_weight`, a row of f32.
template <class T>
void rms_norm_backward(Norm norm, int64_t rows, const T* gradient, const T* input, const T* weight, const float* inverse,
                       T* by_input, float* by_weight);

struct Heads {
  int64_t heads;
  int64_t width;
};

// Turns each head of `positions` positions: output = input · cosine + swapped input · sine, with halves swapped. `sign` is 1,
// or −1 to turn back. The tables have one row of f32 per position.
template <class T>
void rotate(Heads heads, int64_t positions, const T* input, const float* cosine, const float* sine, float sign, T* output);

}  // namespace psyche
