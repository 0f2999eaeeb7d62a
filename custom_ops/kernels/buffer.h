// Memory for scratch and packed weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace mxcompile {

// Uninitialized memory, 64-byte aligned. Test with `operator bool` before use: running out of memory inside a
// parallel section cannot be thrown.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t bytes) : data_(Allocate(bytes)) {}

  // Side by side with the ones before in memory on large pages, where the system has them: what is streamed
  // in that order again and again comes faster.
  static Buffer OnLargePages(int64_t bytes);

  explicit operator bool() const { return data_ != nullptr; }
  template <typename T>
  T* As() const {
    return static_cast<T*>(data_.get());
  }
  uint8_t* bytes() const { return As<uint8_t>(); }

 private:
  static constexpr int64_t kAlignment = 64;

  static void* Allocate(int64_t bytes) {
    // aligned_alloc wants a multiple of the alignment; one unit at least, so that an empty buffer is not
    // null.
    const int64_t rounded = (bytes / kAlignment + 1) * kAlignment;
    return std::aligned_alloc(kAlignment, static_cast<size_t>(rounded));
  }

  struct Release {
    void operator()(void* data) const {
      if (owner == nullptr) std::free(data);
    }
    std::shared_ptr<void> owner;  // of memory that holds other buffers too; null: data is by itself
  };
  std::unique_ptr<void, Release> data_;
};

}  // namespace mxcompile
