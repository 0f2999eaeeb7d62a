// Memory for scratch and packed weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>

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

  struct Release {
    Release() : block(nullptr) {}
    explicit Release(void* own) : block(own) {}
    explicit Release(std::shared_ptr<void> shared) : owner(std::move(shared)), block(nullptr) {}
    void operator()(void*) const { std::free(block); }
    std::shared_ptr<void> owner;  // of memory that holds other buffers too
    void* block;                  // what std::malloc gave, if this buffer is by itself
  };
  std::unique_ptr<void, Release> data_;

  // Not std::aligned_alloc: glibc takes that through its slowest path, and a product of a few microseconds
  // takes several buffers.
  static std::unique_ptr<void, Release> Allocate(int64_t bytes) {
    const auto size = static_cast<size_t>((bytes / kAlignment + 2) * kAlignment);
    void* const block = std::malloc(size);
    const uintptr_t aligned = (reinterpret_cast<uintptr_t>(block) / kAlignment + 1) * kAlignment;
    return {block == nullptr ? nullptr : reinterpret_cast<void*>(aligned), Release(block)};
  }
};

}  // namespace mxcompile
