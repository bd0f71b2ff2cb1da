// For tests: how large the tensors are that a thread's operations make.
#include <ATen/record_function.h>

#include <algorithm>
#include <cstdint>
#include <memory>

#include "common.h"

using psyche::guarded;

namespace {

struct Seen {
  int64_t dimension = 0;
  int64_t results = 0;
  int64_t with_dimension = 0;
  at::CallbackHandle handle = 0;
};

thread_local Seen seen;

std::unique_ptr<at::ObserverContext> started(const at::RecordFunction&) { return nullptr; }

void ended(const at::RecordFunction& function, at::ObserverContext*) {
  for (const c10::IValue& value : function.outputs()) {
    if (!value.isTensor() || !value.toTensor().defined()) continue;
    auto sizes = value.toTensor().sizes();
    seen.results += 1;
    if (std::find(sizes.begin(), sizes.end(), seen.dimension) != sizes.end()) seen.with_dimension += 1;
  }
}

}  // namespace

extern "C" {

// Begins to count the results of this thread's operations, and those of which one dimension is `dimension`.
int psyche_observe_begin(int64_t dimension) {
  return guarded([&] {
    seen = Seen{};
    seen.dimension = dimension;
    seen.handle = at::addThreadLocalCallback(at::RecordFunctionCallback(&started, &ended).needsOutputs(true));
  });
}

// Ends that.
int psyche_observe_end(int64_t* results, int64_t* with_dimension) {
  return guarded([&] {
    at::removeCallback(seen.handle);
    *results = seen.results;
    *with_dimension = seen.with_dimension;
  });
}

}
