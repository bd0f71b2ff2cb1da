// Gradients that autograd hands over as soon as they are made, and the backward pass from a given gradient.
#include <ATen/core/grad_mode.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>

#include "common.h"

using at::Tensor;
using psyche::guarded;

namespace {

// The f32 sum of a leaf's gradients; undefined while there is none.
struct Sum : c10::intrusive_ptr_target {
  Tensor value;

  void add(const Tensor& gradient) {
    if (value.defined()) {
      value.add_(gradient);
    } else {
      // Without a copy if it is f32 already: the leaf lets go of it.
      value = gradient.detach().to(at::kFloat);
    }
  }
};

using SumPtr = c10::intrusive_ptr<Sum>;

// Moves each gradient that reaches the leaf into the sum.
struct MoveToSum : torch::autograd::PostAccumulateGradHook {
  SumPtr sum;

  explicit MoveToSum(SumPtr sum) : sum(std::move(sum)) {}

  void operator()(const torch::autograd::Variable& leaf) override {
    at::NoGradGuard no_grad;
    sum->add(leaf.grad());
    leaf.mutable_grad().reset();
  }
};

}  // namespace

extern "C" {

// The sum of all gradients that will reach `leaf`, to be given back by psyche_gradient_sum_free.
int psyche_gradient_sum_new(const Tensor* leaf, void** sum) {
  return guarded([&] {
    auto owned = c10::make_intrusive<Sum>();
    torch::autograd::impl::set_post_acc_grad_hooks(*leaf, std::make_unique<MoveToSum>(owned));
    *sum = owned.release();
  });
}

void psyche_gradient_sum_free(void* sum) { SumPtr::reclaim(static_cast<Sum*>(sum)); }

// The sum so far, sharing memory with it, or null.
int psyche_gradient_sum_get(const void* sum, Tensor** value) {
  return guarded([&] {
    const Tensor& held = static_cast<const Sum*>(sum)->value;
    *value = held.defined() ? new Tensor(held) : nullptr;
  });
}

// Replaces the sum: by `value`, without a copy, or by none if that is null.
int psyche_gradient_sum_set(void* sum, const Tensor* value) {
  return guarded([&] { static_cast<Sum*>(sum)->value = value == nullptr ? Tensor() : *value; });
}

// Adds to the leaves' gradients what `gradient`, that of `output`, makes of them.
int psyche_backward(const Tensor* output, const Tensor* gradient) {
  return guarded([&] { torch::autograd::backward({*output}, {*gradient}); });
}

}
