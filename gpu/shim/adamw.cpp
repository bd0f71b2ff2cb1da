// libtorch's fused AdamW, which tch 0.24 does not have.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>

#include <cstddef>
#include <vector>

#include "common.h"

using at::Tensor;
using psyche::guarded;

namespace {

std::vector<Tensor> list(Tensor* const* tensors, size_t count) {
  std::vector<Tensor> all;
  all.reserve(count);
  for (size_t index = 0; index < count; index++) all.push_back(*tensors[index]);
  return all;
}

}  // namespace

extern "C" {

// One step for `count` parameters, in place; each has a step counter of its own, which is advanced first.
int psyche_fused_adamw(Tensor* const* parameters, Tensor* const* gradients, Tensor* const* means,
                       Tensor* const* variances, Tensor* const* steps, size_t count, double lr, double beta_mean,
                       double beta_variance, double weight_decay, double epsilon) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto counters = list(steps, count);
    for (auto& counter : counters) counter.add_(1);
    at::_fused_adamw_(list(parameters, count), list(gradients, count), list(means, count), list(variances, count), {},
                      counters, lr, beta_mean, beta_variance, weight_decay, epsilon, /*amsgrad=*/false,
                      /*maximize=*/false);
  });
}

}
