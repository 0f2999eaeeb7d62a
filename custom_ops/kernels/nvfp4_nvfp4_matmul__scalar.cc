// nvfp4 rows times nvfp4 rows, one element at a time: the reference. What is computed: nvfp4_blocks.h.
//
// Data layout: B as it comes. A block of A is 16 int8, in the order of k, and a quarter of its scale.
#include <algorithm>
#include <cmath>

#include "kernels/matmul_kernels.h"
#include "kernels/nvfp4_blocks.h"
#include "kernels/row_by_row__scalar.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 8;

struct Block {
  int8_t elements[kNvBlock];
  float scale;
};

int64_t RowBytes(int64_t k) { return CeilDiv(k, kNvBlock) * static_cast<int64_t>(sizeof(Block)); }

void Prepare(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t) {
  auto* block = reinterpret_cast<Block*>(prepared);
  scales += NvScales::kRowBytes;
  for (int64_t start = 0; start < k; start += kNvBlock, ++block, ++scales) {
    *block = {{}, E4M3::Decode(*scales) * 0.25f};
    for (int64_t i = start; i < std::min(k, start + kNvBlock); ++i)
      block->elements[i - start] = kDoubledSigned[GetCode(codes, i, E2M1::kBits)];
  }
}

constexpr RowForm kForm = {RowBytes, nullptr, Prepare};

float RowProduct(const Block* a, const uint8_t* codes, const uint8_t* scales, int64_t k) {
  float total = 0.0f;
  scales += NvScales::kRowBytes;
  for (int64_t start = 0; start < k; start += kNvBlock, ++a, ++scales) {
    int sum = 0;
    for (int64_t i = start; i < std::min(k, start + kNvBlock); ++i)
      sum += a->elements[i - start] * kDoubledSigned[GetCode(codes, i, E2M1::kBits)];
    total = std::fma(a->scale * E4M3::Decode(*scales), static_cast<float>(sum), total);
  }
  return total;
}

constexpr MatMulKernels kAny = WithTensorScalesApart(
    {kPanel, nullptr, nullptr, NoScratch, MultiplyRowByRow<Block, kPanel, RowProduct>, &kForm});

}  // namespace

const PairKernels nvfp4_nvfp4_matmul__scalar = {&kAny, &kAny};

}  // namespace mxcompile
