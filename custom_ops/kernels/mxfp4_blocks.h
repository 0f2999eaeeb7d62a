// What the products of mxfp4 rows with mxfp4 rows compute; unnamed namespace: see elements.h.
//
// A block of 32 elements of A and one of B have a sum s of products of doubled E2M1 elements: an exact
// integer of at most 4608. With the block's scales a and b and everything in float32, for ascending blocks
// from y = 0:
//   y = fma(a / 4, b * s, y)
// The product b * s is exact unless it leaves the range of float32. A scale of NaN makes its whole block NaN.
// Elements missing from the last block are zeros.
#pragma once

#include "kernels/block_scales.h"
#include "kernels/kernels.h"

namespace mxcompile {
namespace {

constexpr int8_t kDoubledSigned[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace
}  // namespace mxcompile
