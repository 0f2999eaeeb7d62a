// Quantizing and dequantizing a tensor along any axis with the row kernels.
#pragma once

#include <optional>

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

// Units [begin, end) of x -> codes [outer, code bytes, inner] and scales [outer, groups, inner, s]. `amax` is
// the largest of LargestInUnits over the tensor. T is float or Half. False: out of memory.
template <typename T>
[[nodiscard]] bool QuantizeUnits(const Format& format, Isa isa, const AxisView& view, const T* x, float amax,
                                 int64_t begin, int64_t end, uint8_t* codes, uint8_t* scales);

// The largest magnitude in the finite blocks of the units; for formats with `largest`. Nothing: out of
// memory.
template <typename T>
std::optional<float> LargestInUnits(const Format& format, Isa isa, const AxisView& view, const T* x,
                                    int64_t begin, int64_t end);

// The inverse of QuantizeUnits, to float32.
[[nodiscard]] bool DequantizeUnits(const Format& format, Isa isa, const AxisView& view, const uint8_t* codes,
                                   const uint8_t* scales, int64_t begin, int64_t end, float* x);

}  // namespace mxcompile
