// The caching allocator of a CUDA device.
#include <c10/core/CachingDeviceAllocator.h>

#include <cstdint>

#include "common.h"

using psyche::guarded;

extern "C" {

// How often the caching allocator of a CUDA device has run out of memory so far.
int psyche_cuda_out_of_memory_count(int device, int64_t* count) {
  return guarded([&] {
    auto* allocator = at::getDeviceAllocator(c10::kCUDA);
    *count = allocator->getDeviceStats(static_cast<c10::DeviceIndex>(device)).num_ooms;
  });
}

}
