// E2M1 rows, one element at a time: the reference that the other instruction sets must equal bit for bit.
//
// Data layout: see kernels.h. No register plan: this is the definition, written to be read.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/fp4_rows.h"
#include "kernels/fp4_scales.h"

namespace mxcompile {
namespace {

bool AllFinite(const float* x, int64_t size) {
  return std::all_of(x, x + size, [](float value) { return IsFinite(value); });
}

uint8_t EncodeElement(float x, const Sides& sides) {
  const float scale = x > 0.0f ? sides.positive : sides.negative;
  if (scale == 0.0f) return 0;
  const uint8_t index = E2M1Index(std::fabs(x) / scale);
  return static_cast<uint8_t>(index | (x < 0.0f && index > 0 ? kE2M1Sign : 0));
}

template <typename Scales>
void Quantize(const float* x, int64_t k, int64_t block, uint8_t* codes, uint8_t* scales) {
  std::memset(codes, 0, static_cast<size_t>(CeilDiv(k, 2)));
  for (int64_t start = 0; start < k; start += block, scales += Scales::kCount) {
    const int64_t end = std::min(k, start + block);
    if (!AllFinite(x + start, end - start)) {
      std::memset(scales, Scales::kNaN, Scales::kCount);
      continue;
    }
    Scales::Encode(x + start, end - start, scales);
    const Sides sides = Scales::Decode(scales);
    for (int64_t i = start; i < end; ++i) {
      const int code = EncodeElement(x[i], sides);
      codes[i / 2] = static_cast<uint8_t>(codes[i / 2] | code << (i % 2 * 4));
    }
  }
}

template <typename Scales>
void Dequantize(const uint8_t* codes, const uint8_t* scales, int64_t k, int64_t block, float* x) {
  for (int64_t i = 0; i < k; ++i) {
    const Sides sides = Scales::Decode(scales + i / block * Scales::kCount);
    const int code = codes[i / 2] >> (i % 2 * 4) & 15;
    x[i] = kE2M1Magnitudes[code & 7] * ((code & kE2M1Sign) != 0 ? -sides.negative : sides.positive);
  }
}

}  // namespace

const RowKernels amxfp4_rows__scalar = {Quantize<AmxScales>, Dequantize<AmxScales>};
const RowKernels mxfp4_rows__scalar = {Quantize<MxScales>, Dequantize<MxScales>};

}  // namespace mxcompile
