// What the files of the shim share. Each reaches CUDA only through c10's registries, over libtorch_cpu and libc10, so
// that one binary runs with and without it.
//
// Every function that Rust calls returns 0, or 1 after it stored a message for psyche_last_error() of the same thread.
#pragma once

#include <c10/util/Exception.h>

#include <exception>

namespace psyche {

// Keeps `message` for psyche_last_error() of this thread.
void remember(const char* message) noexcept;

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

}  // namespace psyche
