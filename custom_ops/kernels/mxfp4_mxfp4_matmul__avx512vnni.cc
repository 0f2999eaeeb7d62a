// mxfp4 rows times mxfp4 rows with AVX512 VNNI and VBMI. What is computed: mxfp4_blocks.h.
//
// Data layout: B as in fp4_tiles__avx512.h, behind 64 bytes that begin with the panel's flag. A is rows of
// 32-bit units, interleaved in tiles of up to 6 rows: for each block 8 units of 4 elements (int8, in the
// order of a vector's nibbles) and 3 of BlockEnd; at the end of the row its flag.
//
// vpdpbusd multiplies bytes without sign by bytes with sign, so elements of B come as e + 12, by one vpermb,
// and a sum begins with -12 times the sum of A's elements. While all exponents are within kTameRange of each
// other (the flags say so), the product a / 4 * b is a float32 whose bits are a sum: one vpaddd, which does
// not compete with vpdpbusd; and multiplying s by that product gives the bits of the definition.
//
// Register plan: 6 x 2 sums of a block (6 rows, 32 columns), 6 x 2 results, 2 vectors of B, a broadcast of A.
// Up to 6 rows decode B in registers; more of them take it from scratch, 512 k at a time (16 KB, L1). Per 32
// k: 96 vpdpbusd, 12 additions of exponents, 12 conversions and 12 multiply-adds. Bound: vpdpbusd and vfmadd,
// two a cycle; for one row reading B.
#include "kernels/fp4_tiles__avx512.h"
#include "kernels/matmul_kernels.h"
#include "kernels/mxfp4_blocks.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

using Layout = Tiles<1>;

constexpr int64_t kHeader = 64;
constexpr int64_t kAhead = 12288;
constexpr int64_t kMaxTile = 6;
constexpr int64_t kPiece = 512;                        // elements of k
constexpr int64_t kDecoded = kPairBlock * kTilePanel;  // bytes of a decoded block
constexpr int64_t kElementUnits = kPairBlock / 4;
// Exponents in this range have products with factors of 1/4 that are normal numbers.
constexpr int kTameFirst = 66, kTameLast = 190;

// What follows the elements of a block of A.
struct BlockEnd {
  int32_t start;     // of the sum
  float scale;       // a / 4
  int32_t exponent;  // to be added to the bits of b
};
constexpr int64_t kEndUnits = sizeof(BlockEnd) / 4;
constexpr int64_t kBlockUnits = kElementUnits + kEndUnits;

inline bool Tame(uint8_t byte) { return byte >= kTameFirst && byte <= kTameLast; }

int64_t PackedBytes(const RowShape& row) { return kHeader + Layout::PackedBytes(row); }

void Pack(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed) {
  Layout::Pack(b, rows, row, packed + kHeader);
  const auto present = static_cast<__mmask32>((uint64_t{1} << rows) - 1);
  __mmask32 wild = 0;
  for (int64_t at = kHeader; at < PackedBytes(row); at += Layout::kRecord) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed + at));
    const __m256i above_first = _mm256_sub_epi8(bytes, _mm256_set1_epi8(kTameFirst));
    wild |= _mm256_cmpgt_epu8_mask(above_first, _mm256_set1_epi8(kTameLast - kTameFirst));
  }
  std::memset(packed, (wild & present) == 0 ? 1 : 0, kHeader);
}

int64_t RowBytes(int64_t k) { return 4 * (CeilDiv(k, kPairBlock) * kBlockUnits + 1); }

// Tiles of nearly equal height.
int64_t TileRows(int64_t m) { return CeilDiv(m, CeilDiv(m, kMaxTile)); }

// Elements of a block in the order of a vector's nibbles.
inline __m256i Elements(const uint8_t* codes, int64_t count) {
  const __m256i order = _mm256_setr_epi8(16, 18, 0, 2, 17, 19, 1, 3, 20, 22, 4, 6, 21, 23, 5, 7, 24, 26, 8,
                                         10, 25, 27, 9, 11, 28, 30, 12, 14, 29, 31, 13, 15);
  const __m256i table =
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kDoubledSigned)));
  const __m128i nibble = _mm_set1_epi8(0x0F), both = BlockCodes(codes, count);
  const __m128i even = _mm_and_si128(both, nibble), odd = _mm_and_si128(_mm_srli_epi16(both, 4), nibble);
  return _mm256_shuffle_epi8(table, _mm256_permutexvar_epi8(order, _mm256_set_m128i(odd, even)));
}

inline int32_t SumOfBytes(__m256i bytes) {
  const __m256i fours = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), bytes);
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1)));
}

void Prepare(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t step) {
  int32_t tame = 1;
  for (int64_t start = 0; start < k; start += kPairBlock, ++scales) {
    const int64_t count = k - start < kPairBlock ? k - start : kPairBlock;
    struct {
      alignas(32) int8_t elements[kPairBlock];
      BlockEnd end;
    } block;
    const __m256i elements = Elements(codes + start / 2, count);
    _mm256_store_si256(reinterpret_cast<__m256i*>(block.elements), elements);
    block.end = {-12 * SumOfBytes(elements), DecodeE8M0(*scales) * 0.25f, (*scales - 127 - 2) * (1 << 23)};
    tame = tame && Tame(*scales);
    for (int64_t i = 0; i < kBlockUnits; ++i, prepared += step)
      std::memcpy(prepared, reinterpret_cast<const uint8_t*>(&block) + 4 * i, 4);
  }
  std::memcpy(prepared, &tame, sizeof(tame));
}

constexpr RowForm kForm = {RowBytes, TileRows, Prepare};

inline __m512i SumTable() {
  alignas(16) int8_t table[16];
  for (int i = 0; i < 16; ++i) table[i] = static_cast<int8_t>(kDoubledSigned[i] + 12);
  return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
}

inline __m512i Unit(const uint8_t* a, int64_t unit) {
  int32_t value;
  std::memcpy(&value, a + 4 * unit, sizeof(value));
  return _mm512_set1_epi32(value);
}

// The float32 of 16 scale bytes.
template <bool kTame>
inline __m512 Scales(const uint8_t* bytes) {
  const __m512i exponents = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  __m512i value = _mm512_slli_epi32(exponents, 23);
  if constexpr (!kTame) {
    const __mmask16 is_zero = _mm512_testn_epi32_mask(exponents, exponents);
    const __mmask16 is_nan = _mm512_cmpeq_epi32_mask(exponents, _mm512_set1_epi32(kE8M0NaN));
    value = _mm512_mask_mov_epi32(value, is_zero, _mm512_set1_epi32(0x00400000));
    value = _mm512_mask_mov_epi32(value, is_nan, _mm512_set1_epi32(kQuietNaN));
  }
  return _mm512_castsi512_ps(value);
}

// y after a block with this sum. `end` is where the units of the row's BlockEnd begin, `tile` units apart.
template <bool kTame>
inline __m512 Finish(__m512i sum, const uint8_t* end, int64_t tile, __m512 scales, __m512 y) {
  const __m512 s = _mm512_cvtepi32_ps(sum);
  if constexpr (kTame) {
    const __m512i product = _mm512_add_epi32(_mm512_castps_si512(scales), Unit(end, 2 * tile));
    return _mm512_fmadd_ps(s, _mm512_castsi512_ps(product), y);
  }
  return _mm512_fmadd_ps(_mm512_castsi512_ps(Unit(end, tile)), _mm512_mul_ps(scales, s), y);
}

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
  inline __m512 BlockScales(int group) const { return Scales<kTame>(record_ + group * kTileGroup); }
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
  bool tame = args.packed[0] != 0;
  const int64_t flag = CeilDiv(args.row.k, kPairBlock) * kBlockUnits;
  for (int64_t r = 0; r < args.m && tame; ++r) {
    const int64_t lane = r % args.a_tile;
    tame = args.a[(r - lane) * args.a_stride + 4 * (flag * args.a_tile + lane)] != 0;
  }
  tame ? GemmOf<true>(args) : GemmOf<false>(args);
}

int64_t ScratchFloats(const RowShape&) { return kPiece / kPairBlock * (kDecoded / 4 + kTilePanel); }

constexpr int64_t kMaxRows = 504;

constexpr MatMulKernels kAny = {kTilePanel, PackedBytes, Pack, ScratchFloats, Gemm,
                                &kForm,     kMaxRows,    4,    kPiece};

}  // namespace

const PairKernels mxfp4_mxfp4_matmul__avx512vnni = {&kAny, &kAny};

}  // namespace mxcompile
