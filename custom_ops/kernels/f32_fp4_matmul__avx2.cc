// float32 rows times E2M1 rows with AVX2 and FMA.
//
// Data layout: a panel is 32 rows of B. Each block of a panel is a record: its scale bytes [s][32 rows], then
// groups of 8 elements, [32 rows] of 32-bit words with k ascending from the low nibble. So 8 rows' words are
// one vector, and one shift by 4 brings the next k of 32 rows into place. Rows and elements that do not exist
// are zero bytes.
//
// One row of A (`MultiplyRow`): weights are decoded in registers. Plan: 4 accumulators (32 columns), 4
// vectors of words, the table, a broadcast; the factors of the block come from a small array in the L1 cache.
// Decoding takes six operations a vector, which outweigh the latency of four chained multiply-adds, so four
// accumulators are enough. (The same for 2 to 4 rows was measured slower than the way below: too few
// registers.)
//
// More rows: 128 k of the panel are decoded once to [128][32] float32 (16 KB, L1), then multiplied in tiles
// of 6 rows x 16 columns: 12 accumulators, 2 vectors of B, a broadcast of A; 12 independent chains cover the
// latency of two FMA units (4 cycles each). 1 to 3 leftover rows take 32 columns for the same reason. The
// sums of a tile are spilled to c between pieces of k: the same order of additions, hence the same bits.
#include <immintrin.h>

#include <cstring>

#include "kernels/f32_fp4_matmul.h"
#include "kernels/fp4_decode__avx2.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 32;
constexpr int64_t kVectors = kPanel / 8;
constexpr int64_t kGroup = 8;  // elements in a word
constexpr int64_t kGroupBytes = kPanel * 4;
constexpr int64_t kPiece = 128;  // k decoded at a time: a multiple of every block size

template <typename Decode>
int64_t RecordBytes(int64_t block) {
  return Decode::kCount * kPanel + CeilDiv(block, kGroup) * kGroupBytes;
}

template <typename Decode>
int64_t PackedBytes(int64_t k, int64_t block) {
  const int64_t rest = k % block;
  return k / block * RecordBytes<Decode>(block) + (rest != 0 ? RecordBytes<Decode>(rest) : 0);
}

template <typename Decode>
void Pack(const BRows& b, int64_t rows, int64_t k, int64_t block, uint8_t* packed) {
  std::memset(packed, 0, static_cast<size_t>(PackedBytes<Decode>(k, block)));
  for (int64_t start = 0; start < k; start += block) {
    uint8_t* record = packed + start / block * RecordBytes<Decode>(block);
    const int64_t scale = start / block * Decode::kCount, end = k - start < block ? k : start + block;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t s = 0; s < Decode::kCount; ++s)
        record[s * kPanel + r] = b.scales[r * b.scale_bytes + scale + s];
    }
    uint8_t* words = record + Decode::kCount * kPanel;
    for (int64_t i = start; i < end; i += kGroup, words += kGroupBytes) {
      const auto bytes = static_cast<size_t>(end - i < kGroup ? CeilDiv(end - i, 2) : kGroup / 2);
      const uint8_t* codes = b.codes + i / 2;
      if (bytes == 4) {
        for (int64_t r = 0; r < rows; ++r) std::memcpy(words + 4 * r, codes + r * b.code_bytes, 4);
      } else {
        for (int64_t r = 0; r < rows; ++r) std::memcpy(words + 4 * r, codes + r * b.code_bytes, bytes);
      }
    }
  }
}

int64_t ScratchFloats(int64_t) { return kPiece * kPanel; }

inline __m256i LoadWords(const uint8_t* words) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
}

// The factors of a block for 32 rows.
struct Sides {
  alignas(32) float positive[kPanel];
  alignas(32) float minus_negative[kPanel];
};

template <typename Decode>
inline void LoadSides(const uint8_t* record, Sides* sides) {
  for (int64_t j = 0; j < kPanel; j += 8) {
    const __m128i first = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(record + j));
    const uint8_t* second = record + (Decode::kCount - 1) * kPanel + j;
    const __m128i last = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(second));
    _mm256_store_ps(sides->positive + j, Decode::Decode(first));
    _mm256_store_ps(sides->minus_negative + j, Negate(Decode::Decode(last)));
  }
}

// Calls use(i, count, words, sides) for each group of the elements [start, end): count elements from i on.
// `start` is the beginning of a block. The count of a full group is a constant, so that the compiler unrolls
// it.
template <typename Decode, typename Use>
inline void ForGroups(const GemmArgs& args, int64_t start, int64_t end, const Use& use) {
  const uint8_t* record = args.packed + start / args.block * RecordBytes<Decode>(args.block);
  Sides sides;
  for (int64_t first = start; first < end; first += args.block, record += RecordBytes<Decode>(args.block)) {
    LoadSides<Decode>(record, &sides);
    const uint8_t* words = record + Decode::kCount * kPanel;
    const int64_t last = end - first < args.block ? end : first + args.block;
    int64_t i = first;
    for (; i + kGroup <= last; i += kGroup, words += kGroupBytes) use(i, kGroup, words, sides);
    if (i < last) use(i, last - i, words, sides);
  }
}

template <typename Decode>
void MultiplyRow(const GemmArgs& args) {
  const __m256 table = E2M1Table();
  __m256 sums[kVectors];
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  const auto multiply = [&](int64_t k, int64_t count, const uint8_t* words, const Sides& sides) {
    __m256i w[kVectors];
    for (int64_t j = 0; j < kVectors; ++j) w[j] = LoadWords(words + 32 * j);
    for (int64_t t = 0; t < count; ++t) {
      const __m256 x = _mm256_broadcast_ss(args.a + k + t);
      for (int64_t j = 0; j < kVectors; ++j) {
        const __m256 b = DecodeE2M1(table, w[j], _mm256_load_ps(sides.positive + 8 * j),
                                    _mm256_load_ps(sides.minus_negative + 8 * j));
        sums[j] = _mm256_fmadd_ps(x, b, sums[j]);
        w[j] = _mm256_srli_epi32(w[j], 4);
      }
    }
  };
  ForGroups<Decode>(args, 0, args.k, multiply);
  for (int64_t j = 0; j < kVectors; ++j) _mm256_storeu_ps(args.c + 8 * j, sums[j]);
}

// Elements [start, end) of the panel to [k][32] float32.
template <typename Decode>
void DecodePiece(const GemmArgs& args, int64_t start, int64_t end, float* decoded) {
  const __m256 table = E2M1Table();
  const auto decode = [&](int64_t k, int64_t count, const uint8_t* words, const Sides& sides) {
    for (int64_t j = 0; j < kVectors; ++j) {
      const __m256 positive = _mm256_load_ps(sides.positive + 8 * j);
      const __m256 minus_negative = _mm256_load_ps(sides.minus_negative + 8 * j);
      __m256i w = LoadWords(words + 32 * j);
      for (int64_t t = 0; t < count; ++t, w = _mm256_srli_epi32(w, 4)) {
        _mm256_store_ps(decoded + (k - start + t) * kPanel + 8 * j,
                        DecodeE2M1(table, w, positive, minus_negative));
      }
    }
  };
  ForGroups<Decode>(args, start, end, decode);
}

// c[kRows, 8 * kColumns] += a[kRows, size] * b[size, ...]; c and b have rows of 32.
template <int kRows, int kColumns>
void MultiplyTile(const float* a, int64_t a_stride, const float* b, int64_t size, float* c) {
  __m256 sums[kRows][kColumns];
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kColumns; ++j) sums[r][j] = _mm256_loadu_ps(c + r * kPanel + 8 * j);
  }
  for (int64_t i = 0; i < size; ++i, b += kPanel) {
    __m256 columns[kColumns];
    for (int j = 0; j < kColumns; ++j) columns[j] = _mm256_load_ps(b + 8 * j);
    for (int r = 0; r < kRows; ++r) {
      const __m256 x = _mm256_broadcast_ss(a + r * a_stride + i);
      for (int j = 0; j < kColumns; ++j) sums[r][j] = _mm256_fmadd_ps(x, columns[j], sums[r][j]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kColumns; ++j) _mm256_storeu_ps(c + r * kPanel + 8 * j, sums[r][j]);
  }
}

// 1 to 6 rows by the whole panel.
void MultiplyRows(int64_t rows, const float* a, int64_t a_stride, const float* b, int64_t size, float* c) {
  switch (rows) {
    case 1:
      return MultiplyTile<1, 4>(a, a_stride, b, size, c);
    case 2:
      return MultiplyTile<2, 4>(a, a_stride, b, size, c);
    case 3:
      return MultiplyTile<3, 4>(a, a_stride, b, size, c);
    case 4:
      MultiplyTile<4, 2>(a, a_stride, b, size, c);
      return MultiplyTile<4, 2>(a, a_stride, b + 16, size, c + 16);
    case 5:
      MultiplyTile<5, 2>(a, a_stride, b, size, c);
      return MultiplyTile<5, 2>(a, a_stride, b + 16, size, c + 16);
    default:
      MultiplyTile<6, 2>(a, a_stride, b, size, c);
      return MultiplyTile<6, 2>(a, a_stride, b + 16, size, c + 16);
  }
}

template <typename Decode>
void Gemm(const GemmArgs& args) {
  if (args.m == 1) return MultiplyRow<Decode>(args);
  constexpr int64_t kTileRows = 6;
  std::memset(args.c, 0, static_cast<size_t>(args.m * kPanel) * sizeof(float));
  for (int64_t start = 0; start < args.k; start += kPiece) {
    const int64_t size = args.k - start < kPiece ? args.k - start : kPiece;
    DecodePiece<Decode>(args, start, start + size, args.scratch);
    for (int64_t row = 0; row < args.m; row += kTileRows) {
      const int64_t rows = args.m - row < kTileRows ? args.m - row : kTileRows;
      MultiplyRows(rows, args.a + row * args.a_stride + start, args.a_stride, args.scratch, size,
                   args.c + row * kPanel);
    }
  }
}

template <typename Decode>
constexpr MatMulKernels Set() {
  return {kPanel, PackedBytes<Decode>, Pack<Decode>, ScratchFloats, Gemm<Decode>};
}

}  // namespace

const MatMulKernels f32_amxfp4_matmul__avx2 = Set<AmxDecode>();
const MatMulKernels f32_mxfp4_matmul__avx2 = Set<MxDecode>();

}  // namespace mxcompile
