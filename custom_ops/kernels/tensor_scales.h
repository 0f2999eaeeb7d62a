// The tensor scales of a product of nvfp4 with itself, which multiply its sums: see nvfp4_blocks.h.
//
// Data layout: those of packed rows of B stand behind their panel, float32; those of rows that are not
// packed, or packed on the way, in front of the rows' scale bytes.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"
#include "kernels/nvfp4.h"

namespace mxcompile {

// A packed panel with what stands behind it.
inline int64_t PanelBytes(const MatMulKernels& kernels, const RowShape& row) {
  return kernels.packed_bytes(row) + (kernels.tensor_scales_apart ? kernels.panel * NvScales::kRowBytes : 0);
}

// Packs rows of constant B.
inline void PackPanel(const MatMulKernels& kernels, const BRows& b, int64_t rows, const RowShape& row,
                      uint8_t* packed) {
  kernels.pack(b, rows, row, packed);
  if (!kernels.tensor_scales_apart) return;
  packed += kernels.packed_bytes(row);
  std::memset(packed, 0, static_cast<size_t>(kernels.panel * NvScales::kRowBytes));
  for (int64_t r = 0; r < rows; ++r, packed += NvScales::kRowBytes)
    std::memcpy(packed, b.scales + r * b.scale_bytes, NvScales::kRowBytes);
}

// What the sums of a panel's columns are multiplied by.
class SumFactors {
 public:
  // That of B's row c stands at b_scales + c * b_stride.
  SumFactors(float a_scale, const uint8_t* b_scales, int64_t b_stride, int64_t columns) : columns_(columns) {
    for (int64_t c = 0; c < columns; ++c)
      factors_[c] = static_cast<double>(a_scale) * static_cast<double>(LoadFloat(b_scales + c * b_stride));
  }

  void Multiply(float* sums) const {
    for (int64_t c = 0; c < columns_; ++c)
      sums[c] = static_cast<float>(static_cast<double>(sums[c]) * factors_[c]);
  }

 private:
  static constexpr int64_t kMaxPanel = 64;
  int64_t columns_;
  double factors_[kMaxPanel];
};

}  // namespace mxcompile
