#include "kernels/buffer.h"

#include <algorithm>
#include <mutex>
#include <utility>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace mxcompile {
namespace {

#ifdef __linux__
constexpr int64_t kLargePage = int64_t{1} << 21;
// What is asked of the system at once. What nobody writes to takes no memory.
constexpr int64_t kChunk = int64_t{1} << 26;

// Memory that buffers are cut from, one after the other. It lives as long as the last of them.
struct Chunk {
  std::weak_ptr<void> memory;
  int64_t size = 0, used = 0;
};

std::shared_ptr<void> Open(int64_t bytes, Chunk* chunk) {
  void* data = nullptr;
  const int64_t size = (std::max(bytes, kChunk) + kLargePage - 1) / kLargePage * kLargePage;
  if (posix_memalign(&data, kLargePage, static_cast<size_t>(size)) != 0) return nullptr;
  madvise(data, static_cast<size_t>(size), MADV_HUGEPAGE);  // a wish: without it all is well
  std::shared_ptr<void> memory(data, std::free);
  *chunk = {memory, size, 0};
  return memory;
}
#endif

}  // namespace

Buffer Buffer::OnLargePages(int64_t bytes) {
#ifdef __linux__
  static std::mutex mutex;
  static Chunk current;
  const int64_t rounded = (bytes / kAlignment + 1) * kAlignment;
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<void> memory = current.memory.lock();
  if (memory == nullptr || current.size - current.used < rounded) memory = Open(rounded, &current);
  if (memory == nullptr) return Buffer();
  Buffer buffer;
  void* const data = static_cast<uint8_t*>(memory.get()) + current.used;
  buffer.data_ = std::unique_ptr<void, Release>(data, Release(std::move(memory)));
  current.used += rounded;
  return buffer;
#else
  return Buffer(bytes);
#endif
}

}  // namespace mxcompile
