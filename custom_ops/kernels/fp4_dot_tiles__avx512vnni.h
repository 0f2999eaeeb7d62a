// Tiles of products of E2M1 rows in blocks with one scale each by vpdpbusd; unnamed namespace: see
// elements.h.
//
// Data layout: B is records of 32 elements of 32 rows: the scale bytes of its blocks, [blocks][32 rows], then
// codes as in fp4_tiles__avx512.h. A is rows of 32-bit units in tiles of up to 6: for each block its
// elements, 4 in a unit (kTileOrder), then what begins with the start of its sum (mxfp4_dot__avx512vnni.h).
//
// What a Product says: kParts, the blocks of a record; kEndUnits, the units of A behind a block's elements;
// Scales, 16 float32 from 16 scale bytes; Finish, the result after a block.
//
// Register plan: 6 x 2 sums of a block (6 rows, 32 columns), 6 x 2 results, 2 vectors of B, a broadcast of A.
// Up to 6 rows decode B in registers; more of them take it from scratch, 512 k at a time (16 KB, L1). Per 32
// k: 96 vpdpbusd and what Finish takes 12 times a block. Bound: vpdpbusd and vfmadd, two a cycle; for one row
// reading B.
#pragma once

#include "kernels/mxfp4_dot__avx512vnni.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kAhead = 12288;
constexpr int64_t kMaxTile = 6;
constexpr int64_t kMaxRows = 504;
constexpr int64_t kPiece = 512;  // elements of k
constexpr int64_t kPieceRecords = kPiece / kPairBlock;
constexpr int64_t kDecoded = kPairBlock * kTilePanel;  // bytes of a decoded record

// Tiles of nearly equal height.
inline int64_t TileRows(int64_t m) { return CeilDiv(m, CeilDiv(m, kMaxTile)); }

// As in fp4_tiles__avx512.h.
constexpr ElementOrder kTileOrder = {{16, 18, 0, 2,  17, 19, 1, 3,  20, 22, 4,  6,  21, 23, 5,  7,
                                      24, 26, 8, 10, 25, 27, 9, 11, 28, 30, 12, 14, 29, 31, 13, 15}};

template <typename Product>
constexpr int64_t kScaleBytes = Product::kParts * kTilePanel;
template <typename Product>
constexpr int64_t kRecord = kScaleBytes<Product> + 2 * kGroupCodes;
template <typename Product>  // of a row of A, for a record
constexpr int64_t kRecordUnits = kElementUnits + Product::kParts * Product::kEndUnits;

// Where a tile finds B: decoded on the way from records, or in scratch, [records][8][32] words and scales.
template <typename Product>
class Records {
 public:
  explicit Records(const uint8_t* first) : record_(first), table_(SumTable()) {}

  inline void Prefetch() const {
    for (int64_t line = 0; line < kRecord<Product>; line += 64)
      _mm_prefetch(reinterpret_cast<const char*>(record_ + kAhead + line), _MM_HINT_T0);
  }
  inline __m512i Words(int step, int group) const {
    const __m512i lanes = LoadLine(record_ + kScaleBytes<Product> + group * kGroupCodes + step / 2 * 64);
    return _mm512_permutexvar_epi8(step % 2 == 0 ? lanes : _mm512_srli_epi32(lanes, 4), table_);
  }
  inline __m512 BlockScales(int part, int group) const {
    const uint8_t* from = record_ + part * kTilePanel + group * kTileGroup;
    return Product::Scales(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  inline void Next() { record_ += kRecord<Product>; }

 private:
  const uint8_t* record_;
  __m512i table_;
};

template <typename Product>
class Decoded {
 public:
  Decoded(const uint8_t* words, const float* scales) : words_(words), scales_(scales) {}

  inline void Prefetch() const {}
  inline __m512i Words(int step, int group) const { return LoadLine(words_ + step * 128 + group * 64); }
  inline __m512 BlockScales(int part, int group) const {
    return _mm512_loadu_ps(scales_ + part * kTilePanel + group * kTileGroup);
  }
  inline void Next() {
    words_ += kDecoded;
    scales_ += kScaleBytes<Product>;
  }

 private:
  const uint8_t* words_;
  const float* scales_;
};

// c[kRows, 32] += a[kRows, records] * b[records, 32], rows of A in a tile of `tile`.
template <typename Product, int kRows, typename Source>
[[gnu::flatten]] void MultiplyTile(const uint8_t* a, int64_t tile, Source b, int64_t records,
                                   const SumRows& c) {
  constexpr int kSteps = kElementUnits / Product::kParts;
  __m512 y[kRows][2];
  Unroll<kRows>([&](auto r) { Unroll<2>([&](auto g) { y[r][g] = c.Load(r, g); }); });
  for (int64_t i = 0; i < records; ++i, b.Next()) {
    b.Prefetch();
    Unroll<Product::kParts>([&](auto part) {
      const uint8_t* end = a + 4 * kSteps * tile;
      __m512i sums[kRows][2];
      Unroll<kRows>([&](auto r) { sums[r][0] = sums[r][1] = Unit(end, r); });
      Unroll<kSteps>([&](auto step) {
        const __m512i first = b.Words(part * kSteps + step, 0), second = b.Words(part * kSteps + step, 1);
        Unroll<kRows>([&](auto r) {
          const __m512i x = Unit(a, r);
          sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], first, x);
          sums[r][1] = _mm512_dpbusd_epi32(sums[r][1], second, x);
        });
        a += 4 * tile;
      });
      Unroll<2>([&](auto g) {
        const __m512 scales = b.BlockScales(part, g);
        Unroll<kRows>(
            [&](auto r) { y[r][g] = Product::Finish(sums[r][g], end + 4 * r, tile, scales, y[r][g]); });
      });
      a = end + 4 * Product::kEndUnits * tile;
    });
  }
  Unroll<kRows>([&](auto r) { Unroll<2>([&](auto g) { c.Store(r, g, y[r][g]); }); });
}

template <typename Product, typename Source>
void Multiply(int64_t rows, const uint8_t* a, int64_t tile, const Source& b, int64_t records,
              const SumRows& c) {
  switch (rows) {
    case 1:
      return MultiplyTile<Product, 1>(a, tile, b, records, c);
    case 2:
      return MultiplyTile<Product, 2>(a, tile, b, records, c);
    case 3:
      return MultiplyTile<Product, 3>(a, tile, b, records, c);
    case 4:
      return MultiplyTile<Product, 4>(a, tile, b, records, c);
    case 5:
      return MultiplyTile<Product, 5>(a, tile, b, records, c);
    default:
      return MultiplyTile<Product, 6>(a, tile, b, records, c);
  }
}

template <typename Product>
void DecodeRecords(Records<Product> from, int64_t records, uint8_t* words, float* scales) {
  for (int64_t i = 0; i < records; ++i, from.Next(), words += kDecoded) {
    from.Prefetch();
    Unroll<2>([&](auto g) {
      Unroll<kElementUnits>(
          [&](auto step) { _mm512_storeu_si512(words + step * 128 + g * 64, from.Words(step, g)); });
    });
    Unroll<Product::kParts>([&](auto part) {
      Unroll<2>([&](auto g) { _mm512_storeu_ps(scales + g * kTileGroup, from.BlockScales(part, g)); });
      scales += kTilePanel;
    });
  }
}

// The product with a panel's records from `first` on.
template <typename Product>
void MultiplyRecords(const GemmArgs& args, const uint8_t* first) {
  const int64_t tile = args.a_tile, all = CeilDiv(args.row.k, kPairBlock);
  if (all == 0) return SumRows{args.c, args.c_stride, true}.Clear(args.m);
  if (args.m <= kMaxTile && tile >= args.m)
    return Multiply<Product>(args.m, args.a, tile, Records<Product>(first), all,
                             {args.c, args.c_stride, true});

  auto* words = reinterpret_cast<uint8_t*>(args.scratch);
  float* scales = args.scratch + kPieceRecords * kDecoded / 4;
  for (int64_t start = 0; start < all; start += kPieceRecords) {
    const int64_t records = all - start < kPieceRecords ? all - start : kPieceRecords;
    const SumRows c{args.c, args.c_stride, start == 0};
    DecodeRecords(Records<Product>(first + start * kRecord<Product>), records, words, scales);
    for (int64_t row = 0; row < args.m; row += tile) {
      const int64_t rows = args.m - row < tile ? args.m - row : tile;
      const uint8_t* a = args.a + row * args.a_stride + 4 * start * kRecordUnits<Product> * tile;
      Multiply<Product>(rows, a, tile, Decoded<Product>(words, scales), records, c.From(row));
    }
  }
}

template <typename Product>
int64_t ScratchFloats(const RowShape&) {
  return kPieceRecords * (kDecoded / 4 + kScaleBytes<Product>);
}

}  // namespace
}  // namespace mxcompile
