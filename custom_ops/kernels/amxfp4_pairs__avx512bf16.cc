// Rows of A to amxfp4, as the pairs of bfloat16 that vdpbf16ps multiplies; see bf16_tiles__avx512bf16.h.
//
// Quantizing (fp4_encode__avx512.h) ends with the number of an element, which is what a code is; a table of
// what the codes of the block stand for, with its scales, then gives the element itself: one vpermw more,
// where codes and scale bytes would have been packed, written, read and unpacked.
#include "kernels/bf16_fp4__avx512bf16.h"
#include "kernels/fp4_encode__avx512.h"
#include "kernels/interleaved_rows__avx512.h"
#include "kernels/row_kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kBlockBytes = 64;  // of pairs
constexpr int64_t kPiece = kEncodeBatch * kEncodeBlock, kPieceBytes = kEncodeBatch * kBlockBytes;

// The even element of a pair stands in the upper word.
constexpr BlockOrder InPairs() {
  BlockOrder order = {};
  for (int i = 0; i < kEncodeBlock; ++i) order.elements[i] = static_cast<uint16_t>(i ^ 1);
  return order;
}

constexpr BlockOrder kOrder = InPairs();

constexpr BlockOrder UpperWords() {
  BlockOrder order = {};
  for (int i = 0; i < kEncodeBlock; ++i) order.elements[i] = static_cast<uint16_t>(2 * i + 1);
  return order;
}

constexpr BlockOrder kUpperWords = UpperWords();

// The pairs of a block whose scales are these factors.
inline __m512i PairsOf(const float* x, __m512 factors) {
  const __m512 elements = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, 0.0f, -0.5f, -1.0f,
                                         -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
  // Zero in any case: the factor that stands for a scale of 0 is infinity.
  const __m512 values = _mm512_maskz_mul_ps(0xFEFE, factors, elements);
  const __m512i table = _mm512_permutex2var_epi16(
      Thresholds(factors), _mm512_load_si512(kUpperWords.elements), _mm512_castps_si512(values));
  const __m512i codes = Codes<kOrder>(x, table);
  return _mm512_permutexvar_epi16(_mm512_add_epi16(codes, _mm512_set1_epi16(16)), table);
}

void QuantizePiece(const Blocks& blocks, uint8_t* to) {
  const Scaled scaled = Scale<FloatEncode>(blocks);
  for (int64_t b = 0; b < blocks.count(); ++b)
    _mm512_storeu_si512(to + b * kBlockBytes, PairsOf(blocks[b], FactorsOf(scaled, b)));
  for (int64_t b = 0; scaled.special >> b != 0; ++b) {
    if ((scaled.special >> b & 1) == 0) continue;
    uint8_t codes[kEncodeBlock / 2], scales[2];
    const int64_t size = blocks.SizeOf(b);
    amxfp4_rows__avx2.quantize(blocks.InRow(b), {size, kEncodeBlock}, 0.0f, codes, scales);
    PrepareRow(codes, scales, size, to + b * kBlockBytes, 4);
  }
}

}  // namespace

void QuantizePairs__avx512bf16(const float* x, int64_t rows, int64_t k, uint8_t* prepared, int64_t tile) {
  alignas(64) uint8_t pieces[kMostRows * kPieceBytes];
  for (int64_t start = 0; start < k; start += kPiece, prepared += kPieceBytes * tile) {
    for (int64_t r = 0; r < rows; ++r)
      QuantizePiece(Blocks(x + r * k + start, k - start), tile == 1 ? prepared : pieces + r * kPieceBytes);
    const int64_t units = (kBlockBytes / 4) * CeilDiv(k - start < kPiece ? k - start : kPiece, kEncodeBlock);
    if (tile > 1) Interleave(pieces, kPieceBytes, rows, units, prepared, tile);
  }
}

}  // namespace mxcompile
