// The last failure of each thread.
#include "common.h"

#include <cstring>

namespace {

thread_local char last_error[2048];

}  // namespace

namespace psyche {

void remember(const char* message) noexcept {
  std::strncpy(last_error, message, sizeof last_error - 1);
  last_error[sizeof last_error - 1] = '\0';
}

}  // namespace psyche

extern "C" const char* psyche_last_error() { return last_error; }
