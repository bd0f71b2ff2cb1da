// The memory of devices: how often it ran out, how much is in use, and giving back what is cached.
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <cstdint>

#include "common.h"

using psyche::guarded;

namespace {

// Requests that the CPU's allocator refused on this thread. Errors carry only text, so they are counted where they arise.
thread_local int64_t refused = 0;

class CountingAllocator final : public c10::Allocator {
 public:
  explicit CountingAllocator(c10::Allocator* inner) : inner_(inner) {}

  c10::DataPtr allocate(size_t bytes) override {
    try {
      return inner_->allocate(bytes);
    } catch (...) {
      refused++;
      throw;
    }
  }

  c10::DeleterFnPtr raw_deleter() const override { return inner_->raw_deleter(); }

  bool is_simple_data_ptr(const c10::DataPtr& data) const override { return inner_->is_simple_data_ptr(data); }

  void copy_data(void* to, const void* from, std::size_t count) const override { default_copy_data(to, from, count); }

 private:
  c10::Allocator* inner_;
};

// Set while the program is loaded, after libtorch has set its own and before there are threads; never freed, because
// tensors may outlive everything else.
[[maybe_unused]] const bool installed = [] {
  c10::SetCPUAllocator(new CountingAllocator(c10::GetCPUAllocator()), 1);
  return true;
}();

}  // namespace

extern "C" {

// How often this thread was refused memory on the CPU so far.
int64_t psyche_cpu_out_of_memory_count() { return refused; }

// How often the caching allocator of a CUDA device has run out of memory so far.
int psyche_cuda_out_of_memory_count(int device, int64_t* count) {
  return guarded([&] {
    auto* allocator = at::getDeviceAllocator(c10::kCUDA);
    *count = allocator->getDeviceStats(static_cast<c10::DeviceIndex>(device)).num_ooms;
  });
}

// Bytes in tensors now, at most so far, and held by the allocator of a CUDA device.
int psyche_cuda_memory(int device, int64_t* bytes) {
  return guarded([&] {
    auto stats = at::getDeviceAllocator(c10::kCUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(device));
    // Index 0 is the sum over all pools.
    bytes[0] = stats.allocated_bytes[0].current;
    bytes[1] = stats.allocated_bytes[0].peak;
    bytes[2] = stats.reserved_bytes[0].current;
  });
}

// Gives the memory that CUDA allocators hold without using it back to the driver.
int psyche_cuda_empty_cache() {
  return guarded([&] { at::getDeviceAllocator(c10::kCUDA)->emptyCache(); });
}

}
