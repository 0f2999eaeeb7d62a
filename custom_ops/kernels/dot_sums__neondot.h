// Sums of products of a block's steps with sdot, four rows a vector; like WideningSums in fp4_tiles__neon.h.
// Unnamed namespace: see elements.h.
#pragma once

#include <arm_neon.h>

namespace mxcompile {
namespace {

struct DotSums {
  static constexpr int kRows = 4;  // of A that a tile has registers for

  int32x4_t sums;

  static inline DotSums Zero() { return {vdupq_n_s32(0)}; }

  template <int kLane>
  inline void Add(int8x16_t b, int8x16_t a) {
    sums = vdotq_laneq_s32(sums, b, a, kLane);
  }
  inline int32x4_t Total() const { return sums; }
};

}  // namespace
}  // namespace mxcompile
