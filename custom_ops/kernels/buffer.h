// Memory for scratch and packed weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace mxcompile {

// Uninitialized memory, 64-byte aligned. Test with `operator bool` before use: running out of memory inside a
// parallel section cannot be thrown.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t bytes) : data_(Allocate(bytes)) {}

  // On large pages where the system has them: what is streamed from memory again and again comes faster.
  static Buffer OnLargePages(int64_t bytes) {
#ifdef __linux__
    void* data = nullptr;
    if (bytes < kLargePage) return Buffer(bytes);
    if (posix_memalign(&data, kLargePage, static_cast<size_t>(bytes)) != 0) return Buffer();
    madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // a wish: without it all is well
    Buffer buffer;
    buffer.data_.reset(data);
    return buffer;
#else
    return Buffer(bytes);
#endif
  }

  explicit operator bool() const { return data_ != nullptr; }
  template <typename T>
  T* As() const {
    return static_cast<T*>(data_.get());
  }
  uint8_t* bytes() const { return As<uint8_t>(); }

 private:
  static constexpr int64_t kAlignment = 64;
  static constexpr int64_t kLargePage = int64_t{1} << 21;

  static void* Allocate(int64_t bytes) {
    // aligned_alloc wants a multiple of the alignment; one unit at least, so that an empty buffer is not
    // null.
    const int64_t rounded = (bytes / kAlignment + 1) * kAlignment;
    return std::aligned_alloc(kAlignment, static_cast<size_t>(rounded));
  }

  struct Free {
    void operator()(void* data) const { std::free(data); }
  };
  std::unique_ptr<void, Free> data_;
};

}  // namespace mxcompile
