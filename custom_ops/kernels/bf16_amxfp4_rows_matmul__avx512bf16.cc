// Few amxfp4 rows times amxfp4 rows as they come, in bfloat16 with AVX512 BF16: the products of attention
// while a model writes, where packing B would cost more than multiplying. Sums as kernels.h has them.
//
// Data layout: B as it comes. The codes of two blocks of 16 rows are turned in registers into eight vectors
// with eight elements of one row in each 32-bit lane, and the scales of 16 blocks in the same way into
// vectors with two blocks of one row in each lane. A is pairs as in bf16_tiles__avx512bf16.h, all rows
// interleaved.
//
// Two elements of 16 rows come from a vector by one vpmultishiftqb, which brings any nibble to any byte, and
// five operations more. What is turned goes through the stack, 4 KB, as there are not registers for all.
//
// Register plan: kRows x kGroups sums, 2 scales and a vector of codes for each group of 16 rows, 4 controls,
// the table, a broadcast. Four groups for up to two rows of A, so that four chains of additions cover the
// latency of six cycles; two for up to 8 rows.
//
// Per 16 rows x 32 k: 96 operations to decode, 16 to turn codes, 11 for scales, and 16 vdpbf16ps for each row
// of A: 48 cycles for one row if nothing waited; 57 to 62 measured. Bound: those operations; 41 cycles of
// them are for decoding and vdpbf16ps.
#include <algorithm>

#include "kernels/bf16_fp4__avx512bf16.h"
#include "kernels/matmul_kernels.h"
#include "kernels/turned_rows__avx512.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 256;
constexpr int64_t kMaxRows = 8;
constexpr int64_t kBlockCodes = kPairBlock / 2, kScaleBlocks = kTurnBytes / 2;

// A vector whose lanes have these bytes, counted from each lane's own first byte.
inline __m512i InLanes(uint32_t bytes) {
  const auto at = [bytes](uint32_t lane) { return static_cast<int32_t>(bytes + 0x04040404u * lane); };
  return _mm512_set4_epi32(at(3), at(2), at(1), at(0));
}

// The control that brings elements 2 * pair and 2 * pair + 1 of each lane to the lowest nibbles of its upper
// and its lower word.
inline __m512i PairControl(int64_t pair) {
  const int64_t low = 8 * pair + 4, high = 8 * pair;
  return _mm512_set1_epi64((32 + high) << 48 | (32 + low) << 32 | high << 16 | low);
}

// The scales of a block of 16 rows, E5M2 in the upper bytes of words: above in the lower words.
inline __m512i BlockHalves(__m512i two_blocks, int64_t second) {
  const __m512i order = second == 0 ? InLanes(0x01010000) : InLanes(0x03030202);
  return _mm512_and_si512(_mm512_shuffle_epi8(two_blocks, order),
                          _mm512_set1_epi16(static_cast<int16_t>(0xFF00)));
}

// A block of 16 rows of B.
struct Block {
  const __m512i* codes;  // 4 vectors
  __m512i halves, above, below;

  inline void Use(const __m512i (&all_codes)[kTurned], const __m512i (&all_scales)[kTurned], int64_t block) {
    codes = all_codes + block % 2 * 4;
    halves = BlockHalves(all_scales[block % kScaleBlocks / 2], block % 2);
    const __m512i words = ScaleWords(halves);
    above = _mm512_shuffle_epi8(words, InLanes(0x01000100));
    below = _mm512_shuffle_epi8(words, InLanes(0x03020302));
  }
  inline __m512i Decode(int64_t vector, __m512i control) const {
    const __m512i words = _mm512_multishift_epi64_epi8(control, codes[vector]);
    return DecodeSides(words, _mm512_test_epi16_mask(words, _mm512_set1_epi16(8)), above, below);
  }
  // The same for any scales.
  inline __m512i DecodeSlowly(int64_t vector, int64_t pair) const {
    const __m512 a = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(halves));
    const __m512 b = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(halves, 16)));
    const __m512i upper = _mm512_srl_epi32(codes[vector], _mm_cvtsi64_si128(8 * pair));
    return DecodeAny(upper, _mm512_srli_epi32(upper, 4), a, b);
  }
};

// c[kRows, 16 * kGroups] = a[kRows, k] * b[k, ...], rows of B from `row` on.
template <int kRows, int kGroups, bool kAll>
[[gnu::flatten]] void MultiplyGroups(const GemmArgs& args, int64_t row) {
  const int64_t k = args.row.k, step = 4 * args.a_tile;
  const ByteRows all_codes{args.b.codes, args.b.code_bytes, args.b_rows};
  const ByteRows all_scales{args.b.scales, args.b.scale_bytes, args.b_rows};
  const uint8_t* a = args.a;
  __m512i codes[kGroups][kTurned], scales[kGroups][kTurned];
  __m512 sums[kRows][kGroups];
  Unroll<kRows>([&](auto r) { Unroll<kGroups>([&](auto g) { sums[r][g] = _mm512_setzero_ps(); }); });
  const auto add = [&](auto g, __m512i pair) {
    Unroll<kRows>([&](auto r) { sums[r][g] = AddProducts(sums[r][g], PairOf(a, r), pair); });
  };
  for (int64_t block = 0; block < CeilDiv(k, kPairBlock); ++block) {
    Block b[kGroups];
    __m512i largest = _mm512_setzero_si512();
    Unroll<kGroups>([&](auto g) {
      const int64_t group = row + g * kTurnRows;
      if (block % kScaleBlocks == 0) TurnScales<kAll>(all_scales, group, 2 * block, scales[g]);
      if (block % 2 == 0) Turn<kAll>(all_codes, group, block * kBlockCodes, codes[g]);
      b[g].Use(codes[g], scales[g], block);
      largest = _mm512_max_epu16(largest, b[g].halves);
    });
    if (AreFinite(largest)) {  // 0 times 0 behind the row
      for (int64_t j = 0; j < 4; ++j) {
        Unroll<4>([&](auto pair) {
          Unroll<kGroups>([&](auto g) { add(g, b[g].Decode(j, PairControl(pair))); });
          a += step;
        });
      }
      continue;
    }
    const int64_t count = std::min(k - block * kPairBlock, kPairBlock);
    for (int64_t i = 0; i < count; i += 2, a += step) {
      const __mmask32 present = count - i == 1 ? 0xAAAAAAAA : 0xFFFFFFFF;
      Unroll<kGroups>(
          [&](auto g) { add(g, _mm512_maskz_mov_epi16(present, b[g].DecodeSlowly(i / 8, i / 2 % 4))); });
    }
  }
  float* const c = args.c + row;
  Unroll<kRows>([&](auto r) {
    Unroll<kGroups>([&](auto g) { _mm512_storeu_ps(c + r * args.c_stride + g * kTurnRows, sums[r][g]); });
  });
}

template <int kRows>
void MultiplyPanel(const GemmArgs& args) {
  ForGroups<kRows <= 2 ? 4 : 2>(args.b_rows, [&](auto groups, auto all, int64_t row) {
    MultiplyGroups<kRows, groups, all>(args, row);
  });
}

using Panel = void (*)(const GemmArgs&);
constexpr Panel kMultiplyPanel[kMaxRows] = {MultiplyPanel<1>, MultiplyPanel<2>, MultiplyPanel<3>,
                                            MultiplyPanel<4>, MultiplyPanel<5>, MultiplyPanel<6>,
                                            MultiplyPanel<7>, MultiplyPanel<8>};

void Gemm(const GemmArgs& args) { kMultiplyPanel[args.m - 1](args); }

int64_t ScratchFloats(const RowShape&) { return 0; }

int64_t TileRows(int64_t m) { return m; }

constexpr RowForm kForm = {PairRowBytes, TileRows, PrepareRow, nullptr, QuantizePairs__avx512bf16};

}  // namespace

const MatMulKernels bf16_amxfp4_rows_matmul__avx512bf16 = {kPanel, nullptr,  nullptr, ScratchFloats, Gemm,
                                                           &kForm, kMaxRows, 4,       INT64_MAX};

}  // namespace mxcompile
