// Rows of block-scaled elements, one element at a time: the reference that the other instruction sets must
// equal bit for bit.
//
// Data layout: see kernels.h. A block has one scale, or one for the elements above zero and one for the
// others. No register plan: this is the definition, written to be read.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/block_scales.h"
#include "kernels/row_kernels.h"

namespace mxcompile {
namespace {

// kSides scale bytes of a finite block.
template <typename Scale, int kSides>
void EncodeScales(const float* x, int64_t size, uint8_t* scales) {
  float largest = 0.0f, smallest = 0.0f;
  for (int64_t i = 0; i < size; ++i) {
    largest = std::max(largest, x[i]);
    smallest = std::min(smallest, x[i]);
  }
  const float below = std::fabs(smallest);
  scales[0] = Scale::Encode(kSides == 2 ? largest : std::max(largest, below));
  if (kSides == 2) scales[1] = Scale::Encode(below);
}

template <typename Element>
int EncodeElement(float x, float scale) {
  if (scale == 0.0f) return 0;
  const int code = Element::Encode(std::fabs(x) / scale);
  return x < 0.0f && code > 0 ? Element::Negative(code) : code;
}

template <typename Element, typename Scale, int kSides>
void Quantize(const float* x, const RowShape& row, float, uint8_t* codes, uint8_t* scales) {
  std::memset(codes, 0, static_cast<size_t>(CodeBytes(row.k, Element::kBits)));
  for (int64_t start = 0; start < row.k; start += row.block, scales += kSides) {
    const int64_t end = std::min(row.k, start + row.block);
    if (!AllFinite(x + start, end - start)) {
      std::memset(scales, Scale::kNaN, kSides);
      continue;
    }
    EncodeScales<Scale, kSides>(x + start, end - start, scales);
    const float above = Scale::Decode(scales[0]), others = Scale::Decode(scales[kSides - 1]);
    for (int64_t i = start; i < end; ++i)
      PutCode(codes, i, Element::kBits, EncodeElement<Element>(x[i], x[i] > 0.0f ? above : others));
  }
}

template <typename Element, typename Scale, int kSides>
void Dequantize(const uint8_t* codes, const uint8_t* scales, const RowShape& row, int64_t begin, int64_t end,
                float* x) {
  for (int64_t i = begin; i < end; ++i) {
    const uint8_t* scale = scales + i / row.block * kSides;
    const int code = GetCode(codes, i, Element::kBits);
    const bool negative = (code >> (Element::kBits - 1) & 1) != 0;
    x[i - begin] = Element::Decode(code) * Scale::Decode(scale[negative ? kSides - 1 : 0]);
  }
}

template <typename Element, typename Scale, int kSides>
constexpr RowKernels Rows() {
  return {Quantize<Element, Scale, kSides>, Dequantize<Element, Scale, kSides>};
}

template <typename Element, bool kEven = false>
constexpr RowKernels Mx() {
  return Rows<Element, PowerScale<Element, kEven>, 1>();
}

}  // namespace

const RowKernels amxfp4_rows__scalar = Rows<E2M1, AmxScale, 2>();
const RowKernels amxfp4_pot_rows__scalar = Rows<E2M1, PowerScale<E2M1, false>, 2>();
const RowKernels amxfp4_pot_r_rows__scalar = Rows<E2M1, PowerScale<E2M1, true>, 2>();
const RowKernels amxfp4_e4m3_rows__scalar = Rows<E2M1, AmxE4M3Scale, 2>();
const RowKernels mxfp4_rows__scalar = Mx<E2M1>();
const RowKernels mxfp4_even_rows__scalar = Mx<E2M1, true>();
const RowKernels mxfp6_e3m2_rows__scalar = Mx<E3M2>();
const RowKernels mxfp6_e2m3_rows__scalar = Mx<E2M3>();
const RowKernels mxfp8_e4m3_rows__scalar = Mx<E4M3>();
const RowKernels mxfp8_e5m2_rows__scalar = Mx<E5M2>();
const RowKernels mxint8_rows__scalar = Mx<MxInt8>();

}  // namespace mxcompile
