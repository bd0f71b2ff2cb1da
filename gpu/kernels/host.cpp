// Runs kernels on the CPU, for tests. Each thread of a block has a stack of its own and runs until the next barrier; the
// order in which threads take turns is the caller's, so that a missing barrier shows as a difference between orders.
#include "host.h"

#include <ucontext.h>

#include <mutex>
#include <vector>

#include "elementwise.cu"
#include "compress.cu"
#include "compress_64.cu"
#include "apply.cu"
#include "digest.cu"

namespace {

constexpr std::size_t STACK_BYTES = 64 << 10;

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(STACK_BYTES);
  bool finished;
};

std::vector<Fiber> fibers;
ucontext_t scheduler;
unsigned running;
void (*body)(const void*);
const void* body_arguments;

void entry() {
  body(body_arguments);
  fibers[running].finished = true;
}

template <class Arguments, void (*kernel)(Arguments)>
void call(const void* arguments) {
  kernel(*static_cast<const Arguments*>(arguments));
}

struct Named {
  const char* name;
  void (*call)(const void*);
};

const Named KERNELS[] = {
    {"psyche_look_ahead", call<LookAhead, psyche_look_ahead>},
    {"psyche_scale", call<Scale, psyche_scale>},
    {"psyche_compress", call<Compress, psyche_compress>},
    {"psyche_compress_64", call<Compress, psyche_compress_64>},
    {"psyche_apply", call<Apply, psyche_apply>},
    {"psyche_digest_leaves", call<Digest, psyche_digest_leaves>},
    {"psyche_digest_trees", call<Digest, psyche_digest_trees>},
};

// Runs one block; false where some threads wait at a barrier that others do not reach.
bool run_block(unsigned threads, bool descending) {
  for (unsigned t = 0; t < threads; t++) {
    Fiber& fiber = fibers[t];
    fiber.finished = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = STACK_BYTES;
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, entry, 0);
  }
  for (;;) {
    unsigned finished = 0;
    for (unsigned t = 0; t < threads; t++) {
      running = descending ? threads - 1 - t : t;
      threadIdx.x = running;
      swapcontext(&scheduler, &fibers[running].context);
      finished += fibers[running].finished;
    }
    if (finished == threads) return true;
    if (finished > 0) return false;
  }
}

}  // namespace

static void __syncthreads() { swapcontext(&fibers[running].context, &scheduler); }

// 0: done, 1: no kernel has this name, 2: a block's threads parted at a barrier.
extern "C" int psyche_host_launch(const char* name, const void* arguments, unsigned grid, unsigned block, int descending) {
  static std::mutex one_at_a_time;
  std::lock_guard<std::mutex> guard(one_at_a_time);
  body = nullptr;
  for (const Named& kernel : KERNELS) {
    if (std::strcmp(kernel.name, name) == 0) body = kernel.call;
  }
  if (body == nullptr) return 1;
  body_arguments = arguments;
  if (fibers.size() < block) fibers = std::vector<Fiber>(block);
  blockDim.x = block;
  gridDim.x = grid;
  for (unsigned b = 0; b < grid; b++) {
    blockIdx.x = b;
    if (!run_block(block, descending != 0)) return 2;
  }
  return 0;
}

// The basis that is written into psyche_compress_64.
extern "C" float psyche_host_basis_64(unsigned u, unsigned j) { return basis_64(u, j); }
