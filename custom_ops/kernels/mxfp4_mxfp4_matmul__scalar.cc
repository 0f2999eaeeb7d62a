// mxfp4 rows times mxfp4 rows, one element at a time: the reference. What is computed: mxfp4_blocks.h.
//
// Data layout: B as it comes. A block of A is 32 int8, in the order of k, and a quarter of its scale.
#include <algorithm>
#include <cmath>

#include "kernels/matmul_kernels.h"
#include "kernels/mxfp4_blocks.h"
#include "kernels/row_by_row__scalar.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 8;

struct Block {
  int8_t elements[kPairBlock];
  float scale;
};

int64_t RowBytes(int64_t k) { return CeilDiv(k, kPairBlock) * static_cast<int64_t>(sizeof(Block)); }

void Prepare(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t) {
  auto* block = reinterpret_cast<Block*>(prepared);
  for (int64_t start = 0; start < k; start += kPairBlock, ++block, ++scales) {
    *block = {{}, DecodeE8M0(*scales) * 0.25f};
    for (int64_t i = start; i < std::min(k, start + kPairBlock); ++i)
      block->elements[i - start] = kDoubledSigned[GetCode(codes, i, E2M1::kBits)];
  }
}

constexpr RowForm kForm = {RowBytes, nullptr, Prepare};

float RowProduct(const Block* a, const uint8_t* codes, const uint8_t* scales, int64_t k) {
  float y = 0.0f;
  for (int64_t start = 0; start < k; start += kPairBlock, ++a, ++scales) {
    int sum = 0;
    for (int64_t i = start; i < std::min(k, start + kPairBlock); ++i)
      sum += a->elements[i - start] * kDoubledSigned[GetCode(codes, i, E2M1::kBits)];
    y = std::fma(a->scale, DecodeE8M0(*scales) * static_cast<float>(sum), y);
  }
  return y;
}

constexpr MatMulKernels kAny = {
    kPanel, nullptr, nullptr, NoScratch, MultiplyRowByRow<Block, kPanel, RowProduct>, &kForm};

}  // namespace

const PairKernels mxfp4_mxfp4_matmul__scalar = {&kAny, &kAny};

}  // namespace mxcompile
