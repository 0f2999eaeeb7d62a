// mxfp4 rows times mxfp4 rows with AVX512 VNNI and VBMI. What is computed: mxfp4_blocks.h.
//
// Data layout: B as in fp4_tiles__avx512.h, behind 64 bytes that begin with the panel's flag: whether all of
// its scales are tame. A as in mxfp4_dot__avx512vnni.h, in tiles of up to 6 rows.
//
// Register plan: 6 x 2 sums of a block (6 rows, 32 columns), 6 x 2 results, 2 vectors of B, a broadcast of A.
// Up to 6 rows decode B in registers; more of them take it from scratch, 512 k at a time (16 KB, L1). Per 32
// k: 96 vpdpbusd, 12 additions of exponents, 12 conversions and 12 multiply-adds. Bound: vpdpbusd and vfmadd,
// two a cycle; for one row reading B.
#include "kernels/matmul_kernels.h"
#include "kernels/mxfp4_quantize__avx512vnni.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

using Layout = Tiles<1>;

constexpr int64_t kHeader = 64;
constexpr int64_t kAhead = 12288;
constexpr int64_t kMaxTile = 6;
constexpr int64_t kPiece = 512;                        // elements of k
constexpr int64_t kDecoded = kPairBlock * kTilePanel;  // bytes of a decoded block

int64_t PackedBytes(const RowShape& row) { return kHeader + Layout::PackedBytes(row); }

void Pack(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed) {
  Layout::Pack(b, rows, row, packed + kHeader);
  const auto present = static_cast<__mmask64>((uint64_t{1} << rows) - 1);
  __mmask64 wild = 0;
  for (int64_t at = kHeader; at < PackedBytes(row); at += Layout::kRecord)
    wild |= Wild(LoadLine(packed + at));
  std::memset(packed, (wild & present) == 0 ? 1 : 0, kHeader);
}

// Tiles of nearly equal height.
int64_t TileRows(int64_t m) { return CeilDiv(m, CeilDiv(m, kMaxTile)); }

// As in fp4_tiles__avx512.h.
constexpr ElementOrder kTileOrder = {{16, 18, 0, 2,  17, 19, 1, 3,  20, 22, 4,  6,  21, 23, 5,  7,
                                      24, 26, 8, 10, 25, 27, 9, 11, 28, 30, 12, 14, 29, 31, 13, 15}};

template <bool kEven, const RowKernels& kPlain>
constexpr RowForm kForm = {RowBytes, TileRows, Prepare<kTileOrder>, nullptr,
                           QuantizeTile<PowerEncode<1, kEven>, kPlain, kTileOrder>};

// Where a tile finds B: decoded on the way from records, or in scratch, [blocks][8][32] words and scales.
template <bool kTame>
class Records {
 public:
  explicit Records(const uint8_t* packed) : record_(packed + kHeader), table_(SumTable()) {}

  inline void Prefetch() const {
    for (int64_t line = 0; line < Layout::kRecord; line += 64)
      _mm_prefetch(reinterpret_cast<const char*>(record_ + kAhead + line), _MM_HINT_T0);
  }
  inline __m512i Words(int step, int group) const {
    const __m512i lanes = LoadLine(record_ + Layout::kScales + group * kGroupCodes + step / 2 * 64);
    return _mm512_permutexvar_epi8(step % 2 == 0 ? lanes : _mm512_srli_epi32(lanes, 4), table_);
  }
  inline __m512 BlockScales(int group) const {
    const auto* bytes = reinterpret_cast<const __m128i*>(record_ + group * kTileGroup);
    return Scales<kTame>(_mm512_cvtepu8_epi32(_mm_loadu_si128(bytes)));
  }
  inline void Next() { record_ += Layout::kRecord; }

 private:
  const uint8_t* record_;
  __m512i table_;
};

class Decoded {
 public:
  Decoded(const uint8_t* words, const float* scales) : words_(words), scales_(scales) {}

  inline void Prefetch() const {}
  inline __m512i Words(int step, int group) const { return LoadLine(words_ + step * 128 + group * 64); }
  inline __m512 BlockScales(int group) const { return _mm512_loadu_ps(scales_ + group * kTileGroup); }
  inline void Next() {
    words_ += kDecoded;
    scales_ += kTilePanel;
  }

 private:
  const uint8_t* words_;
  const float* scales_;
};

// c[kRows, 32] += a[kRows, blocks] * b[blocks, 32], rows of A in a tile of `tile`.
template <int kRows, bool kTame, typename Source>
[[gnu::flatten]] void MultiplyTile(const uint8_t* a, int64_t tile, Source b, int64_t blocks,
                                   const SumRows& c) {
  __m512 y[kRows][2];
  Unroll<kRows>([&](auto r) { Unroll<2>([&](auto g) { y[r][g] = c.Load(r, g); }); });
  for (int64_t i = 0; i < blocks; ++i, b.Next()) {
    b.Prefetch();
    const uint8_t* end = a + 4 * kElementUnits * tile;
    __m512i sums[kRows][2];
    Unroll<kRows>([&](auto r) { sums[r][0] = sums[r][1] = Unit(end, r); });
    Unroll<8>([&](auto step) {
      const __m512i first = b.Words(step, 0), second = b.Words(step, 1);
      Unroll<kRows>([&](auto r) {
        const __m512i x = Unit(a, r);
        sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], first, x);
        sums[r][1] = _mm512_dpbusd_epi32(sums[r][1], second, x);
      });
      a += 4 * tile;
    });
    Unroll<2>([&](auto g) {
      const __m512 scales = b.BlockScales(g);
      Unroll<kRows>([&](auto r) { y[r][g] = Finish<kTame>(sums[r][g], end + 4 * r, tile, scales, y[r][g]); });
    });
    a = end + 4 * kEndUnits * tile;
  }
  Unroll<kRows>([&](auto r) { Unroll<2>([&](auto g) { c.Store(r, g, y[r][g]); }); });
}

template <bool kTame, typename Source>
void Multiply(int64_t rows, const uint8_t* a, int64_t tile, const Source& b, int64_t blocks,
              const SumRows& c) {
  switch (rows) {
    case 1:
      return MultiplyTile<1, kTame>(a, tile, b, blocks, c);
    case 2:
      return MultiplyTile<2, kTame>(a, tile, b, blocks, c);
    case 3:
      return MultiplyTile<3, kTame>(a, tile, b, blocks, c);
    case 4:
      return MultiplyTile<4, kTame>(a, tile, b, blocks, c);
    case 5:
      return MultiplyTile<5, kTame>(a, tile, b, blocks, c);
    default:
      return MultiplyTile<6, kTame>(a, tile, b, blocks, c);
  }
}

template <bool kTame>
void GemmOf(const GemmArgs& args) {
  const int64_t tile = args.a_tile, all = CeilDiv(args.row.k, kPairBlock);
  if (all == 0) return SumRows{args.c, args.c_stride, true}.Clear(args.m);
  if (args.m <= kMaxTile && tile >= args.m)
    return Multiply<kTame>(args.m, args.a, tile, Records<kTame>(args.packed), all,
                           {args.c, args.c_stride, true});

  auto* words = reinterpret_cast<uint8_t*>(args.scratch);
  float* scales = args.scratch + kPiece / kPairBlock * kDecoded / 4;
  for (int64_t first = 0; first < all; first += kPiece / kPairBlock) {
    const int64_t blocks = all - first < kPiece / kPairBlock ? all - first : kPiece / kPairBlock;
    Records<kTame> records(args.packed + first * Layout::kRecord);
    const SumRows c{args.c, args.c_stride, first == 0};
    for (int64_t b = 0; b < blocks; ++b, records.Next()) {
      records.Prefetch();
      Unroll<2>([&](auto g) {
        Unroll<8>([&](auto step) {
          _mm512_storeu_si512(words + b * kDecoded + step * 128 + g * 64, records.Words(step, g));
        });
        _mm512_storeu_ps(scales + b * kTilePanel + g * kTileGroup, records.BlockScales(g));
      });
    }
    for (int64_t row = 0; row < args.m; row += tile) {
      const int64_t rows = args.m - row < tile ? args.m - row : tile;
      Multiply<kTame>(rows, args.a + row * args.a_stride + 4 * first * kBlockUnits * tile, tile,
                      Decoded(words, scales), blocks, c.From(row));
    }
  }
}

void Gemm(const GemmArgs& args) {
  args.packed[0] != 0 && AreTame(args) ? GemmOf<true>(args) : GemmOf<false>(args);
}

int64_t ScratchFloats(const RowShape&) { return kPiece / kPairBlock * (kDecoded / 4 + kTilePanel); }

constexpr int64_t kMaxRows = 504;

template <bool kEven, const RowKernels& kPlain>
constexpr MatMulKernels kAny = {kTilePanel, PackedBytes, Pack,  ScratchFloats, Gemm, &kForm<kEven, kPlain>,
                                kMaxRows,   4,           kPiece};
constexpr const MatMulKernels& kFloor = kAny<false, mxfp4_rows__avx2>;
constexpr const MatMulKernels& kEven = kAny<true, mxfp4_even_rows__avx2>;

}  // namespace

const PairKernels mxfp4_mxfp4_matmul__avx512vnni = {&kFloor, &kFloor, &mxfp4_mxfp4_rows_matmul__avx512vnni};
const PairKernels mxfp4_even_mxfp4_even_matmul__avx512vnni = {&kEven, &kEven,
                                                              &mxfp4_even_mxfp4_even_rows_matmul__avx512vnni};

}  // namespace mxcompile
