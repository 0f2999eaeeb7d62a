#include "kernels/mapped_pages.h"

#ifdef __linux__
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#endif

namespace mxcompile {

#ifdef __linux__
namespace {

// What Linux says of a page in /proc/self/pagemap (its documentation: admin-guide/mm/pagemap.rst). A page of
// a private mapping that was written to is a copy, anonymous, and has kOfFile no more.
constexpr uint64_t kPresent = uint64_t{1} << 63;
constexpr uint64_t kOfFile = uint64_t{1} << 61;  // or shared and anonymous: the object keeps its contents
constexpr uint64_t kDroppable = kPresent | kOfFile;

constexpr uintptr_t kPagesAtOnce = 512;

bool Droppable(uint64_t entry) { return (entry & kDroppable) == kDroppable; }

// Drops the runs of pages that can be, of `count` pages from page number `first` on.
void DropRuns(const uint64_t* entries, uintptr_t first, uintptr_t count, uintptr_t page_size) {
  const uint64_t* const end = entries + count;
  for (const uint64_t* run = std::find_if(entries, end, Droppable); run != end;) {
    const uint64_t* const stop = std::find_if_not(run, end, Droppable);
    void* const address =
        reinterpret_cast<void*>((first + static_cast<uintptr_t>(run - entries)) * page_size);
    // A wish: pages that are locked stay. Not MADV_PAGEOUT: that takes the pages out of the system's cache
    // too, and the next session on the same file would wait for the disk.
    madvise(address, static_cast<uintptr_t>(stop - run) * page_size, MADV_DONTNEED);
    run = std::find_if(stop, end, Droppable);
  }
}

}  // namespace

void DropMappedPages(const void* data, int64_t bytes) {
  const auto page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(data);
  const uintptr_t end = (address + static_cast<uintptr_t>(bytes)) / page_size;
  uintptr_t first = (address + page_size - 1) / page_size;
  if (first >= end) return;
  const int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (pagemap < 0) return;
  uint64_t entries[kPagesAtOnce];
  for (uintptr_t count; first < end; first += count) {
    count = std::min(kPagesAtOnce, end - first);
    const size_t size = count * sizeof(uint64_t);
    const ssize_t got = pread(pagemap, entries, size, static_cast<off_t>(first * sizeof(uint64_t)));
    if (got != static_cast<ssize_t>(size)) break;
    DropRuns(entries, first, count, page_size);
  }
  close(pagemap);
}
#else
void DropMappedPages(const void*, int64_t) {}
#endif

}  // namespace mxcompile
