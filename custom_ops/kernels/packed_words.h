// Codes as words of a group of elements, which panels of any width are packed in; unnamed namespace: see
// elements.h. A Layout says how many bits a code has, how many of them a word holds, and how they stand in
// it.
#pragma once

#include <cstring>

#include "kernels/kernels.h"

namespace mxcompile {
namespace {

// kCount bytes as the low bytes of a word; three in two loads, since what goes through memory byte by byte
// stalls.
template <size_t kCount>
inline uint32_t LoadBytes(const uint8_t* from) {
  uint32_t word = 0;
  std::memcpy(&word, from, kCount == 3 ? 2 : kCount);
  return kCount == 3 ? word | static_cast<uint32_t>(from[2]) << 16 : word;
}

// The word of the elements from i on, in `bytes` bytes of a row's codes.
template <typename Layout>
inline void PackWord(const uint8_t* codes, int64_t i, size_t bytes, uint8_t* to) {
  constexpr size_t kFull = Layout::kGroup * Layout::kBits / 8;
  const uint8_t* from = codes + i / 4 * Layout::kBits / 2;
  uint32_t word = 0;
  if (bytes == kFull) {
    word = LoadBytes<kFull>(from);
  } else {
    std::memcpy(&word, from, bytes);
  }
  word = Layout::Word(word);
  std::memcpy(to, &word, sizeof(word));
}

}  // namespace
}  // namespace mxcompile
