// AMXINT4 rows, one element at a time: the reference. Data layout: see kernels.h and amxint4.h.
#include "kernels/amxint4.h"
#include "kernels/row_kernels.h"

namespace mxcompile {
namespace {

void Quantize(const float* x, const RowShape& row, float, uint8_t* codes, uint8_t* scales) {
  for (int64_t start = 0; start < row.k; start += row.block, scales += AmxInt4::kScaleBytes) {
    const int64_t end = std::min(row.k, start + row.block);
    if (!AllFinite(x + start, end - start)) {
      AmxInt4::Store(AmxInt4::NotFinite(), scales);
      std::fill(codes + start, codes + end, uint8_t{0});
      continue;
    }
    const auto extremes = std::minmax_element(x + start, x + end);
    const AmxInt4::Scale scale = AmxInt4::ScaleOf(*extremes.first, *extremes.second, row);
    AmxInt4::Store(scale, scales);
    for (int64_t i = start; i < end; ++i) {
      const float q = std::round(x[i] / scale.s + scale.shift);
      codes[i] = static_cast<uint8_t>(static_cast<int>(std::clamp(q, -AmxInt4::kLimit, AmxInt4::kLimit)));
    }
  }
}

void Dequantize(const uint8_t* codes, const uint8_t* scales, const RowShape& row, int64_t begin, int64_t end,
                float* x) {
  for (int64_t i = begin; i < end; ++i) {
    const AmxInt4::Scale scale = AmxInt4::Load(scales + i / row.block * AmxInt4::kScaleBytes);
    x[i - begin] = (static_cast<float>(static_cast<int8_t>(codes[i])) - scale.shift) * scale.s;
  }
}

}  // namespace

const RowKernels amxint4_rows__scalar = {Quantize, Dequantize};

}  // namespace mxcompile
