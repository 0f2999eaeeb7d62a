// Rows of A to mxfp4, in the form of mxfp4_dot__avx512vnni.h; unnamed namespace: see elements.h.
//
// Quantizing (fp4_encode__avx512.h) ends with the number of an element, which is what a code is; it becomes
// the element by one vpermw, where codes and scale bytes would have been packed, written, read and unpacked.
#pragma once

#include <algorithm>

#include "kernels/fp4_encode__avx512.h"
#include "kernels/interleaved_rows__avx512.h"
#include "kernels/mxfp4_dot__avx512vnni.h"
#include "kernels/row_kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kPieceElements = kEncodeBatch * kEncodeBlock, kBlockBytes = 4 * kBlockUnits;
constexpr int64_t kPieceStride = kEncodeBatch * kBlockBytes;  // a multiple of 64

// The numbers of an ElementOrder are those of the even elements, then those of the odd ones.
constexpr BlockOrder ToBlockOrder(const ElementOrder& order) {
  BlockOrder result = {};
  for (int i = 0; i < kEncodeBlock; ++i) {
    const int number = order.numbers[i];
    result.elements[i] = static_cast<uint16_t>(number < 16 ? 2 * number : 2 * (number - 16) + 1);
  }
  return result;
}

template <const ElementOrder& kOrder>
constexpr BlockOrder kWordOrder = ToBlockOrder(kOrder);

// The ends of 16 blocks but for their sums. A scale that is not special is so large that a quarter of it is a
// normal number.
struct PieceEnds {
  alignas(64) int32_t scales[kEncodeBatch], exponents[kEncodeBatch];

  explicit PieceEnds(__m512i bytes) {
    const auto exponent = [&](int minus) {
      return _mm512_slli_epi32(_mm512_sub_epi32(bytes, _mm512_set1_epi32(minus)), 23);
    };
    _mm512_store_si512(scales, exponent(2));
    _mm512_store_si512(exponents, exponent(127 + 2));
  }
};

// Elements of a block in their order.
template <const ElementOrder& kOrder>
inline __m256i ElementsOf(const float* x, __m512 factors) {
  const __m256i table = _mm512_cvtepi32_epi16(_mm512_srli_epi32(Thresholds(factors), 16));
  const auto* values = reinterpret_cast<const __m128i*>(kDoubledSigned);
  const __m256i words = _mm256_cvtepi8_epi16(_mm_loadu_si128(values));
  const __m512i codes = Codes<kWordOrder<kOrder>>(x, _mm512_castsi256_si512(table));
  return _mm512_cvtepi16_epi8(_mm512_permutexvar_epi16(codes, _mm512_broadcast_i64x4(words)));
}

// A piece of a row; whether its scales are tame. `plain` quantizes a block that the factors cannot serve.
template <typename Encode, const ElementOrder& kOrder>
inline bool QuantizePiece(const Blocks& blocks, QuantizeRow plain, uint8_t* to) {
  const Scaled scaled = Scale<Encode>(blocks);
  const __m512i found = scaled.above.bytes;
  const __m512i bytes =
      _mm512_mask_mov_epi32(found, _mm512_testn_epi32_mask(found, found), _mm512_set1_epi32(kScaleOfZeros));
  const PieceEnds ends(bytes);
  for (int64_t b = 0; b < blocks.count(); ++b) {
    const __m256i elements = ElementsOf<kOrder>(blocks[b], FactorsOf(scaled, b));
    const int32_t end[kEndUnits] = {-12 * SumOfBytes(elements), ends.scales[b], ends.exponents[b]};
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + b * kBlockBytes), elements);
    std::memcpy(to + b * kBlockBytes + kEncodeBlock, end, sizeof(end));
  }
  const auto usual = static_cast<__mmask16>(((1u << blocks.count()) - 1) & ~scaled.special);
  const __m512i above_first = _mm512_sub_epi32(bytes, _mm512_set1_epi32(kTameFirst));
  const __m512i last = _mm512_set1_epi32(kTameLast - kTameFirst);
  bool tame = _mm512_mask_cmpgt_epu32_mask(usual, above_first, last) == 0;
  for (int64_t b = 0; scaled.special >> b != 0; ++b) {
    if ((scaled.special >> b & 1) == 0) continue;
    uint8_t codes[kEncodeBlock / 2], scale;
    const int64_t size = blocks.SizeOf(b);
    plain(blocks.InRow(b), {size, kEncodeBlock}, 0.0f, codes, &scale);
    if (!PrepareBlock<kOrder>(codes, scale, size, to + b * kBlockBytes, 4)) tame = false;
  }
  return tame;
}

// As RowForm::quantize.
template <typename Encode, const RowKernels& kPlain, const ElementOrder& kOrder>
void QuantizeTile(const float* x, int64_t rows, int64_t k, uint8_t* prepared, int64_t tile) {
  alignas(64) uint8_t pieces[kMostRows * kPieceStride];
  int32_t tame[kMostRows];
  std::fill_n(tame, kMostRows, 1);
  for (int64_t start = 0; start < k; start += kPieceElements) {
    const int64_t blocks = CeilDiv(k - start < kPieceElements ? k - start : kPieceElements, kEncodeBlock);
    for (int64_t r = 0; r < rows; ++r) {
      uint8_t* const to = tile == 1 ? prepared : pieces + r * kPieceStride;
      const Blocks row(x + r * k + start, k - start);
      if (!QuantizePiece<Encode, kOrder>(row, kPlain.quantize, to)) tame[r] = 0;
    }
    if (tile > 1) Interleave(pieces, kPieceStride, rows, blocks * kBlockUnits, prepared, tile);
    prepared += blocks * kBlockBytes * tile;
  }
  std::memcpy(prepared, tame, static_cast<size_t>(4 * rows));
}

}  // namespace
}  // namespace mxcompile
