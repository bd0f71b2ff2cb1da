// Streams of a CUDA device: the one that torch uses, and another beside it.
#include <c10/core/DeviceGuard.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstdint>

#include "common.h"

using psyche::guarded;

namespace {

c10::Device cuda(int device) { return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(device)); }

c10::Stream stream_of(int device, int64_t id) { return c10::Stream(c10::Stream::UNSAFE, cuda(device), id); }

// What `waiting` is told from now on happens after what `awaited` was told so far.
void order(int device, const c10::Stream& awaited, const c10::Stream& waiting) {
  c10::OptionalDeviceGuard guard(cuda(device));
  c10::impl::VirtualGuardImpl streams(c10::kCUDA);
  void* event = nullptr;
  streams.record(&event, awaited, static_cast<c10::DeviceIndex>(device), c10::EventFlag::PYTORCH_DEFAULT);
  streams.block(event, waiting);
  streams.destroyEvent(event, static_cast<c10::DeviceIndex>(device));
}

}  // namespace

extern "C" {

// Makes a device the one that CUDA's own calls of this thread mean.
int psyche_stream_use_device(int device) {
  return guarded([&] { c10::impl::VirtualGuardImpl(c10::kCUDA).setDevice(cuda(device)); });
}

// The stream on which torch works in this thread.
int psyche_stream_current(int device, void** handle) {
  return guarded([&] {
    c10::impl::VirtualGuardImpl streams(c10::kCUDA);
    *handle = streams.getStreamNativeHandle(streams.getStream(cuda(device)));
  });
}

// A stream of torch's pool, of high priority: small transfers overtake large kernels.
int psyche_stream_beside(int device, int64_t* id, void** handle) {
  return guarded([&] {
    c10::impl::VirtualGuardImpl streams(c10::kCUDA);
    c10::Stream stream = streams.getStreamFromGlobalPool(cuda(device), true);
    *id = stream.id();
    *handle = streams.getStreamNativeHandle(stream);
  });
}

// The stream waits for this thread's current one.
int psyche_stream_fork(int device, int64_t id) {
  return guarded([&] {
    c10::Stream current = c10::impl::VirtualGuardImpl(c10::kCUDA).getStream(cuda(device));
    order(device, current, stream_of(device, id));
  });
}

// This thread's current stream waits for the stream.
int psyche_stream_join(int device, int64_t id) {
  return guarded([&] {
    c10::Stream current = c10::impl::VirtualGuardImpl(c10::kCUDA).getStream(cuda(device));
    order(device, stream_of(device, id), current);
  });
}

// Whether this thread's current stream has done everything.
int psyche_stream_idle(int device, int* idle) {
  return guarded([&] {
    c10::impl::VirtualGuardImpl streams(c10::kCUDA);
    *idle = streams.queryStream(streams.getStream(cuda(device))) ? 1 : 0;
  });
}

}
