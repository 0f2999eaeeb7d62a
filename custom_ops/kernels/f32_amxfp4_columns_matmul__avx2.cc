// float32 rows times constant amxfp4 rows with AVX2 and FMA: what multiplies more rows of A than
// amxfp4_few_matmul__avx2.cc does.
//
// Data layout: amxfp4_columns__avx2.h. 32 rows of B at a time, those of the low nibbles before those of the
// high ones, are decoded to scratch and multiplied as f32_tile__avx2.h says. Decoding the first 32 asks for
// the memory of both, some records ahead.
//
// Register plan of decoding, 16 rows: 4 factors, the table, 2 orders of bytes that bring 8 rows' codes into
// 32-bit lanes, a column, 4 for what is decoded. Per 8 weights 5 operations and a store, half a shift for the
// high nibbles. Bound: the multiply-adds, from some 16 rows on.
#include <immintrin.h>

#include <cstring>

#include "kernels/amxfp4_columns__avx2.h"
#include "kernels/codes.h"
#include "kernels/f32_tile__avx2.h"
#include "kernels/matmul_kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kVectors = kPanel / 8;
constexpr int64_t kMaxRows = 252;  // sums of a panel: 63 KB, in the L2 cache

// Where row r stands in a column; r + 32 stands there too.
constexpr int64_t ByteOf(int64_t r) { return r / 4 % 2 * 16 + r % 32 / 8 * 4 + r % 4; }

// A row's part of a record: its scales, and `bytes` bytes of codes.
void PackRow(const uint8_t* codes, int64_t bytes, const uint8_t* scales, int64_t r, uint8_t* record) {
  record[r / 8 * 16 + r % 8] = scales[0];
  record[r / 8 * 16 + 8 + r % 8] = scales[1];
  uint8_t* column = record + kColumnScales + ByteOf(r);
  const int shift = r < kPanel ? 0 : 4;
  for (int64_t i = 0; i < bytes; ++i, column += 2 * kColumnBytes) {
    column[0] = static_cast<uint8_t>(column[0] | (codes[i] & 0x0F) << shift);
    column[kColumnBytes] = static_cast<uint8_t>(column[kColumnBytes] | (codes[i] >> 4) << shift);
  }
}

// Vector j of a column: bytes 4 j to 4 j + 3 of 128 bits, one in each lane; what stands above is zero.
inline __m256i OrderOf(int64_t j) {
  const __m256i first = _mm256_set1_epi32(static_cast<int32_t>(0x80808000 | 4 * j));
  return _mm256_add_epi32(first, _mm256_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3));
}

// 16 rows of a block, vectors kFirst and kFirst + 1 of the high nibbles or of the low ones, to [k][32]
// float32.
template <bool kHigh, int kFirst>
inline void DecodeRows(const uint8_t* record, int64_t count, float* decoded) {
  const uint8_t* const scales = record + (kHigh ? kColumnScales / 2 : 0) + 16 * kFirst;
  const ColumnScales left(scales), right(scales + 16);
  const __m256 left_minus_below = Negate(left.below), right_minus_below = Negate(right.below);
  const uint8_t* column = record + kColumnScales;
  decoded += 8 * kFirst;
  for (int64_t i = 0; i < count; ++i, column += kColumnBytes, decoded += kPanel) {
    __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(column));
    if constexpr (kHigh) codes = _mm256_srli_epi16(codes, 4);
    const __m256i left_codes = _mm256_shuffle_epi8(codes, OrderOf(kFirst));
    const __m256i right_codes = _mm256_shuffle_epi8(codes, OrderOf(kFirst + 1));
    _mm256_store_ps(decoded, DecodeE2M1(E2M1Table(), left_codes, left.above, left_minus_below));
    _mm256_store_ps(decoded + 8, DecodeE2M1(E2M1Table(), right_codes, right.above, right_minus_below));
  }
}

// 32 rows of B with all rows of A.
template <bool kHigh>
void MultiplyHalf(GemmArgs args) {
  if (kHigh) args.c += kPanel;
  ForPieces<kColumnRows>(args, args.scratch, [&](int64_t start, int64_t end) {
    for (int64_t k = start; k < end; k += kPairBlock) {
      const uint8_t* const record = args.packed + k / kPairBlock * kColumnRecord;
      const int64_t count = end - k < kPairBlock ? end - k : kPairBlock;
      if (!kHigh) PrefetchAhead(record, kColumnRecord);
      DecodeRows<kHigh, 0>(record, count, args.scratch + (k - start) * kPanel);
      DecodeRows<kHigh, 2>(record, count, args.scratch + (k - start) * kPanel);
    }
  });
}

void Gemm(const GemmArgs& args) {
  MultiplyHalf<false>(args);
  if (args.b_rows > kPanel) MultiplyHalf<true>(args);
}

int64_t ScratchFloats(const RowShape&) { return kDecodeStep * kPanel; }

}  // namespace

int64_t PackedAmxfp4Bytes__avx2(const RowShape& row) { return CeilDiv(row.k, kPairBlock) * kColumnRecord; }

void PackAmxfp4__avx2(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed) {
  std::memset(packed, 0, static_cast<size_t>(PackedAmxfp4Bytes__avx2(row)));
  const int64_t code_bytes = CodeBytes(row.k, 4), whole = kPairBlock / 2;
  for (int64_t start = 0; start < code_bytes; start += whole, packed += kColumnRecord) {
    const int64_t bytes = code_bytes - start < whole ? code_bytes - start : whole;
    for (int64_t r = 0; r < rows; ++r) {
      PackRow(b.codes + r * b.code_bytes + start, bytes, b.scales + r * b.scale_bytes + 2 * start / whole, r,
              packed);
    }
  }
}

const MatMulKernels f32_amxfp4_columns_matmul__avx2 = {
    kColumnRows, PackedAmxfp4Bytes__avx2, PackAmxfp4__avx2, ScratchFloats, Gemm, nullptr, kMaxRows};

}  // namespace mxcompile
