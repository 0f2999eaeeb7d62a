// Tiles of products of E2M1 rows in blocks with one scale each with AVX2; unnamed namespace: see elements.h.
//
// Data layout: B as in f32_packed_matmul__avx2.cc: in a block's record 32 bytes of scales, then for each 8
// elements 32 words, one a row, k ascending from the lowest nibble. The low nibbles of a word's bytes are the
// even elements, the high ones the odd ones; in that order stand the elements of A, 4 even ones, 4 odd ones.
//
// vpmaddubsw multiplies bytes without sign by bytes with sign: elements of B come as e + 12, and a sum begins
// with -12 times the sum of A's elements in one lane of each pair. Sums of int16 hold a block of up to 32: a
// lane adds 16 products of at most 24 * 12, 4608, to no less than -4608.
//
// What a Product says: kBlock; kRowScales, the bytes before a row's block scales; AScale and BScales, float32
// from a byte of A and from 8 of B; Finish, the result after a block.
//
// Register plan: 3 rows of A by 16 rows of B: 6 sums, 6 results, 2 vectors of B, a broadcast of A, the ones
// that add pairs. One row: 4 sums and 4 results, for all 32 rows of B. Up to 3 rows decode B in registers;
// more take it from scratch, 512 k at a time (18 or 20 KB, L1). Per row, 8 rows of B and 32 k: 8 vpmaddubsw,
// 8 additions and 4 operations to finish a block; decoding them 8 vpshufb and 12 to get at nibbles. Bound:
// for many rows the multipliers, which vpmaddubsw shares with vfmadd; for one row reading B.
#pragma once

#include "kernels/elements__avx2.h"
#include "kernels/kernels.h"
#include "kernels/mxfp4_blocks.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 32, kVectors = kPanel / 8, kScales = kPanel, kGroupBytes = 4 * kPanel;
constexpr int64_t kPiece = 512;  // elements of k
constexpr int64_t kFewRows = 3;

template <typename Product>
constexpr int kSteps = Product::kBlock / 4;  // of 4 elements each
template <typename Product>
constexpr int64_t kRecord = kScales + Product::kBlock / 8 * kGroupBytes;
template <typename Product>
constexpr int64_t kDecoded = Product::kBlock * kPanel;  // bytes of a decoded block
template <typename Product>
constexpr int64_t kPieceBlocks = kPiece / Product::kBlock;

template <typename Product>
struct Block {
  int8_t elements[Product::kBlock];
  uint32_t start;  // of a pair of sums: -12 times the sum of the elements, and 0
  float scale;
};

template <typename Product>
int64_t RowBytes(int64_t k) {
  return CeilDiv(k, Product::kBlock) * static_cast<int64_t>(sizeof(Block<Product>));
}

inline __m256i Table(int8_t offset) {
  alignas(16) int8_t table[16];
  for (int i = 0; i < 16; ++i) table[i] = static_cast<int8_t>(kDoubledSigned[i] + offset);
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
}

// -12 times the sums of the first and of the last 16 elements, in the lanes of their half.
inline __m256i Starts(__m256i elements) {
  __m256i sums =
      _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(12), elements), _mm256_set1_epi16(-1));
  sums = _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0x4E));
  return _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0xB1));
}

template <typename Product>
void Prepare(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t) {
  constexpr int64_t kBlock = Product::kBlock, kLoaded = 32;
  const __m128i nibble = _mm_set1_epi8(0x0F);
  const __m256i table = Table(0);
  scales += Product::kRowScales;
  auto* block = reinterpret_cast<Block<Product>*>(prepared);
  for (int64_t first = 0; first < k; first += kLoaded) {
    const int64_t count = k - first < kLoaded ? k - first : kLoaded;
    __m128i bytes = _mm_setzero_si128();
    std::memcpy(&bytes, codes + first / 2, static_cast<size_t>(CodeBytes(count, 4)));
    const __m128i even = _mm_and_si128(bytes, nibble), odd = _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble);
    const __m256i order = _mm256_set_m128i(_mm_unpackhi_epi32(even, odd), _mm_unpacklo_epi32(even, odd));
    alignas(32) int8_t elements[kLoaded];
    alignas(32) int32_t starts[8];
    const __m256i both = _mm256_shuffle_epi8(table, order);
    _mm256_store_si256(reinterpret_cast<__m256i*>(elements), both);
    _mm256_store_si256(reinterpret_cast<__m256i*>(starts), Starts(both));
    for (int64_t i = 0; i < count; i += kBlock, ++block, ++scales) {
      std::memcpy(block->elements, elements + i, kBlock);
      const int32_t start = kBlock == kLoaded ? starts[0] + starts[4] : starts[i / 4];
      block->start = static_cast<uint32_t>(start) & 0xFFFF;
      block->scale = Product::AScale(*scales);
    }
  }
}

// Where a tile finds B: decoded on the way from records, or in scratch, [blocks][8][32] words and scales.
template <typename Product>
class Records {
 public:
  explicit Records(const uint8_t* packed) : record_(packed), table_(Table(12)) {}

  inline void Prefetch() const { PrefetchAhead(record_, kRecord<Product>); }
  inline __m256i Words(int step, int64_t vector) const {
    const uint8_t* from = record_ + kScales + step / 2 * kGroupBytes + 32 * vector;
    __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    if (step % 2 == 1) codes = _mm256_srli_epi16(codes, 4);
    return _mm256_shuffle_epi8(table_, _mm256_and_si256(codes, _mm256_set1_epi8(0x0F)));
  }
  inline __m256 BlockScales(int64_t vector) const {
    return Product::BScales(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(record_ + 8 * vector)));
  }
  inline void Next() { record_ += kRecord<Product>; }

 private:
  const uint8_t* record_;
  __m256i table_;
};

template <typename Product>
class Decoded {
 public:
  Decoded(const uint8_t* words, const float* scales) : words_(words), scales_(scales) {}

  inline void Prefetch() const {}
  inline __m256i Words(int step, int64_t vector) const {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(words_ + step * kGroupBytes + 32 * vector));
  }
  inline __m256 BlockScales(int64_t vector) const { return _mm256_load_ps(scales_ + 8 * vector); }
  inline void Next() {
    words_ += kDecoded<Product>;
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
template <typename Product>
struct Rows {
  const uint8_t* first;
  int64_t stride;  // bytes

  inline const Block<Product>& At(int64_t row, int64_t block) const {
    return reinterpret_cast<const Block<Product>*>(first + row * stride)[block];
  }
};

// c[kRows, 8 * kCount] += a[kRows, blocks] * b[blocks, ...]: kCount vectors of 8 rows of B from `vector` on.
template <int kRows, int kCount, typename Product, typename Source>
[[gnu::flatten]] void MultiplyTile(const Rows<Product>& a, Source b, int64_t vector, int64_t blocks,
                                   float* c) {
  __m256 y[kRows][kCount];
  Unroll<kRows>([&](auto r) {
    Unroll<kCount>([&](auto j) { y[r][j] = _mm256_loadu_ps(c + r * kPanel + 8 * (vector + j)); });
  });
  for (int64_t i = 0; i < blocks; ++i, b.Next()) {
    b.Prefetch();
    __m256i sums[kRows][kCount];
    Unroll<kRows>([&](auto r) { Unroll<kCount>([&](auto j) { sums[r][j] = Units(&a.At(r, i).start); }); });
    Unroll<kSteps<Product>>([&](auto step) {
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
        y[r][j] =
            Product::Finish(_mm256_cvtepi32_ps(pairs), _mm256_set1_ps(a.At(r, i).scale), scales, y[r][j]);
      });
    });
  }
  Unroll<kRows>([&](auto r) {
    Unroll<kCount>([&](auto j) { _mm256_storeu_ps(c + r * kPanel + 8 * (vector + j), y[r][j]); });
  });
}

// 1 to 3 rows by the whole panel.
template <typename Product, typename Source>
void MultiplyRows(const Rows<Product>& a, int64_t rows, const Source& b, int64_t blocks, float* c) {
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

template <typename Product>
void DecodePiece(Records<Product>* records, int64_t blocks, uint8_t* words, float* scales) {
  for (int64_t i = 0; i < blocks; ++i, records->Next(), words += kDecoded<Product>, scales += kPanel) {
    Unroll<kSteps<Product>>([&](auto step) {
      for (int64_t j = 0; j < kVectors; ++j) {
        auto* to = reinterpret_cast<__m256i*>(words + step * kGroupBytes + 32 * j);
        _mm256_store_si256(to, records->Words(step, j));
      }
    });
    for (int64_t j = 0; j < kVectors; ++j) _mm256_store_ps(scales + 8 * j, records->BlockScales(j));
  }
}

template <typename Product>
void Gemm(const GemmArgs& args) {
  const int64_t all = CeilDiv(args.row.k, Product::kBlock);
  std::memset(args.c, 0, static_cast<size_t>(args.m * kPanel) * sizeof(float));
  Records<Product> records(args.packed);
  if (args.m <= kFewRows)
    return MultiplyRows(Rows<Product>{args.a, args.a_stride}, args.m, records, all, args.c);
  auto* words = reinterpret_cast<uint8_t*>(args.scratch);
  float* scales = args.scratch + kPieceBlocks<Product> * kDecoded<Product> / 4;
  for (int64_t first = 0; first < all; first += kPieceBlocks<Product>) {
    const int64_t blocks = all - first < kPieceBlocks<Product> ? all - first : kPieceBlocks<Product>;
    DecodePiece(&records, blocks, words, scales);
    for (int64_t row = 0; row < args.m; row += kFewRows) {
      const Rows<Product> whole{args.a, args.a_stride};
      const Rows<Product> a = {reinterpret_cast<const uint8_t*>(&whole.At(row, first)), args.a_stride};
      MultiplyRows(a, args.m - row < kFewRows ? args.m - row : kFewRows, Decoded<Product>(words, scales),
                   blocks, args.c + row * kPanel);
    }
  }
}

template <typename Product>
int64_t ScratchFloats(const RowShape&) {
  return kPieceBlocks<Product> * (kDecoded<Product> / 4 + kPanel);
}

template <typename Product>
constexpr RowForm kForm = {RowBytes<Product>, nullptr, Prepare<Product>};

}  // namespace
}  // namespace mxcompile
