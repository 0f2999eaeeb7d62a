#include "tests/mapped_pages.h"

#include <fcntl.h>

#include <cstdlib>
#include <vector>

#include "kernels/mapped_pages.h"
#include "tests/harness.h"

namespace mxcompile {
namespace {

constexpr int64_t kPages = 1200;  // more than are looked at in one go

int64_t PageSize() { return sysconf(_SC_PAGESIZE); }

// `kPages` pages of random bytes, in a file that is gone with the object, and mapped in a given way.
class Mapping {
 public:
  explicit Mapping(int flags) : contents_(static_cast<size_t>(kPages * PageSize())) {
    std::generate(contents_.begin(), contents_.end(), RandomByte);
    int file = -1;
    if ((flags & MAP_ANONYMOUS) == 0) {
      char name[] = "/tmp/mapped_pages.XXXXXX";
      file = mkstemp(name);
      if (file < 0 || unlink(name) != 0 || write(file, contents_.data(), contents_.size()) != Bytes())
        std::abort();
    }
    data_ = static_cast<uint8_t*>(mmap(nullptr, contents_.size(), PROT_READ | PROT_WRITE, flags, file, 0));
    if (data_ == MAP_FAILED) std::abort();
    if (file < 0) {
      std::copy(contents_.begin(), contents_.end(), data_);
    } else {
      close(file);
    }
    if (!Intact()) std::abort();  // now its pages are there, too
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { munmap(data_, contents_.size()); }

  uint8_t* data() const { return data_; }
  int64_t Bytes() const { return static_cast<int64_t>(contents_.size()); }
  uint8_t* Page(int64_t page) const { return data_ + page * PageSize(); }

  // Writes to a page, and remembers what.
  void Write(int64_t page) { *Page(page) = contents_[static_cast<size_t>(page * PageSize())] ^= 0xFF; }

  // Reads all of it.
  bool Intact() const { return std::equal(contents_.begin(), contents_.end(), data_); }

  // By page, whether it is in the memory of this process.
  std::vector<bool> Present() const {
    std::vector<uint64_t> entries(kPages);
    const int pagemap = open("/proc/self/pagemap", O_RDONLY);
    const auto size = static_cast<ssize_t>(entries.size() * sizeof(uint64_t));
    const auto first =
        static_cast<off_t>(reinterpret_cast<uintptr_t>(data_) / static_cast<uintptr_t>(PageSize()));
    if (pagemap < 0 || pread(pagemap, entries.data(), static_cast<size_t>(size), first * 8) != size)
      std::abort();
    close(pagemap);
    std::vector<bool> present;
    for (uint64_t entry : entries) present.push_back(entry >> 63 != 0);
    return present;
  }

 private:
  std::vector<uint8_t> contents_;
  uint8_t* data_;
};

// All pages but [first, end) are present.
std::vector<bool> Without(int64_t first, int64_t end) {
  std::vector<bool> present(kPages, true);
  std::fill(present.begin() + first, present.begin() + end, false);
  return present;
}

void TestWholeFile(int flags, const std::string& what) {
  const Mapping mapping(flags);
  Expect(mapping.Present() == Without(0, 0), what + ": pages that were read are present");
  DropMappedPages(mapping.data(), mapping.Bytes());
  Expect(mapping.Present() == Without(0, kPages), what + ": all pages are given back");
  Expect(mapping.Intact(), what + ": pages that were given back come again");
  DropMappedPages(mapping.data(), mapping.Bytes());
  DropMappedPages(mapping.data(), mapping.Bytes());
  Expect(mapping.Present() == Without(0, kPages), what + ": pages that are not present stay so");
}

void TestParts() {
  struct Part {
    int64_t begin, bytes, first, end;  // the bytes, and the pages wholly inside
  };
  const int64_t page = PageSize();
  const Part parts[] = {{0, 0, 0, 0},
                        {5, 0, 0, 0},
                        {0, page - 1, 0, 0},
                        {1, page, 0, 0},
                        {1, 2 * page - 2, 0, 0},
                        {1, 2 * page - 1, 1, 2},
                        {page, page, 1, 2},
                        {page - 1, page + 1, 1, 2},
                        {3 * page + 7, 600 * page, 4, 603},
                        {3 * page, 1024 * page, 3, 1027},
                        {page / 2, (kPages - 1) * page, 1, kPages - 1}};
  for (const Part& part : parts) {
    const Mapping mapping(MAP_PRIVATE);
    DropMappedPages(mapping.data() + part.begin, part.bytes);
    const std::string what = std::to_string(part.bytes) + " bytes from " + std::to_string(part.begin);
    const std::vector<bool> present = mapping.Present();
    // Not which others stay: of a large page Linux may take all where a part is given back.
    const auto first = present.begin() + part.first, end = present.begin() + part.end;
    Expect(std::find(first, end, true) == end, what + ": the pages inside are given back");
    if (first == end) Expect(present == Without(0, 0), what + ": no page is inside, and all stay");
    Expect(mapping.Intact(), what + ": nothing is lost");
  }
}

void TestWrittenPages() {
  Mapping copied(MAP_PRIVATE), shared(MAP_SHARED);
  std::vector<bool> present = Without(0, kPages);
  for (int64_t page : {int64_t{0}, int64_t{7}, int64_t{8}, int64_t{511}, int64_t{512}, kPages - 1}) {
    copied.Write(page);
    shared.Write(page);
    present[static_cast<size_t>(page)] = true;
  }
  DropMappedPages(copied.data(), copied.Bytes());
  Expect(copied.Present() == present, "pages of a private mapping that were written to stay");
  Expect(copied.Intact(), "they keep what was written");
  DropMappedPages(shared.data(), shared.Bytes());
  Expect(shared.Present() == Without(0, kPages),
         "what was written to a shared mapping is in the file: all go");
  Expect(shared.Intact(), "and come again");
}

}  // namespace

void TestMappedPages() {
  TestWholeFile(MAP_PRIVATE, "a private mapping");
  TestWholeFile(MAP_SHARED, "a shared mapping");
  TestWholeFile(MAP_SHARED | MAP_ANONYMOUS, "shared memory");
  TestParts();
  TestWrittenPages();
  const Mapping anonymous(MAP_PRIVATE | MAP_ANONYMOUS);
  DropMappedPages(anonymous.data(), anonymous.Bytes());
  Expect(anonymous.Present() == Without(0, 0) && anonymous.Intact(), "memory of no file stays");
  DropMappedPages(nullptr, 0);
}

}  // namespace mxcompile
