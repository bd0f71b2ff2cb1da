// The device of a thread.
#include <c10/core/impl/VirtualGuardImpl.h>

#include "common.h"

using psyche::guarded;

extern "C" {

// The CUDA device on which the calling thread computes where nothing else is said.
int psyche_set_cuda_device(int device) {
  return guarded([&] {
    c10::impl::VirtualGuardImpl(c10::kCUDA).setDevice(c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(device)));
  });
}

}
