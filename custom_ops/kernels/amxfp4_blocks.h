// What the products of amxfp4 rows with few rows compute, and A's form for them; unnamed namespace: see
// elements.h.
//
// A block of 32 elements of A and one of B have four sums of products of doubled E2M1 magnitudes (0 1 2 3 4 6
// 8 12), by the signs of both factors: exact integers of at most 4608, s(++) with a above zero and b above
// zero, s(+-), s(-+), s(--). With the block's scales a+ a- b+ b- and everything in float32, for ascending
// blocks from y = 0:
//   t+ = fma(-b-, s(+-), b+ * s(++))        t- = fma(-b-, s(--), b+ * s(-+))
//   y = fma(a+ / 4, t+, y)                  y = fma(-(a- / 4), t-, y)
// The products b * s and the quarters are exact. A code of 0 counts on no side, so a scale of NaN or infinity
// makes its whole block NaN. Elements missing from the last block are zeros.
//
// A prepared row is one AmxBlock after the other. The order of a block's elements belongs to the instruction
// set.
#pragma once

#include "kernels/block_scales.h"
#include "kernels/kernels.h"

namespace mxcompile {
namespace {

struct AmxBlock {
  uint8_t above[kPairBlock];  // doubled magnitudes of elements above zero, 0 for the others
  uint8_t below[kPairBlock];
  float above_scale;  // a quarter of the block's scale
  float below_scale;
};

constexpr auto kAmxBlockBytes = static_cast<int64_t>(sizeof(AmxBlock));

inline int64_t AmxBlocksBytes(int64_t k) { return CeilDiv(k, kPairBlock) * kAmxBlockBytes; }

constexpr uint8_t kDoubled[8] = {0, 1, 2, 3, 4, 6, 8, 12};

}  // namespace
}  // namespace mxcompile
