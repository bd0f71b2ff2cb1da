// How much memory tensors take on one thread, as libtorch's allocators report it.
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <cstdint>
#include <memory>

#include "common.h"

using psyche::guarded;

namespace {

struct Meter : c10::MemoryReportingInfoBase {
  int64_t live = 0;
  int64_t peak = 0;

  // What is given back has a negative size.
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
    live += size;
    peak = std::max(peak, live);
  }

  bool memoryProfilingEnabled() const override { return true; }
};

struct Metering {
  std::shared_ptr<Meter> meter = std::make_shared<Meter>();
  c10::DebugInfoGuard guard{c10::DebugInfoKind::PROFILER_STATE, meter};
};

}  // namespace

extern "C" {

// Counts what this thread allocates from now on, until psyche_meter_free on the same thread.
int psyche_meter_new(void** meter) {
  return guarded([&] { *meter = new Metering; });
}

void psyche_meter_free(void* meter) { delete static_cast<Metering*>(meter); }

// Bytes that are live of what was allocated since, and the most that ever were.
void psyche_meter_read(const void* meter, int64_t* live, int64_t* peak) {
  const auto& counted = *static_cast<const Metering*>(meter)->meter;
  *live = counted.live;
  *peak = counted.peak;
}

}
