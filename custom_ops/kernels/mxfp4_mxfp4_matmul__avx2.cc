// mxfp4 rows times mxfp4 rows with AVX2. What is computed: mxfp4_blocks.h.
//
// Data layout: B as in f32_packed_matmul__avx2.cc: in a block's record 32 bytes of scales, then for each 8
// elements 32 words, one a row, k ascending from the lowest nibble. The low nibbles of a word's bytes are the
// even elements, the high ones the odd ones; in that order stand the elements of A, 4 even ones, 4 odd ones.
//
// vpmaddubsw multiplies bytes without sign by bytes with sign: elements of B come as e + 12, and a sum begins
// with -12 times the sum of A's elements in one lane of each pair. Sums of int16 hold a block: a lane adds 16
// products of at most 24 * 12, 4608, to no less than -4608.
//
// Register plan: 3 rows of A by 16 rows of B: 6 sums, 6 results, 2 vectors of B, a broadcast of A, the ones
// that add pairs. One row: 4 sums and 4 results, for all 32 rows of B. Up to 3 rows decode B in registers;
// more take it from scratch, 512 k at a time (18 KB, L1). Per row, 8 rows of B and 32 k: 8 vpmaddubsw, 8
// additions and 4 operations to finish; decoding them 8 vpshufb and 12 to get at nibbles. Bound: for many
// rows the multipliers, which vpmaddubsw shares with vfmadd: 6 cycles; for one row reading B.
#include "kernels/elements__avx2.h"
#include "kernels/matmul_kernels.h"
#include "kernels/mxfp4_blocks.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 32, kVectors = kPanel / 8, kScales = kPanel, kGroupBytes = 4 * kPanel;
constexpr int64_t kRecord = kScales + kPairBlock / 8 * kGroupBytes;
constexpr int64_t kDecoded = kPairBlock * kPanel;  // bytes of a decoded block
constexpr int64_t kPieceBlocks = 16;
constexpr int64_t kFewRows = 3;
constexpr int kSteps = 8;  // of 4 elements each

struct Block {
  int8_t elements[kPairBlock];
  uint32_t start;  // of a pair of sums: -12 times the sum of the elements, and 0
  float scale;     // a quarter of the block's
};

int64_t RowBytes(int64_t k) { return CeilDiv(k, kPairBlock) * static_cast<int64_t>(sizeof(Block)); }

inline __m256i Table(int8_t offset) {
  alignas(16) int8_t table[16];
  for (int i = 0; i < 16; ++i) table[i] = static_cast<int8_t>(kDoubledSigned[i] + offset);
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
}

void Prepare(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t) {
  const __m128i nibble = _mm_set1_epi8(0x0F);
  const __m256i table = Table(0);
  auto* block = reinterpret_cast<Block*>(prepared);
  for (int64_t start = 0; start < k; start += kPairBlock, ++block, ++scales) {
    const int64_t count = k - start < kPairBlock ? k - start : kPairBlock;
    __m128i bytes = _mm_setzero_si128();
    std::memcpy(&bytes, codes + start / 2, static_cast<size_t>(CodeBytes(count, 4)));
    const __m128i even = _mm_and_si128(bytes, nibble), odd = _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble);
    const __m256i order = _mm256_set_m128i(_mm_unpackhi_epi32(even, odd), _mm_unpacklo_epi32(even, odd));
    const __m256i elements = _mm256_shuffle_epi8(table, order);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(block->elements), elements);
    const __m256i fours =
        _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(12), elements), _mm256_set1_epi16(-1));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
    block->start = static_cast<uint32_t>(_mm_cvtsi128_si32(sum)) & 0xFFFF;
    block->scale = DecodeE8M0(*scales) * 0.25f;
  }
}

constexpr RowForm kForm = {RowBytes, nullptr, Prepare};

// Where a tile finds B: decoded on the way from records, or in scratch, [blocks][8][32] words and scales.
class Records {
 public:
  explicit Records(const uint8_t* packed) : record_(packed), table_(Table(12)) {}

  inline void Prefetch() const { PrefetchAhead(record_, kRecord); }
  inline __m256i Words(int step, int64_t vector) const {
    const uint8_t* from = record_ + kScales + step / 2 * kGroupBytes + 32 * vector;
    __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    if (step % 2 == 1) codes = _mm256_srli_epi16(codes, 4);
    return _mm256_shuffle_epi8(table_, _mm256_and_si256(codes, _mm256_set1_epi8(0x0F)));
  }
  inline __m256 BlockScales(int64_t vector) const {
    return DecodeE8M0x8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(record_ + 8 * vector)));
  }
  inline void Next() { record_ += kRecord; }

 private:
  const uint8_t* record_;
  __m256i table_;
};

class Decoded {
 public:
  Decoded(const uint8_t* words, const float* scales) : words_(words), scales_(scales) {}

  inline void Prefetch() const {}
  inline __m256i Words(int step, int64_t vector) const {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(words_ + step * kGroupBytes + 32 * vector));
  }
  inline __m256 BlockScales(int64_t vector) const { return _mm256_load_ps(scales_ + 8 * vector); }
  inline void Next() {
    words_ += kDecoded;
    scales_ += kPanel;
  }

 private:
  const uint8_t* words_;
  const float* scales_;
};

inline __m256i Units(const void* from) {
  int32_t unit;
  std::memcpy(&unit, from, sizeof(unit));
  return _mm256_set1_epi32(unit);
}

// Rows of A's blocks.
struct Rows {
  const uint8_t* first;
  int64_t stride;  // bytes

  inline const Block& At(int64_t row, int64_t block) const {
    return reinterpret_cast<const Block*>(first + row * stride)[block];
  }
};

// c[kRows, 8 * kCount] += a[kRows, blocks] * b[blocks, ...]: kCount vectors of 8 rows of B from `vector` on.
template <int kRows, int kCount, typename Source>
[[gnu::flatten]] void MultiplyTile(const Rows& a, Source b, int64_t vector, int64_t blocks, float* c) {
  __m256 y[kRows][kCount];
  Unroll<kRows>([&](auto r) {
    Unroll<kCount>([&](auto j) { y[r][j] = _mm256_loadu_ps(c + r * kPanel + 8 * (vector + j)); });
  });
  for (int64_t i = 0; i < blocks; ++i, b.Next()) {
    b.Prefetch();
    __m256i sums[kRows][kCount];
    Unroll<kRows>([&](auto r) { Unroll<kCount>([&](auto j) { sums[r][j] = Units(&a.At(r, i).start); }); });
    Unroll<kSteps>([&](auto step) {
      __m256i words[kCount];
      Unroll<kCount>([&](auto j) { words[j] = b.Words(step, vector + j); });
      Unroll<kRows>([&](auto r) {
        const __m256i x = Units(a.At(r, i).elements + 4 * step);
        Unroll<kCount>([&](auto j) {
          sums[r][j] = _mm256_add_epi16(sums[r][j], _mm256_maddubs_epi16(words[j], x));
          KeepInOrder(sums[r][j]);
        });
      });
    });
    Unroll<kCount>([&](auto j) {
      const __m256 scales = b.BlockScales(vector + j);
      Unroll<kRows>([&](auto r) {
        const __m256i pairs = _mm256_madd_epi16(sums[r][j], _mm256_set1_epi16(1));
        y[r][j] = _mm256_fmadd_ps(_mm256_set1_ps(a.At(r, i).scale),
                                  _mm256_mul_ps(scales, _mm256_cvtepi32_ps(pairs)), y[r][j]);
      });
    });
  }
  Unroll<kRows>([&](auto r) {
    Unroll<kCount>([&](auto j) { _mm256_storeu_ps(c + r * kPanel + 8 * (vector + j), y[r][j]); });
  });
}

// 1 to 3 rows by the whole panel.
template <typename Source>
void MultiplyRows(const Rows& a, int64_t rows, const Source& b, int64_t blocks, float* c) {
  switch (rows) {
    case 1:
      return MultiplyTile<1, 4>(a, b, 0, blocks, c);
    case 2:
      MultiplyTile<2, 2>(a, b, 0, blocks, c);
      return MultiplyTile<2, 2>(a, b, 2, blocks, c);
    default:
      MultiplyTile<3, 2>(a, b, 0, blocks, c);
      return MultiplyTile<3, 2>(a, b, 2, blocks, c);
  }
}

void DecodePiece(Records* records, int64_t blocks, uint8_t* words, float* scales) {
  for (int64_t i = 0; i < blocks; ++i, records->Next(), words += kDecoded, scales += kPanel) {
    Unroll<kSteps>([&](auto step) {
      for (int64_t j = 0; j < kVectors; ++j) {
        auto* to = reinterpret_cast<__m256i*>(words + step * kGroupBytes + 32 * j);
        _mm256_store_si256(to, records->Words(step, j));
      }
    });
    for (int64_t j = 0; j < kVectors; ++j) _mm256_store_ps(scales + 8 * j, records->BlockScales(j));
  }
}

void Gemm(const GemmArgs& args) {
  const int64_t all = CeilDiv(args.row.k, kPairBlock);
  std::memset(args.c, 0, static_cast<size_t>(args.m * kPanel) * sizeof(float));
  Records records(args.packed);
  if (args.m <= kFewRows) return MultiplyRows({args.a, args.a_stride}, args.m, records, all, args.c);
  auto* words = reinterpret_cast<uint8_t*>(args.scratch);
  float* scales = args.scratch + kPieceBlocks * kDecoded / 4;
  for (int64_t first = 0; first < all; first += kPieceBlocks) {
    const int64_t blocks = all - first < kPieceBlocks ? all - first : kPieceBlocks;
    DecodePiece(&records, blocks, words, scales);
    for (int64_t row = 0; row < args.m; row += kFewRows) {
      const Rows a = {reinterpret_cast<const uint8_t*>(&Rows{args.a, args.a_stride}.At(row, first)),
                      args.a_stride};
      MultiplyRows(a, args.m - row < kFewRows ? args.m - row : kFewRows, Decoded(words, scales), blocks,
                   args.c + row * kPanel);
    }
  }
}

int64_t ScratchFloats(const RowShape&) { return kPieceBlocks * (kDecoded / 4 + kPanel); }

constexpr MatMulKernels kAny = {kPanel, PackedMxfp4Bytes__avx2, PackMxfp4__avx2, ScratchFloats, Gemm, &kForm};

}  // namespace

const PairKernels mxfp4_mxfp4_matmul__avx2 = {&kAny, &kAny};

}  // namespace mxcompile
