// Operations of the model that libtorch makes of several: fewer passes over memory, and less that waits for the backward pass.
//
// The norm and the rotation are loops of our own (rows.h) and for CPU devices only. Rows are cut into shares of a fixed size,
// so that results don't depend on the number of threads.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "common.h"
#include "rows.h"

using at::Tensor;
using psyche::guarded;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace {

// Elements of one share, as libtorch's own element-wise operations cut them.
constexpr int64_t GRAIN = 32768;

void check(const Tensor& tensor) {
  TORCH_CHECK(tensor.is_cpu() && tensor.is_contiguous(), "rows lie one after another on the CPU");
  TORCH_CHECK(tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16, "rows are f32 or bf16");
}

template <class T>
const T* from(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <class T>
T* to(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// Calls `work` with a value of the type that holds the tensor's elements.
template <class F>
void by_type(const Tensor& tensor, F&& work) {
  if (tensor.scalar_type() == at::kFloat) {
    work(float());
  } else {
    work(uint16_t());
  }
}

int64_t rows_per_share(int64_t width) { return std::max<int64_t>(1, GRAIN / width); }

struct RmsNorm : Function<RmsNorm> {
  static Tensor forward(AutogradContext* context, const Tensor& input, const Tensor& weight, double epsilon) {
    check(input);
    check(weight);
    TORCH_CHECK(input.scalar_type() == weight.scalar_type() && input.size(-1) == weight.numel(), "one weight per column");
    psyche::Norm norm{weight.numel(), static_cast<float>(epsilon)};
    int64_t rows = input.numel() / norm.width;
    Tensor output = at::empty_like(input);
    Tensor inverse = at::empty({rows}, input.options().dtype(at::kFloat));
    by_type(input, [&](auto element) {
      using T = decltype(element);
      at::parallel_for(0, rows, rows_per_share(norm.width), [&](int64_t begin, int64_t end) {
        int64_t offset = begin * norm.width;
        psyche::rms_norm<T>(norm, end - begin, from<T>(input) + offset, from<T>(weight), to<T>(output) + offset,
                            to<float>(inverse) + begin);
      });
    });
    context->save_for_backward({input, weight, inverse});
    return output;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    const Tensor &input = saved[0], &weight = saved[1], &inverse = saved[2];
    Tensor gradient = gradients[0].contiguous();
    psyche::Norm norm{weight.numel(), 0};
    int64_t rows = inverse.numel(), per_share = rows_per_share(norm.width);
    int64_t shares = (rows + per_share - 1) / per_share;
    Tensor by_input = at::empty_like(input);
    // A row per share, which are added up in their order.
    Tensor by_weight = at::zeros({shares, norm.width}, inverse.options());
    by_type(input, [&](auto element) {
      using T = decltype(element);
      at::parallel_for(0, shares, 1, [&](int64_t first, int64_t last) {
        for (int64_t share = first; share < last; share++) {
          int64_t begin = share * per_share, count = std::min(per_share, rows - begin), offset = begin * norm.width;
          psyche::rms_norm_backward<T>(norm, count, from<T>(gradient) + offset, from<T>(input) + offset, from<T>(weight),
                                       from<float>(inverse) + begin, to<T>(by_input) + offset,
                                       to<float>(by_weight) + share * norm.width);
        }
      });
    });
    return {by_input, by_weight.sum(0).to(weight.scalar_type()), Tensor()};
  }
};

// `[batch, seq, heads, width]`, turned by tables `[seq, 1, width]` f32 of at least as many positions.
Tensor rotated(const Tensor& input, const Tensor& cosine, const Tensor& sine, float sign) {
  check(input);
  check(cosine);
  check(sine);
  TORCH_CHECK(input.dim() == 4 && cosine.scalar_type() == at::kFloat && sine.scalar_type() == at::kFloat, "f32 tables");
  int64_t positions = input.size(1), width = input.size(3);
  int64_t least = positions * width;
  TORCH_CHECK(width % 2 == 0 && cosine.numel() >= least && sine.numel() >= least, "a row of the tables per position");
  psyche::Heads heads{input.size(2), width};
  int64_t row = heads.heads * width;
  Tensor output = at::empty_like(input);
  by_type(input, [&](auto element) {
    using T = decltype(element);
    at::parallel_for(0, input.size(0) * positions, rows_per_share(row), [&](int64_t begin, int64_t end) {
      // Positions begin anew with each sample.
      while (begin < end) {
        int64_t position = begin % positions, count = std::min(end - begin, positions - position);
        psyche::rotate<T>(heads, count, from<T>(input) + begin * row, from<float>(cosine) + position * width,
                          from<float>(sine) + position * width, sign, to<T>(output) + begin * row);
        begin += count;
      }
    });
  });
  return output;
}

struct Rotation : Function<Rotation> {
  static Tensor forward(AutogradContext* context, const Tensor& input, const Tensor& cosine, const Tensor& sine) {
    context->save_for_backward({cosine, sine});
    return rotated(input, cosine, sine, 1);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    return {rotated(gradients[0].contiguous(), saved[0], saved[1], -1), Tensor(), Tensor()};
  }
};

// silu(gate) · up. What silu made is computed again in the backward pass instead of waiting for it.
struct SwiGlu : Function<SwiGlu> {
  static Tensor forward(AutogradContext* context, const Tensor& gate, const Tensor& up) {
    context->save_for_backward({gate, up});
    return at::silu(gate).mul_(up);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    const Tensor &gate = saved[0], &up = saved[1], &gradient = gradients[0];
    Tensor by_up = at::silu(gate).mul_(gradient);
    Tensor by_gate = at::silu_backward(at::mul(gradient, up), gate);
    return {by_gate, by_up};
  }
};

}  // namespace

extern "C" {

int psyche_rms_norm(const Tensor* input, const Tensor* weight, double epsilon, Tensor** output) {
  return guarded([&] { *output = new Tensor(RmsNorm::apply(*input, *weight, epsilon)); });
}

int psyche_rotate(const Tensor* input, const Tensor* cosine, const Tensor* sine, Tensor** output) {
  return guarded([&] { *output = new Tensor(Rotation::apply(*input, *cosine, *sine)); });
}

int psyche_swiglu(const Tensor* gate, const Tensor* up, Tensor** output) {
  return guarded([&] { *output = new Tensor(SwiGlu::apply(*gate, *up)); });
}

}
