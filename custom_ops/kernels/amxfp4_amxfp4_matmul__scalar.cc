// Few amxfp4 rows times amxfp4 rows, one element at a time: the reference. What is computed: amxfp4_blocks.h.
//
// Data layout: B as it comes; a block of A in the order of k.
#include <cmath>

#include "kernels/amxfp4_blocks.h"
#include "kernels/matmul_kernels.h"
#include "kernels/row_by_row__scalar.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 8;

void Prepare(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t) {
  auto* block = reinterpret_cast<AmxBlock*>(prepared);
  for (int64_t start = 0; start < k; start += kPairBlock, ++block, scales += 2) {
    *block = {};
    block->above_scale = AmxScale::Decode(scales[0]) * 0.25f;
    block->below_scale = AmxScale::Decode(scales[1]) * 0.25f;
    for (int64_t i = start; i < std::min(k, start + kPairBlock); ++i) {
      const int code = GetCode(codes, i, E2M1::kBits);
      uint8_t* side = (code & E2M1::kSign) != 0 ? block->below : block->above;
      side[i - start] = kDoubled[code & 7];
    }
  }
}

constexpr RowForm kForm = {AmxBlocksBytes, nullptr, Prepare};

struct Sums {
  int above[2] = {};  // with b's elements above and below zero
  int below[2] = {};
};

Sums SumsOf(const AmxBlock& a, const uint8_t* codes, int64_t start, int64_t size) {
  Sums sums;
  for (int64_t i = 0; i < size; ++i) {
    const int code = GetCode(codes, start + i, E2M1::kBits), side = (code & E2M1::kSign) != 0;
    sums.above[side] += a.above[i] * kDoubled[code & 7];
    sums.below[side] += a.below[i] * kDoubled[code & 7];
  }
  return sums;
}

float RowProduct(const AmxBlock* a, const uint8_t* codes, const uint8_t* scales, int64_t k) {
  float y = 0.0f;
  for (int64_t start = 0; start < k; start += kPairBlock, ++a, scales += 2) {
    const Sums sums = SumsOf(*a, codes, start, std::min(kPairBlock, k - start));
    const float above = AmxScale::Decode(scales[0]), below = AmxScale::Decode(scales[1]);
    const auto combine = [&](const int (&s)[2]) {
      return std::fma(-below, static_cast<float>(s[1]), above * static_cast<float>(s[0]));
    };
    y = std::fma(a->above_scale, combine(sums.above), y);
    y = std::fma(-a->below_scale, combine(sums.below), y);
  }
  return y;
}

constexpr MatMulKernels kFew = {
    kPanel, nullptr, nullptr, NoScratch, MultiplyRowByRow<AmxBlock, kPanel, RowProduct>, &kForm};

}  // namespace

const PairKernels amxfp4_amxfp4_matmul__scalar = {&kFew, &f32_rows_matmul__scalar};

}  // namespace mxcompile
