// Collectives inside the autograd graph, which tch 0.24 can't express: a function whose two passes call back into Rust.
#include <ATen/core/ivalue.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "common.h"

using psyche::guarded;

namespace {

using at::Tensor;

// Works in place on a contiguous tensor; anything but 0 is a failure that Rust has stored on its side.
using Apply = int (*)(void* user, Tensor* tensor);
using Release = void (*)(void* user);

// Owns one reference to the Rust value behind a collective for as long as the autograd graph may call it.
struct Region : torch::CustomClassHolder {
  Apply apply;
  Release release;
  void* user;

  Region(Apply apply, Release release, void* user) : apply(apply), release(release), user(user) {}
  ~Region() override { release(user); }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  Tensor run(const Tensor& input) const {
    at::NoGradGuard no_grad;
    // The input may be shared with the rest of the graph, so the collective works on a copy.
    Tensor output = input.clone(at::MemoryFormat::Contiguous);
    TORCH_CHECK(apply(user, &output) == 0, "collective failed");
    return output;
  }
};

using RegionPtr = c10::intrusive_ptr<Region>;

// A collective inside the graph: the identity on one side and the collective on the other, or the collective on both.
struct CollectiveFunction : torch::autograd::Function<CollectiveFunction> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& input, bool in_forward,
                        bool in_backward, const RegionPtr& region) {
    context->saved_data["in_backward"] = in_backward;
    context->saved_data["region"] = c10::IValue::make_capsule(region);
    return in_forward ? region->run(input) : input.view_as(input);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    Tensor gradient = gradients[0];
    if (context->saved_data["in_backward"].toBool()) {
      auto held = context->saved_data["region"].toCapsule();
      gradient = static_cast<const Region*>(held.get())->run(gradient);
    }
    return {gradient, Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

extern "C" {

// Takes over one reference to `user`, also when it fails; `release` gives it back when the graph is gone.
int psyche_collective(const Tensor* input, int in_forward, int in_backward, Apply apply, Release release, void* user,
                      Tensor** output) {
  return guarded([&] {
    auto region = c10::make_intrusive<Region>(apply, release, user);
    *output = new Tensor(CollectiveFunction::apply(*input, in_forward != 0, in_backward != 0, region));
  });
}

}
