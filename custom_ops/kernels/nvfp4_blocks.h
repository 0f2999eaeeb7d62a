// What the products of nvfp4 rows with nvfp4 rows compute; unnamed namespace: see elements.h.
//
// A block of 16 elements of A and one of B have a sum s of products of doubled E2M1 elements: an exact
// integer of at most 2304. With the blocks' scales a and b (E4M3, 4 significant bits), for ascending blocks
// from t = 0 in float32:
//   t = fma(a / 4 * b, s, t)
// The product of the scales is exact. A scale of NaN makes its whole block NaN. Elements missing from the
// last block are zeros. Then the tensor scales, in float64, rounded to float32:
//   y = t * (tensor scale of A * that of B's row)
// Their product is exact there, 48 bits, and neither it nor y leaves the range before the last rounding: in
// float32 a tiny scale times another, or a huge one times t, may, where y does not.
#pragma once

#include "kernels/mxfp4_blocks.h"
#include "kernels/nvfp4.h"

namespace mxcompile {
namespace {

constexpr int64_t kNvBlock = 16;

// How E4M3 scales are read as float16: these times 2^-8, so that those of A are the larger for it.
constexpr float kNvHalves = 256.0f;

// A set of these. Its sums have to be multiplied by the tensor scales, so they are not yet Y.
constexpr MatMulKernels WithTensorScalesApart(MatMulKernels set) {
  set.tensor_scales_apart = true;
  set.direct_k = 0;
  return set;
}

}  // namespace
}  // namespace mxcompile
