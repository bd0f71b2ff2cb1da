// Compiled without libtorch's headers and with full optimisation, for each width of vector instructions that x86 has.
#include "rows.h"

#include <cmath>
#include <cstring>

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define EVERY_WIDTH __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define EVERY_WIDTH
#endif
#define INLINE inline __attribute__((always_inline))

namespace psyche {

namespace {

// Sums are kept in this many strands, so that they can be vectors.
constexpr int64_t STRANDS = 32;

INLINE float load(const float* from) { return *from; }

INLINE float load(const uint16_t* from) {
  uint32_t bits = static_cast<uint32_t>(*from) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

INLINE void store(float* to, float value) { *to = value; }

// To nearest, ties to even; what is not a number stays so.
INLINE void store(uint16_t* to, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  *to = static_cast<uint16_t>(value != value ? 0x7fc0 : rounded);
}

INLINE float total(const float* strands) {
  float sum = 0;
  for (int64_t i = 0; i < STRANDS; i++) sum += strands[i];
  return sum;
}

template <class T>
INLINE float mean_of_squares(const T* row, int64_t width) {
  float strands[STRANDS] = {};
  int64_t i = 0;
  for (; i + STRANDS <= width; i += STRANDS)
    for (int64_t j = 0; j < STRANDS; j++) strands[j] += load(row + i + j) * load(row + i + j);
  for (; i < width; i++) strands[0] += load(row + i) * load(row + i);
  return total(strands) / static_cast<float>(width);
}

template <class T>
INLINE void norm_rows(Norm norm, int64_t rows, const T* __restrict input, const T* __restrict weight, T* __restrict output,
                      float* __restrict inverse) {
  for (int64_t row = 0; row < rows; row++, input += norm.width, output += norm.width) {
    float r = 1.0f / std::sqrt(mean_of_squares(input, norm.width) + norm.epsilon);
    inverse[row] = r;
    for (int64_t i = 0; i < norm.width; i++) store(output + i, load(input + i) * r * load(weight + i));
  }
}

template <class T>
INLINE void norm_rows_backward(Norm norm, int64_t rows, const T* __restrict gradient, const T* __restrict input,
                               const T* __restrict weight, const float* __restrict inverse, T* __restrict by_input,
                               float* __restrict by_weight) {
  int64_t width = norm.width;
  for (int64_t row = 0; row < rows; row++, gradient += width, input += width, by_input += width) {
    float r = inverse[row];
    float strands[STRANDS] = {};
    int64_t i = 0;
    for (; i + STRANDS <= width; i += STRANDS)
      for (int64_t j = 0; j < STRANDS; j++)
        strands[j] += load(gradient + i + j) * load(weight + i + j) * load(input + i + j);
    for (; i < width; i++) strands[0] += load(gradient + i) * load(weight + i) * load(input + i);
    float share = total(strands) * r * r / static_cast<float>(width);
    for (i = 0; i < width; i++) {
      float g = load(gradient + i), x = load(input + i);
      by_weight[i] += g * x * r;
      store(by_input + i, r * (g * load(weight + i) - x * share));
    }
  }
}

template <class T>
INLINE void rotate_rows(Heads heads, int64_t positions, const T* __restrict input, const float* __restrict cosine,
                        const float* __restrict sine, float sign, T* __restrict output) {
  int64_t half = heads.width / 2;
  for (int64_t position = 0; position < positions; position++, cosine += heads.width, sine += heads.width) {
    for (int64_t head = 0; head < heads.heads; head++, input += heads.width, output += heads.width) {
      for (int64_t i = 0; i < half; i++) {
        float a = load(input + i), b = load(input + half + i);
        // The first half of the table has the minus sign of the rotation.
        store(output + i, a * cosine[i] + b * (sign * sine[i]));
        store(output + half + i, b * cosine[half + i] + a * (sign * sine[half + i]));
      }
    }
  }
}

}  // namespace

template <>
EVERY_WIDTH void rms_norm<float>(Norm norm, int64_t rows, const float* input, const float* weight, float* output,
                                 float* inverse) {
  norm_rows(norm, rows, input, weight, output, inverse);
}

template <>
EVERY_WIDTH void rms_norm<uint16_t>(Norm norm, int64_t rows, const uint16_t* input, const uint16_t* weight,
                                    uint16_t* output, float* inverse) {
  norm_rows(norm, rows, input, weight, output, inverse);
}

template <>
EVERY_WIDTH void rms_norm_backward<float>(Norm norm, int64_t rows, const float* gradient, const float* input,
                                          const float* weight, const float* inverse, float* by_input, float* by_weight) {
  norm_rows_backward(norm, rows, gradient, input, weight, inverse, by_input, by_weight);
}

template <>
EVERY_WIDTH void rms_norm_backward<uint16_t>(Norm norm, int64_t rows, const uint16_t* gradient, const uint16_t* input,
                                             const uint16_t* weight, const float* inverse, uint16_t* by_input,
                                             float* by_weight) {
  norm_rows_backward(norm, rows, gradient, input, weight, inverse, by_input, by_weight);
}

template <>
EVERY_WIDTH void rotate<float>(Heads heads, int64_t positions, const float* input, const float* cosine, const float* sine,
                               float sign, float* output) {
  rotate_rows(heads, positions, input, cosine, sine, sign, output);
}

template <>
EVERY_WIDTH void rotate<uint16_t>(Heads heads, int64_t positions, const uint16_t* input, const float* cosine,
                                  const float* sine, float sign, uint16_t* output) {
  rotate_rows(heads, positions, input, cosine, sine, sign, output);
}

}  // namespace psyche
