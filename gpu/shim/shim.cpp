// What tch 0.24 lacks, over libtorch_cpu and libc10 only: CUDA is reached through c10's registries, so that one binary
// runs with and without it.
//
// Every function returns 0, or 1 after it stored a message for psyche_last_error() of the same thread.
#include <ATen/core/ivalue.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>
#include <cstring>
#include <exception>
#include <utility>

namespace {

using at::Tensor;

thread_local char last_error[2048];

void remember(const char* message) {
  std::strncpy(last_error, message, sizeof last_error - 1);
  last_error[sizeof last_error - 1] = '\0';
}

// No C++ exception may cross into Rust.
template <class F>
int guarded(F&& body) noexcept {
  try {
    body();
    return 0;
  } catch (const c10::Error& error) {
    remember(error.what_without_backtrace());
  } catch (const std::exception& error) {
    remember(error.what());
  } catch (...) {
    remember("unknown C++ exception");
  }
  return 1;
}

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

const char* psyche_last_error() { return last_error; }

// Takes over one reference to `user`, also when it fails; `release` gives it back when the graph is gone.
int psyche_collective(const Tensor* input, int in_forward, int in_backward, Apply apply, Release release, void* user,
                      Tensor** output) {
  return guarded([&] {
    auto region = c10::make_intrusive<Region>(apply, release, user);
    *output = new Tensor(CollectiveFunction::apply(*input, in_forward != 0, in_backward != 0, region));
  });
}

// How often the caching allocator of a CUDA device has run out of memory so far.
int psyche_cuda_out_of_memory_count(int device, int64_t* count) {
  return guarded([&] {
    auto* allocator = at::getDeviceAllocator(c10::kCUDA);
    *count = allocator->getDeviceStats(static_cast<c10::DeviceIndex>(device)).num_ooms;
  });
}

}
