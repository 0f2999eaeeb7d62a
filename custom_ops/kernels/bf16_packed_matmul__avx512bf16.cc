// Products of any two formats whose elements bfloat16 holds, with AVX512 BF16: sums as kernels.h has them.
//
// Why the bits are those of std::fma: vdpbf16ps is two float32 multiply-adds, one rounding each, that take
// and give subnormals as zero. Let all elements of some rows of A be multiples of 2^p, those of a panel of B
// of 2^q, p + q >= -126, none of them subnormal. Then their products are multiples of 2^-126, and so are
// sums: rounding to 24 bits leaves a multiple of a power of two one. So no operand and no sum is subnormal,
// and none is -0, whatever the signs of zeros.
// - q is known when B is packed (PanelFacts): from the smallest scale, or for E5M2 and E4M3 ones from the
//   format: amxfp4 has 2^-17, amxfp4_e4m3 2^-10. From 2^-126 on bfloat16 holds all elements of a panel.
// - p is that of a row of A: its smallest element apart from zeros is some 2^e or more, and has 8 significant
//   bits, so p = e - 7. It stands behind the row.
// Where p + q is less, a tile is multiplied by float32 multiply-adds from float32 elements of B; where
// bfloat16 does not hold an element of A, the product is left to f32_packed_matmul__avx512.cc. Both need
// elements below some 2^-50. Infinity and NaN are as in float32.
//
// Data layout: B as in packed_panels__avx512.h, A and decoded pieces as in bf16_tiles__avx512bf16.h: 128 k of
// half a panel are [64 pairs][32 rows] words in scratch (8 KB, L1).
//
// Up to 6 rows decode in registers, if the whole panel allows it: 4 rows x 64 columns (16 sums, 4 or 8
// vectors of scales, up to 4 of tables), or 6 x 32, 128 k at a time, so that the second half finds its lines
// in L1. Per 32 weights that is decoding, 4 to 7 operations, and a vdpbf16ps a row. More rows take B from
// scratch.
//
// Register plan and bound of those: bf16_tiles__avx512bf16.h; decoding: bf16_panels__avx512bf16.h.
#include "kernels/bf16_panels__avx512bf16.h"
#include "kernels/matmul_kernels.h"

namespace mxcompile {
namespace {

constexpr int kMaxDirect = 6, kMaxWide = 4;  // rows
constexpr int64_t kAhead = 12 << 10;         // bytes
constexpr int64_t kPiece = 128;              // elements of k
constexpr int kLeastExponent = -126;         // of normal numbers
constexpr int kNone = -1024;                 // exponent of what nothing is a multiple of
constexpr int64_t kHalfPanel = kWidePanel / 2;

int64_t RowBytes(int64_t k) { return PairRowBytes(k) + 4; }

// The exponent of what a row of A, or its smallest element's bits without sign, less 1, is a multiple of.
int32_t StepOfRow(uint32_t smallest_less_one) {
  const auto exponent = static_cast<int32_t>((smallest_less_one + 1) >> 23);
  if (smallest_less_one == UINT32_MAX) return 127;  // nothing but zeros
  return exponent == 0 ? kNone : exponent - 127 - 7;
}

// 32 float32 to pairs of their upper words. Gathers the smallest magnitude, less 1 so that 0 is the largest,
// and whether there is an element of more bits.
struct PairMaker {
  __m512i smallest = _mm512_set1_epi32(-1);
  __mmask16 inexact = 0;

  inline void Look(__m512 x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(INT32_MAX));
    smallest = _mm512_min_epu32(smallest, _mm512_sub_epi32(magnitude, _mm512_set1_epi32(1)));
    const __mmask16 number = _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q);
    inexact |= _mm512_mask_test_epi32_mask(number, bits, _mm512_set1_epi32(0xFFFF));
  }
  inline __m512i Pairs(__m512 first, __m512 second) {
    Look(first);
    Look(second);
    // Lane i: the upper word of element 2i above that of element 2i + 1.
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i index = _mm512_add_epi32(_mm512_mullo_epi32(lanes, _mm512_set1_epi32(0x00040004)),
                                           _mm512_set1_epi32(0x00010003));
    return _mm512_permutex2var_epi16(_mm512_castps_si512(first), index, _mm512_castps_si512(second));
  }
};

bool PrepareRow(const float* x, int64_t k, uint8_t* prepared, int64_t step) {
  PairMaker maker;
  for (int64_t i = 0; i < k; i += kPairBlock, prepared += 16 * step) {
    const int64_t left = k - i;
    const __mmask32 present = left >= kPairBlock ? 0xFFFFFFFF : (1u << left) - 1;
    const __m512 first = _mm512_maskz_loadu_ps(static_cast<__mmask16>(present), x + i);
    const __m512 second = _mm512_maskz_loadu_ps(static_cast<__mmask16>(present >> 16), x + i + 16);
    StoreUnits(maker.Pairs(first, second), prepared, step);
  }
  const int32_t row_step = StepOfRow(_mm512_reduce_min_epu32(maker.smallest));
  std::memcpy(prepared, &row_step, sizeof(row_step));
  return maker.inexact == 0;
}

// Calls use(a, row, rows) for the tiles of A for which vdpbf16ps is right with the panel, or for the others.
template <typename Use>
inline void ForTiles(const GemmArgs& args, const PanelFacts& facts, bool right, const Use& use) {
  const int64_t steps_at = PairRowBytes(args.row.k) * args.a_tile;
  const uint8_t* a = args.a;
  for (int64_t row = 0; row < args.m; row += args.a_tile, a += args.a_tile * args.a_stride) {
    const int64_t rows = args.m - row < args.a_tile ? args.m - row : args.a_tile;
    int32_t least = facts.step >= kLeastExponent ? facts.step : kNone;
    int32_t steps[kMaxTile], smallest = 127;
    std::memcpy(steps, a + steps_at, static_cast<size_t>(rows) * sizeof(steps[0]));
    for (int64_t r = 0; r < rows; ++r) smallest = steps[r] < smallest ? steps[r] : smallest;
    if ((smallest + least >= kLeastExponent) == right) use(a, row, rows);
  }
}

template <typename Layout>
void MultiplyPairs(const GemmArgs& args, const PanelFacts& facts) {
  auto* decoded = reinterpret_cast<uint8_t*>(args.scratch);
  const int64_t k = args.row.k, step = 4 * args.a_tile;
  for (int64_t start = 0; start < k; start += kPiece) {
    const int64_t size = k - start < kPiece ? k - start : kPiece;
    for (int half = 0; half < 2; ++half) {
      DecodeHalf<Layout>(args, facts.plain != 0, half, start, start + size, kPiece, decoded);
      const SumRows c{args.c + half * kHalfPanel, args.c_stride, start == 0};
      ForTiles(args, facts, true, [&](const uint8_t* a, int64_t row, int64_t rows) {
        const uint8_t* from = a + start / 2 * step;
        kMultiply[rows - 1](from, from + args.a_tile * args.a_stride, step, decoded, CeilDiv(size, 2),
                            c.From(row));
      });
    }
  }
}

// c[kRows, 64] += a[kRows, size] * b[size, 64] by float32 multiply-adds; A as pairs.
template <int kRows>
[[gnu::flatten]] void MultiplyFloats(const uint8_t* a, int64_t step, const float* b, int64_t size,
                                     const SumRows& c) {
  __m512 sums[kRows][kQuarters];
  Unroll<kRows>([&](auto r) { Unroll<kQuarters>([&](auto q) { sums[r][q] = c.Load(r, q); }); });
  const auto add = [&](const float* columns, const auto& x) {
    Unroll<kQuarters>([&](auto q) {
      const __m512 column = _mm512_load_ps(columns + kLanes * q);
      Unroll<kRows>(
          [&](auto r) { sums[r][q] = _mm512_fmadd_ps(_mm512_castsi512_ps(x(r)), column, sums[r][q]); });
    });
  };
  for (int64_t i = 0; i < size; i += 2, a += step, b += 2 * kWidePanel) {
    add(b, [&](auto r) { return _mm512_and_si512(PairOf(a, r), _mm512_set1_epi32(-65536)); });
    if (i + 1 < size) add(b + kWidePanel, [&](auto r) { return _mm512_slli_epi32(PairOf(a, r), 16); });
  }
  Unroll<kRows>([&](auto r) { Unroll<kQuarters>([&](auto q) { c.Store(r, q, sums[r][q]); }); });
}

template <typename Layout>
void MultiplyUnsafe(const GemmArgs& args, const PanelFacts& facts) {
  constexpr int64_t kTogether = 4;  // rows
  const int64_t k = args.row.k, step = 4 * args.a_tile;
  for (int64_t start = 0; start < k; start += kDecodeStep) {
    const int64_t size = k - start < kDecodeStep ? k - start : kDecodeStep;
    DecodePiece<Layout>(args, start, start + size, args.scratch);
    const SumRows c{args.c, args.c_stride, start == 0};
    ForTiles(args, facts, false, [&](const uint8_t* a, int64_t row, int64_t rows) {
      const uint8_t* from = a + start / 2 * step;
      int64_t r = 0;
      for (; r + kTogether <= rows; r += kTogether)
        MultiplyFloats<kTogether>(from + 4 * r, step, args.scratch, size, c.From(row + r));
      for (; r < rows; ++r) MultiplyFloats<1>(from + 4 * r, step, args.scratch, size, c.From(row + r));
    });
  }
}

// One tile of A of kRows rows times kCount quarters of the panel, the elements [start, end) of k, decoded in
// registers.
template <typename Layout, int kRows, int kCount>
[[gnu::flatten]] void MultiplyQuarters(const GemmArgs& args, int first, int64_t start, int64_t end) {
  constexpr int64_t kStep = 4 * kRows;  // from a pair of a row to the next
  const int64_t block = args.row.block, record_bytes = RecordBytes<Layout>(block);
  const SumRows c{args.c, args.c_stride, start == 0};
  __m512 sums[kRows][kCount];
  Unroll<kRows>([&](auto r) { Unroll<kCount>([&](auto q) { sums[r][q] = c.Load(r, first + q); }); });
  const uint8_t* a = args.a + start / 2 * kStep;
  const uint8_t* record = args.packed + start / block * record_bytes;
  for (; start < end; start += block, record += record_bytes) {
    Subtracted scales[kCount];
    LoadSubtracted<Layout>(record, first, scales);
    const uint8_t* words = record + Layout::kScaleBytes * kWidePanel + 64 * first;
    const int64_t groups = CeilDiv(end - start < block ? end - start : block, Layout::kGroup);
    for (int64_t i = 0; i < groups; ++i, words += kWordGroup, a += Layout::kGroup / 2 * kStep) {
      Unroll<kCount>([&](auto q) {
        _mm_prefetch(reinterpret_cast<const char*>(words + kAhead + 64 * q), _MM_HINT_T0);
        DecodeWords<Layout>(LoadWords(words, q), scales[q], [&](auto pair, __m512i b) {
          Unroll<kRows>(
              [&](auto r) { sums[r][q] = AddProducts(sums[r][q], PairOf(a + pair * kStep, r), b); });
        });
      });
    }
  }
  Unroll<kRows>([&](auto r) { Unroll<kCount>([&](auto q) { c.Store(r, first + q, sums[r][q]); }); });
}

template <typename Layout, int kRows>
void MultiplyDirectly(const GemmArgs& args) {
  constexpr int kCount = kRows <= kMaxWide ? kQuarters : kHalfQuarters;
  const int64_t k = args.row.k, piece = kCount == kQuarters ? k : kPiece;
  for (int64_t start = 0; start < k; start += piece) {
    const int64_t end = k - start < piece ? k : start + piece;
    for (int first = 0; first < kQuarters; first += kCount)
      MultiplyQuarters<Layout, kRows, kCount>(args, first, start, end);
  }
}

template <typename Layout>
constexpr void (*kDirect[kMaxDirect])(const GemmArgs&) = {
    MultiplyDirectly<Layout, 1>, MultiplyDirectly<Layout, 2>, MultiplyDirectly<Layout, 3>,
    MultiplyDirectly<Layout, 4>, MultiplyDirectly<Layout, 5>, MultiplyDirectly<Layout, 6>};

template <typename Layout>
void Gemm(const GemmArgs& args) {
  if (args.row.k == 0) {
    for (int64_t r = 0; r < args.m; ++r)
      std::memset(args.c + r * args.c_stride, 0, kWidePanel * sizeof(float));
  }
  const PanelFacts facts = FactsOf<Layout>(args);
  int64_t safe = 0;
  ForTiles(args, facts, true, [&](const uint8_t*, int64_t, int64_t rows) { safe += rows; });
  const bool one_tile = args.m == args.a_tile && safe == args.m && args.m <= kMaxDirect;
  if (one_tile && IsFast<Layout>(facts)) return kDirect<Layout>[safe - 1](args);
  if (safe > 0) MultiplyPairs<Layout>(args, facts);
  if (safe < args.m) MultiplyUnsafe<Layout>(args, facts);
}

int64_t ScratchFloats(const RowShape&) { return kDecodeStep * kWidePanel; }
static_assert(kDecodeStep * kWidePanel * 4 >= kPiece / 2 * kPairBytes);

constexpr int64_t kDirectK = 256;
constexpr int64_t kMaxRows = 504;  // sums of a panel: 126 KB, in the L2 cache

constexpr RowForm kForm = {RowBytes, EvenTiles, nullptr, PrepareRow};

template <typename Scales, typename Words>
constexpr MatMulKernels Set(const MatMulKernels& in_float32) {
  using Layout = LayoutOf<Scales, Words>;
  return {kWidePanel, PackedBytes<Layout>, Pack<Layout>, ScratchFloats, Gemm<Layout>, &kForm, kMaxRows, 8,
          kPiece,     &in_float32};
}

template <typename Element>
constexpr MatMulKernels MxSet(const MatMulKernels& in_float32) {
  return Set<ByteScales<PowerDecode<1>>, ByteWords<Element>>(in_float32);
}

}  // namespace

const MatMulKernels bf16_amxfp4_packed_matmul__avx512bf16 =
    Set<ByteScales<AmxDecode>, Fp4Words>(f32_amxfp4_matmul__avx512);
const MatMulKernels bf16_amxfp4_pot_packed_matmul__avx512bf16 =
    Set<ByteScales<PowerDecode<2>>, Fp4Words>(f32_amxfp4_pot_matmul__avx512);
const MatMulKernels bf16_amxfp4_e4m3_packed_matmul__avx512bf16 =
    Set<ByteScales<AmxE4M3Decode>, Fp4Words>(f32_amxfp4_e4m3_matmul__avx512);
const MatMulKernels bf16_mxfp4_packed_matmul__avx512bf16 =
    Set<ByteScales<PowerDecode<1>>, Fp4Words>(f32_mxfp4_matmul__avx512);
const MatMulKernels bf16_mxfp6_e3m2_packed_matmul__avx512bf16 = MxSet<E3M2>(f32_mxfp6_e3m2_matmul__avx512);
const MatMulKernels bf16_mxfp6_e2m3_packed_matmul__avx512bf16 = MxSet<E2M3>(f32_mxfp6_e2m3_matmul__avx512);
const MatMulKernels bf16_mxfp8_e4m3_packed_matmul__avx512bf16 = MxSet<E4M3>(f32_mxfp8_e4m3_matmul__avx512);
const MatMulKernels bf16_mxfp8_e5m2_packed_matmul__avx512bf16 = MxSet<E5M2>(f32_mxfp8_e5m2_matmul__avx512);
const MatMulKernels bf16_mxint8_packed_matmul__avx512bf16 = MxSet<MxInt8>(f32_mxint8_matmul__avx512);

}  // namespace mxcompile
