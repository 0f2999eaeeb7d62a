// Few mxfp4 rows times mxfp4 rows as they come, with AVX512 VNNI and VBMI: the products of attention while a
// model writes. What is computed: mxfp4_blocks.h.
//
// Data layout: B as it comes, turned in registers as turned_rows__avx512.h says: two blocks of codes, or the
// scales of 32 blocks, at a time. A as in mxfp4_dot__avx512vnni.h, all rows interleaved; a unit holds four
// even elements or the four odd ones between them, as the low and the high nibbles of a lane do.
//
// Register plan: kRows x kGroups sums of a block and as many results, a vector of B for each group of 16
// rows, the table, a broadcast. Four groups for one row of A, two for up to four rows, one for more.
//
// Per 16 rows x 32 k: 24 operations to turn codes, 12 to decode, 8 vpdpbusd and 3 operations more for each
// row of A. Bound: those operations, some 20 cycles for one row.
#include <algorithm>

#include "kernels/matmul_kernels.h"
#include "kernels/mxfp4_quantize__avx512vnni.h"
#include "kernels/turned_rows__avx512.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 256;
constexpr int64_t kMaxRows = 8;
constexpr int64_t kBlockCodes = kPairBlock / 2, kScaleBlocks = kTurnBytes;

// A lane holds elements 0 and 1, 2 and 3, ... in its bytes.
constexpr ElementOrder kLaneOrder = {{0, 1, 2,  3,  16, 17, 18, 19, 4,  5,  6,  7,  20, 21, 22, 23,
                                      8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31}};

int64_t TileRows(int64_t m) { return m; }

template <bool kEven, const RowKernels& kPlain>
constexpr RowForm kForm = {RowBytes, TileRows, Prepare<kLaneOrder>, nullptr,
                           QuantizeTile<PowerEncode<1, kEven>, kPlain, kLaneOrder>};

// The float32 of the scales of a block of 16 rows.
template <bool kTame>
inline __m512 BlockScales(const __m512i (&scales)[kTurned], int64_t block) {
  const __m512i four_blocks = scales[block % kScaleBlocks / 4];
  const __m512i bytes = _mm512_srl_epi32(four_blocks, _mm_cvtsi64_si128(block % 4 * 8));
  return Scales<kTame>(_mm512_and_si512(bytes, _mm512_set1_epi32(0xFF)));
}

// c[kRows, 16 * kGroups] = a[kRows, k] * b[k, ...], rows of B from `row` on.
template <int kRows, int kGroups, bool kAll, bool kTame>
[[gnu::flatten]] void Multiply(const GemmArgs& args, int64_t row) {
  const int64_t tile = args.a_tile;
  const ByteRows all_codes{args.b.codes, args.b.code_bytes, args.b_rows};
  const ByteRows all_scales{args.b.scales, args.b.scale_bytes, args.b_rows};
  const __m512i table = SumTable();
  const uint8_t* a = args.a;
  __m512i codes[kGroups][kTurned], scales[kGroups][kTurned];
  __m512 y[kRows][kGroups];
  Unroll<kRows>([&](auto r) { Unroll<kGroups>([&](auto g) { y[r][g] = _mm512_setzero_ps(); }); });
  for (int64_t block = 0; block < CeilDiv(args.row.k, kPairBlock); ++block) {
    Unroll<kGroups>([&](auto g) {
      const int64_t group = row + g * kTurnRows;
      if (block % kScaleBlocks == 0) TurnScales<kAll>(all_scales, group, block, scales[g]);
      if (block % 2 == 0) Turn<kAll>(all_codes, group, block * kBlockCodes, codes[g]);
    });
    const uint8_t* end = a + 4 * kElementUnits * tile;
    __m512i sums[kRows][kGroups];
    Unroll<kRows>([&](auto r) { Unroll<kGroups>([&](auto g) { sums[r][g] = Unit(end, r); }); });
    Unroll<4>([&](auto j) {
      Unroll<2>([&](auto half) {
        __m512i words[kGroups];
        Unroll<kGroups>([&](auto g) {
          const __m512i lanes = codes[g][block % 2 * 4 + j];
          words[g] = _mm512_permutexvar_epi8(half == 0 ? lanes : _mm512_srli_epi32(lanes, 4), table);
        });
        Unroll<kRows>([&](auto r) {
          const __m512i x = Unit(a, r);
          Unroll<kGroups>([&](auto g) { sums[r][g] = _mm512_dpbusd_epi32(sums[r][g], words[g], x); });
        });
        a += 4 * tile;
      });
    });
    Unroll<kGroups>([&](auto g) {
      const __m512 b = BlockScales<kTame>(scales[g], block);
      Unroll<kRows>([&](auto r) { y[r][g] = Finish<kTame>(sums[r][g], end + 4 * r, tile, b, y[r][g]); });
    });
    a = end + 4 * kEndUnits * tile;
  }
  float* const c = args.c + row;
  Unroll<kRows>([&](auto r) {
    Unroll<kGroups>([&](auto g) { _mm512_storeu_ps(c + r * args.c_stride + g * kTurnRows, y[r][g]); });
  });
}

template <bool kTame>
struct Panel {
  template <int kRows>
  static void Multiply(const GemmArgs& args) {
    ForGroups<kRows <= 1   ? 4
              : kRows <= 4 ? 2
                           : 1>(args.b_rows, [&](auto groups, auto all, int64_t row) {
      mxcompile::Multiply<kRows, groups, all, kTame>(args, row);
    });
  }
  static constexpr void (*kMultiply[kMaxRows])(const GemmArgs&) = {
      Multiply<1>, Multiply<2>, Multiply<3>, Multiply<4>, Multiply<5>, Multiply<6>, Multiply<7>, Multiply<8>};
};

// B's rows follow each other, so do their scales.
bool ScalesAreTame(const GemmArgs& args) {
  const int64_t size = args.b_rows * args.b.scale_bytes;
  __mmask64 wild = 0;
  for (int64_t i = 0; i < size; i += 64) {
    const __mmask64 present = size - i < 64 ? (uint64_t{1} << (size - i)) - 1 : ~uint64_t{0};
    wild |= Wild(_mm512_maskz_loadu_epi8(present, args.b.scales + i)) & present;
  }
  return wild == 0;
}

void Gemm(const GemmArgs& args) {
  const bool tame = ScalesAreTame(args) && AreTame(args);
  (tame ? Panel<true>::kMultiply : Panel<false>::kMultiply)[args.m - 1](args);
}

int64_t ScratchFloats(const RowShape&) { return 0; }

template <bool kEven, const RowKernels& kPlain>
constexpr MatMulKernels kSet = {kPanel,   nullptr, nullptr,  ScratchFloats, Gemm, &kForm<kEven, kPlain>,
                                kMaxRows, 4,       INT64_MAX};

}  // namespace

const MatMulKernels mxfp4_mxfp4_rows_matmul__avx512vnni = kSet<false, mxfp4_rows__avx2>;
const MatMulKernels mxfp4_even_mxfp4_even_rows_matmul__avx512vnni = kSet<true, mxfp4_even_rows__avx2>;

}  // namespace mxcompile
