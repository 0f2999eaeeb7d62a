// Codes in bytes: one after the other without gaps, the first one in the lowest bits; unused bits at the end
// of a row are 0. Static: see elements.h.
#pragma once

#include <cstdint>

namespace mxcompile {

static constexpr int64_t CeilDiv(int64_t a, int64_t b) { return a / b + (a % b != 0); }

// The bytes that k codes take: ceil(k * bits / 8), without overflow.
static constexpr int64_t CodeBytes(int64_t k, int bits) { return k / 8 * bits + CeilDiv(k % 8 * bits, 8); }

// Code i of a row. Bytes past the row are not touched.
static inline int GetCode(const uint8_t* codes, int64_t i, int bits) {
  const int64_t bit = i * bits;
  const int shift = static_cast<int>(bit % 8);
  int word = codes[bit / 8];
  if (shift + bits > 8) word |= codes[bit / 8 + 1] << 8;
  return word >> shift & ((1 << bits) - 1);
}

// Adds code i to a row of zeros.
static inline void PutCode(uint8_t* codes, int64_t i, int bits, int code) {
  const int64_t bit = i * bits;
  const int shift = static_cast<int>(bit % 8);
  codes[bit / 8] = static_cast<uint8_t>(codes[bit / 8] | code << shift);
  if (shift + bits > 8) codes[bit / 8 + 1] = static_cast<uint8_t>(code >> (8 - shift));
}

}  // namespace mxcompile
