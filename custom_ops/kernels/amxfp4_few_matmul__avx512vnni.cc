// One to three amxfp4 rows times amxfp4 rows with AVX512 VNNI and VBMI. What is computed: amxfp4_blocks.h.
//
// Data layout: B as in fp4_tiles__avx512.h, A's blocks with elements in the order of a vector's nibbles.
//
// Register plan, one or two rows: 8 (16) sums for both groups of a record, a table, 2 x 2 decoded vectors, 2
// broadcasts, 2 (4) results. Three rows: one group at a time, 12 sums. The table of 16 entries stands four
// times in a register, so the bits above a nibble are harmless.
//
// vpdpbusd takes one operand with and one without sign. So two sums of elements with their signs, and two of
// those above zero alone, are had from one vpermb and one maximum; what is below zero is the difference.
//
// Per record (32 rows x 32 weights) and one row of A: 8 loads, 8 shifts, 16 vpermb, 16 maxima, 64 vpdpbusd
// and 12 multiplications: some 42 cycles for 576 bytes. That is about what memory delivers to one core, and
// the bound for more rows. Lines are asked for kAhead bytes before their turn, between the products rather
// than all at once.
#include "kernels/amxfp4_blocks.h"
#include "kernels/fp4_tiles__avx512.h"
#include "kernels/matmul_kernels.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kAhead = 12288;
constexpr int64_t kRecord = Tiles<2>::kRecord, kScales = Tiles<2>::kScales;

// Doubled magnitudes of the codes above (below) zero, four times: for A.
inline __m512i AboveTable() { return _mm512_set4_epi32(0, 0, 0x0C080604, 0x03020100); }
inline __m512i BelowTable() { return _mm512_set4_epi32(0x0C080604, 0x03020100, 0, 0); }

// Doubled elements with their signs, four times.
inline __m512i ElementTable() {
  return _mm512_set4_epi32(static_cast<int32_t>(0xF4F8FAFC), static_cast<int32_t>(0xFDFEFF00), 0x0C080604,
                           0x03020100);
}

// A's form: 32 nibbles, low ones first, to the order 1 5 0 4, 3 7 2 6 of each 8 elements.
void Prepare(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t) {
  const __m256i order = _mm256_setr_epi8(16, 18, 0, 2, 17, 19, 1, 3, 20, 22, 4, 6, 21, 23, 5, 7, 24, 26, 8,
                                         10, 25, 27, 9, 11, 28, 30, 12, 14, 29, 31, 13, 15);
  const __m256i above = _mm512_castsi512_si256(AboveTable()), below = _mm512_castsi512_si256(BelowTable());
  const __m128i nibble = _mm_set1_epi8(0x0F);
  for (int64_t start = 0; start < k; start += kPairBlock, scales += 2, prepared += kAmxBlockBytes) {
    const int64_t count = k - start < kPairBlock ? k - start : kPairBlock;
    const __m128i bytes = BlockCodes(codes + start / 2, count);
    const __m128i even = _mm_and_si128(bytes, nibble), odd = _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble);
    const __m256i elements = _mm256_permutexvar_epi8(order, _mm256_set_m128i(odd, even));
    auto* block = reinterpret_cast<AmxBlock*>(prepared);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(block->above), _mm256_shuffle_epi8(above, elements));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(block->below), _mm256_shuffle_epi8(below, elements));
    const __m128i halves = _mm_cvtsi32_si128(scales[0] << 8 | scales[1] << 24);
    const __m128 quarters = _mm_mul_ps(_mm_cvtph_ps(halves), _mm_set1_ps(0.25f));
    _mm_storel_pi(reinterpret_cast<__m64*>(&block->above_scale), quarters);
  }
}

constexpr RowForm kForm = {AmxBlocksBytes, nullptr, Prepare};

inline __m512i FourElements(const uint8_t* x) {
  int32_t four;
  std::memcpy(&four, x, sizeof(four));
  return _mm512_set1_epi32(four);
}

// The scales of 16 rows of a record.
struct GroupScales {
  __m512 above, below;
};

inline GroupScales LoadScales(const uint8_t* record, int group) {
  const __m512i bytes = LoadLine(record), zero = _mm512_setzero_si512();
  const __m512i halves = group == 0 ? _mm512_unpacklo_epi8(zero, bytes) : _mm512_unpackhi_epi8(zero, bytes);
  return {_mm512_cvtph_ps(_mm512_castsi512_si256(halves)),
          _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1))};
}

// The four sums of a row with 16 rows of B, by the signs of a, then b.
struct Sums {
  __m512i above_above, above_any, below_above, below_any;
};

inline __m512 ToFloat(__m512i x) { return _mm512_cvtepi32_ps(x); }

inline __m512 Finish(const Sums& s, const AmxBlock& a, const GroupScales& b, __m512 y) {
  const __m512i above_below = _mm512_sub_epi32(s.above_above, s.above_any);
  const __m512i below_below = _mm512_sub_epi32(s.below_above, s.below_any);
  const __m512 above =
      _mm512_fnmadd_ps(b.below, ToFloat(above_below), _mm512_mul_ps(b.above, ToFloat(s.above_above)));
  const __m512 below =
      _mm512_fnmadd_ps(b.below, ToFloat(below_below), _mm512_mul_ps(b.above, ToFloat(s.below_above)));
  y = _mm512_fmadd_ps(_mm512_set1_ps(a.above_scale), above, y);
  return _mm512_fnmadd_ps(_mm512_set1_ps(a.below_scale), below, y);
}

// Asks for the line that has its turn kAhead bytes later.
inline void AskFor(const uint8_t* line) {
  _mm_prefetch(reinterpret_cast<const char*>(line + kAhead), _MM_HINT_T0);
}

// kGroups groups of a record, from `codes` on, with a block of kRows rows, `a_stride` apart.
template <int kRows, int kGroups>
inline void MultiplyGroups(const AmxBlock* a, int64_t a_stride, const uint8_t* codes,
                           Sums (&sums)[kRows][kGroups]) {
  const __m512i zero = _mm512_setzero_si512();
  Unroll<kRows>([&](auto r) { Unroll<kGroups>([&](auto g) { sums[r][g] = {zero, zero, zero, zero}; }); });
  Unroll<4>([&](auto j) {
    __m512i lanes[kGroups];
    Unroll<kGroups>([&](auto g) {
      lanes[g] = LoadLine(codes + g * kGroupCodes + 64 * j);
      AskFor(codes + 64 * (kGroups * j + g));
    });
    Unroll<2>([&](auto half) {
      __m512i any[kGroups], above[kGroups];
      Unroll<kGroups>([&](auto g) {
        any[g] = _mm512_permutexvar_epi8(lanes[g], ElementTable());
        above[g] = _mm512_max_epi8(any[g], zero);
        if (half == 0) lanes[g] = _mm512_srli_epi32(lanes[g], 4);
      });
      Unroll<kRows>([&](auto r) {
        const auto* row =
            reinterpret_cast<const AmxBlock*>(reinterpret_cast<const uint8_t*>(a) + r * a_stride);
        const __m512i x_above = FourElements(row->above + 8 * j + 4 * half);
        const __m512i x_below = FourElements(row->below + 8 * j + 4 * half);
        Unroll<kGroups>([&](auto g) {
          Sums& s = sums[r][g];
          s.above_above = _mm512_dpbusd_epi32(s.above_above, above[g], x_above);
          s.above_any = _mm512_dpbusd_epi32(s.above_any, x_above, any[g]);
          s.below_above = _mm512_dpbusd_epi32(s.below_above, above[g], x_below);
          s.below_any = _mm512_dpbusd_epi32(s.below_any, x_below, any[g]);
        });
      });
    });
  });
}

template <int kRows>
[[gnu::flatten]] void Multiply(const GemmArgs& args) {
  constexpr int kGroups = kRows <= 2 ? 2 : 1;  // at a time
  __m512 y[kRows][2];
  Unroll<kRows>([&](auto r) { y[r][0] = y[r][1] = _mm512_setzero_ps(); });
  const int64_t blocks = CeilDiv(args.row.k, kPairBlock), a_stride = args.a_stride;
  const uint8_t* record = args.packed;
  const auto* a = reinterpret_cast<const AmxBlock*>(args.a);
  for (int64_t b = 0; b < blocks; ++b, record += kRecord, ++a) {
    AskFor(record);
    Unroll<2 / kGroups>([&](auto part) {
      Sums sums[kRows][kGroups];
      MultiplyGroups<kRows, kGroups>(a, a_stride, record + kScales + part * kGroupCodes, sums);
      Unroll<kGroups>([&](auto g) {
        constexpr int kGroup = part + g;
        const GroupScales scales = LoadScales(record, kGroup);
        Unroll<kRows>([&](auto r) {
          const auto* row =
              reinterpret_cast<const AmxBlock*>(reinterpret_cast<const uint8_t*>(a) + r * a_stride);
          y[r][kGroup] = Finish(sums[r][g], *row, scales, y[r][kGroup]);
        });
      });
    });
  }
  Unroll<kRows>([&](auto r) {
    Unroll<2>([&](auto g) { _mm512_storeu_ps(args.c + r * kTilePanel + g * kTileGroup, y[r][g]); });
  });
}

void Gemm(const GemmArgs& args) {
  switch (args.m) {
    case 1:
      return Multiply<1>(args);
    case 2:
      return Multiply<2>(args);
    default:
      return Multiply<PairKernels::kFewRows>(args);
  }
}

int64_t ScratchFloats(const RowShape&) { return 0; }

}  // namespace

const MatMulKernels amxfp4_few_matmul__avx512vnni = {
    kTilePanel, Tiles<2>::PackedBytes, Tiles<2>::Pack, ScratchFloats, Gemm, &kForm, PairKernels::kFewRows, 0};

}  // namespace mxcompile
