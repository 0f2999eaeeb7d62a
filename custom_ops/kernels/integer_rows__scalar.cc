// Rows of integers, one element at a time: the reference. Data layout: see kernels.h.
#include <cstring>

#include "kernels/integers.h"
#include "kernels/row_kernels.h"

namespace mxcompile {
namespace {

template <typename Number>
void Quantize(const float* x, const RowShape& row, float, uint8_t* codes, uint8_t* scales) {
  std::memset(codes, 0, static_cast<size_t>(CodeBytes(row.k, Number::kBits)));
  for (int64_t start = 0; start < row.k; start += row.block, scales += Number::kScaleBytes) {
    const int64_t end = std::min(row.k, start + row.block);
    if (!AllFinite(x + start, end - start)) {
      Number::Store(Number::NotFinite(), scales);
      continue;
    }
    const auto extremes = std::minmax_element(x + start, x + end);
    const auto scale = Number::ScaleOf(*extremes.first, *extremes.second);
    Number::Store(scale, scales);
    for (int64_t i = start; i < end; ++i) PutCode(codes, i, Number::kBits, Number::Encode(scale, x[i]));
  }
}

template <typename Number>
void Dequantize(const uint8_t* codes, const uint8_t* scales, const RowShape& row, int64_t begin, int64_t end,
                float* x) {
  for (int64_t i = begin; i < end; ++i) {
    const auto scale = Number::Load(scales + i / row.block * Number::kScaleBytes);
    x[i - begin] = Number::Decode(scale, GetCode(codes, i, Number::kBits));
  }
}

template <typename Number>
constexpr RowKernels Rows() {
  return {Quantize<Number>, Dequantize<Number>};
}

}  // namespace

const RowKernels dint4_rows__scalar = Rows<DInt4>();
const RowKernels dint3_rows__scalar = Rows<DInt3>();
const RowKernels int4_rows__scalar = Rows<Int4>();
const RowKernels int8_rows__scalar = Rows<Int8>();

}  // namespace mxcompile
