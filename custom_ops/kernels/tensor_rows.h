// Quantizing and dequantizing a tensor along any axis with the row kernels.
#pragma once

#include "kernels/formats.h"

namespace mxcompile {

// A tensor around one axis: [outer, k, inner].
struct AxisView {
  int64_t outer;
  int64_t k;
  int64_t inner;
};

// Independent pieces of work: a row if inner is 1, else a strip of up to 16 neighbouring columns.
int64_t UnitCount(const AxisView& view);

// Units [begin, end) of x -> codes [outer, ceil(k / 2), inner] and scales [outer, blocks, inner, s].
// T is float or Half.
template <typename T>
void QuantizeUnits(const Format& format, Isa isa, const AxisView& view, const T* x, int64_t begin,
                   int64_t end, uint8_t* codes, uint8_t* scales);

// The inverse, to float32.
void DequantizeUnits(const Format& format, Isa isa, const AxisView& view, const uint8_t* codes,
                     const uint8_t* scales, int64_t begin, int64_t end, float* x);

}  // namespace mxcompile
