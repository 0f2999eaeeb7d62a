// What the kernels' tests share: counting, memory with guard pages, random numbers.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <random>
#include <string>

#include "kernels/formats.h"
#include "kernels/parallel.h"

namespace mxcompile {

inline int passed = 0, failed = 0;
inline bool largest_too = true;  // the largest sizes

inline constexpr int64_t kSizes[] = {1, 2, 3, 5, 7, 15, 16, 17, 31, 33, 63, 65, 127, 129};

inline void Expect(bool condition, const std::string& what) {
  ++(condition ? passed : failed);
  if (!condition) std::fprintf(stderr, "FAILED: %s\n", what.c_str());
}

// An array that ends where an unreadable page begins; its start is as unaligned as its size makes it.
template <typename T>
class Guarded {
 public:
  explicit Guarded(int64_t size) : size_(size) {
    const int64_t page = sysconf(_SC_PAGESIZE), bytes = size * static_cast<int64_t>(sizeof(T));
    const int64_t readable = CeilDiv(std::max<int64_t>(bytes, 1), page) * page;
    mapped_ = static_cast<size_t>(readable + page);
    base_ = static_cast<uint8_t*>(
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + readable, static_cast<size_t>(page), PROT_NONE) != 0)
      std::abort();
    data_ = reinterpret_cast<T*>(base_ + readable - bytes);
  }
  Guarded(int64_t size, const std::function<T()>& value) : Guarded(size) {
    std::generate_n(data_, size, value);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(base_, mapped_); }

  T* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  int64_t size_;
  size_t mapped_;
  uint8_t* base_;
  T* data_;
};

inline bool SameBytes(const Guarded<uint8_t>& a, const Guarded<uint8_t>& b) {
  return std::equal(a.data(), a.data() + a.size(), b.data());
}

// The same bits, or both NaN (IEEE 754 leaves NaN payloads open).
inline bool Same(float a, float b) { return BitsOf(a) == BitsOf(b) || (std::isnan(a) && std::isnan(b)); }
inline bool Same(Half a, Half b) { return Same(FloatOf(a), FloatOf(b)); }

template <typename T>
bool SameValues(const Guarded<T>& a, const Guarded<T>& b) {
  return std::equal(a.data(), a.data() + a.size(), b.data(), [](T x, T y) { return Same(x, y); });
}

inline std::mt19937 random_bits(1);  // fixed: a failure repeats itself

inline uint8_t RandomByte() { return static_cast<uint8_t>(random_bits()); }

// Numbers of very different sizes, exact ties, zeros, subnormals.
inline float RandomFinite() {
  static constexpr float kSpecial[] = {0.0f,     -0.0f,       0.25f,        -0.75f, 1.25f,      -1.75f,
                                       2.5f,     -3.5f,       5.0f,         6.0f,   -6.0f,      0x1p-17f,
                                       0x1p-16f, -0x1p-126f,  0x1p-149f,    3e38f,  -3e38f,     57344.f,
                                       0x1p-15f, 0.49999997f, -0.24999999f, 7.0f,   -344064.0f, 1.0f};
  const uint32_t kind = random_bits() % 8;
  if (kind == 0) return kSpecial[random_bits() % std::size(kSpecial)];
  const float mantissa = static_cast<float>(static_cast<int32_t>(random_bits())) * 0x1p-31f;
  return std::ldexp(mantissa,
                    kind == 1 ? static_cast<int>(random_bits() % 250) - 140 : static_cast<int>(kind));
}

// Any bit pattern now and then, NaN and infinity among them.
inline float RandomFloat() {
  return random_bits() % 64 == 0 ? FloatOf(static_cast<uint32_t>(random_bits())) : RandomFinite();
}

// Few significant bits: quotients by a scale are often exactly between two elements.
inline float RandomCoarse() {
  return static_cast<float>(static_cast<int>(random_bits() % 127) - 63) * 0x1p-4f;
}

inline Format FormatOf(const char* name) {
  Format format;
  std::string error;
  if (!ParseFormat(name, &format, &error)) std::abort();
  return format;
}

class Serial final : public Parallel {
 public:
  explicit Serial(bool backwards = false) : backwards_(backwards) {}
  void For(int64_t count, const std::function<void(int64_t)>& body) override {
    for (int64_t i = 0; i < count; ++i) body(backwards_ ? count - 1 - i : i);
  }

 private:
  bool backwards_;
};

}  // namespace mxcompile
