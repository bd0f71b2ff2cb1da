// Collectives inside the autograd graph, which tch 0.24 can't express: functions whose passes call back into Rust.
//
// The ways in and out of layers that are split over a tensor-parallel group, in the manner of Megatron-LM.
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/linear.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "common.h"

using psyche::guarded;

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What Rust does when asked; each returns anything but 0 for a failure that it has stored on its side.
struct Calls {
  // Sums a contiguous tensor over the group, in place.
  int (*all_reduce)(void* user, Tensor* tensor);
  // Begins to.
  int (*begin)(void* user, Tensor* tensor);
  // Waits until what was begun last is done.
  int (*finish)(void* user);
  // Gives back the reference to `user`.
  void (*release)(void* user);
};

// Owns one reference to the Rust value behind a group for as long as the autograd graph may call it.
struct Region : torch::CustomClassHolder {
  Calls calls;
  void* user;

  Region(const Calls& calls, void* user) : calls(calls), user(user) {}
  ~Region() override { calls.release(user); }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
};

using RegionPtr = c10::intrusive_ptr<Region>;

void done(int code) { TORCH_CHECK(code == 0, "collective failed"); }

// An all-reduce that has begun: it is finished whatever happens, before anybody reuses the tensor's memory.
class Pending {
 public:
  Pending(const Region& region, Tensor& tensor) : region_(region) { done(region.calls.begin(region.user, &tensor)); }
  ~Pending() {
    if (!finished_) region_.calls.finish(region_.user);
  }
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;

  void finish() {
    finished_ = true;
    done(region_.calls.finish(region_.user));
  }

 private:
  const Region& region_;
  bool finished_ = false;
};

// The way out of a split layer: a sum over the group in the forward pass, the identity in the backward pass.
struct Leave : torch::autograd::Function<Leave> {
  static Tensor forward(AutogradContext* context, const Tensor& input, const RegionPtr& region) {
    // A fresh result is worked on in place. Autograd learns of it, so that a later read of the old value by a backward
    // pass would be an error and not a wrong number.
    bool in_place = input.is_contiguous() && !input.is_view() && !(input.is_leaf() && input.requires_grad());
    Tensor output = in_place ? input : input.clone(at::MemoryFormat::Contiguous);
    if (in_place) context->mark_dirty({output});
    done(region->calls.all_reduce(region->user, &output));
    return output;
  }

  static variable_list backward(AutogradContext*, variable_list gradients) { return {gradients[0], Tensor()}; }
};

// Linear layers split by columns: all have the same input, which every rank has whole, and each rank a part of the
// outputs. The backward pass sums the input's gradient over the group while it computes the weights' gradients.
struct Columns : torch::autograd::Function<Columns> {
  static variable_list forward(AutogradContext* context, const Tensor& input, at::TensorList weights,
                               const RegionPtr& region) {
    variable_list saved{input}, outputs;
    for (const Tensor& weight : weights) {
      saved.push_back(weight);
      outputs.push_back(at::linear(input, weight));
    }
    context->save_for_backward(std::move(saved));
    context->saved_data["region"] = c10::IValue::make_capsule(region);
    return outputs;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    at::NoGradGuard no_grad;
    variable_list saved = context->get_saved_variables();
    auto held = context->saved_data["region"].toCapsule();
    const auto& region = *static_cast<const Region*>(held.get());
    const Tensor& input = saved[0];
    Tensor rows = input.reshape({-1, input.size(-1)});
    Tensor sum;
    for (size_t i = 0; i < gradients.size(); ++i) {
      gradients[i] = gradients[i].reshape({-1, gradients[i].size(-1)});
      sum = sum.defined() ? sum.addmm_(gradients[i], saved[i + 1]) : gradients[i].mm(saved[i + 1]);
    }
    variable_list results{sum.view(input.sizes())};
    Pending pending(region, sum);
    for (const Tensor& gradient : gradients) results.push_back(gradient.t().mm(rows));
    pending.finish();
    results.emplace_back();
    return results;
  }
};

}  // namespace

extern "C" {

// Takes over one reference to `user`, also when it fails; `calls->release` gives it back when the graph is gone.
int psyche_leave(const Tensor* input, const Calls* calls, void* user, Tensor** output) {
  return guarded([&] {
    auto region = c10::make_intrusive<Region>(*calls, user);
    *output = new Tensor(Leave::apply(*input, region));
  });
}

// As above; `weights` and `outputs` have `count` elements.
int psyche_columns(const Tensor* input, const Tensor* const* weights, size_t count, const Calls* calls, void* user,
                   Tensor** outputs) {
  return guarded([&] {
    auto region = c10::make_intrusive<Region>(*calls, user);
    variable_list list;
    for (size_t i = 0; i < count; ++i) list.push_back(*weights[i]);
    variable_list results = Columns::apply(*input, at::TensorList(list), region);
    for (size_t i = 0; i < count; ++i) outputs[i] = new Tensor(std::move(results[i]));
  });
}

}
