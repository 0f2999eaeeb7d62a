// float32 rows times amxfp4 rows in blocks of 32 with AVX512, for CPUs without BF16: many rows, from the
// layouts of the sets for few rows, so that constant weights are packed once.
//
// Data layout: that of fp4_tiles__avx512.h (with VNNI), or that of f32_packed_matmul__avx2.cc (without). Both
// have panels of 32 rows, records of 64 bytes of scales and 512 of codes, and eight elements of a row in a
// 32-bit lane; they differ in the order of nibbles, of vectors and of scales.
//
// 128 k of the panel are decoded to [128][32] float32 (16 KB, L1): for 16 elements a shift, vpermps by the
// code with its sign, a test, a blend and a multiplication. Then tiles of 12 rows x 32 columns.
//
// Register plan: 24 sums, 2 vectors of B, a broadcast. 24 multiply-adds take 14 loads and 12 cycles. Bound:
// vfmadd, two a cycle.
#include "kernels/elements__avx2.h"
#include "kernels/fp4_tiles__avx512.h"
#include "kernels/matmul_kernels.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kTileRows = 12;
constexpr int64_t kMaxRows = 504;  // sums of a panel: 63 KB, in the L2 cache
constexpr int64_t kRecord = Tiles<2>::kRecord, kScales = Tiles<2>::kScales;

// Where a layout has vector j of a group, nibble `element` of a lane, and 8 scales.
struct TileLayout {
  static constexpr int kNibble[8] = {4, 0, 5, 1, 6, 2, 7, 3};
  static constexpr int64_t Codes(int group, int j) { return kScales + group * kGroupCodes + 64 * j; }
  static constexpr int64_t Scales(int side, int group, int half) { return 32 * side + 8 * group + 16 * half; }
};

struct Avx2Layout {
  static constexpr int kNibble[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  static constexpr int64_t Codes(int group, int j) { return kScales + 4 * kTilePanel * j + 64 * group; }
  static constexpr int64_t Scales(int side, int group, int half) { return 32 * side + 16 * group + 8 * half; }
};

template <typename Layout>
inline __m512 GroupScales(const uint8_t* record, int side, int group) {
  const auto eight = [&](int half) {
    const uint8_t* from = record + Layout::Scales(side, group, half);
    return AmxDecode::Decode(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  };
  return _mm512_insertf32x8(_mm512_castps256_ps512(eight(0)), eight(1), 1);
}

// A record to [32 k][32 rows].
template <typename Layout>
[[gnu::flatten]] void DecodeRecord(const uint8_t* record, float* to) {
  const __m512 elements = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f, -1.0f,
                                         -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
  Unroll<2>([&](auto group) {
    const __m512 above = GroupScales<Layout>(record, 0, group), below = GroupScales<Layout>(record, 1, group);
    for (int j = 0; j < 4; ++j) {
      const __m512i lanes = LoadLine(record + Layout::Codes(group, j));
      Unroll<8>([&](auto e) {
        const __m512i codes = _mm512_srli_epi32(lanes, 4 * Layout::kNibble[e]);
        const __mmask16 negative = _mm512_test_epi32_mask(codes, _mm512_set1_epi32(8));
        const __m512 scale = _mm512_mask_blend_ps(negative, above, below);
        _mm512_store_ps(to + (8 * j + e) * kTilePanel + group * kTileGroup,
                        _mm512_mul_ps(_mm512_permutexvar_ps(codes, elements), scale));
      });
    }
  });
}

// c[kRows, 32] += a[kRows, size] * b[size, 32].
template <int kRows>
[[gnu::flatten]] void MultiplyTile(const float* a, int64_t a_stride, const float* b, int64_t size,
                                   const SumRows& c) {
  __m512 sums[kRows][2];
  Unroll<kRows>([&](auto r) { Unroll<2>([&](auto g) { sums[r][g] = c.Load(r, g); }); });
  for (int64_t i = 0; i < size; ++i, b += kTilePanel) {
    const __m512 first = _mm512_load_ps(b), second = _mm512_load_ps(b + kTileGroup);
    Unroll<kRows>([&](auto r) {
      const __m512 x = _mm512_set1_ps(a[r * a_stride + i]);
      sums[r][0] = _mm512_fmadd_ps(x, first, sums[r][0]);
      sums[r][1] = _mm512_fmadd_ps(x, second, sums[r][1]);
    });
  }
  Unroll<kRows>([&](auto r) { Unroll<2>([&](auto g) { c.Store(r, g, sums[r][g]); }); });
}

using Multiply = void (*)(const float*, int64_t, const float*, int64_t, const SumRows&);
constexpr Multiply kMultiply[kTileRows] = {
    MultiplyTile<1>, MultiplyTile<2>, MultiplyTile<3>, MultiplyTile<4>,  MultiplyTile<5>,  MultiplyTile<6>,
    MultiplyTile<7>, MultiplyTile<8>, MultiplyTile<9>, MultiplyTile<10>, MultiplyTile<11>, MultiplyTile<12>};

template <typename Layout>
void Gemm(const GemmArgs& args) {
  const int64_t stride = args.a_stride / static_cast<int64_t>(sizeof(float));
  const int64_t tile = CeilDiv(args.m, CeilDiv(args.m, kTileRows));  // tiles of nearly equal height
  if (args.row.k == 0) SumRows{args.c, args.c_stride, true}.Clear(args.m);
  for (int64_t start = 0; start < args.row.k; start += kDecodeStep) {
    const int64_t size = args.row.k - start < kDecodeStep ? args.row.k - start : kDecodeStep;
    for (int64_t i = 0; i < size; i += kPairBlock) {
      const uint8_t* record = args.packed + (start + i) / kPairBlock * kRecord;
      DecodeRecord<Layout>(record, args.scratch + i * kTilePanel);
    }
    const SumRows c{args.c, args.c_stride, start == 0};
    for (int64_t row = 0; row < args.m; row += tile) {
      const int64_t rows = args.m - row < tile ? args.m - row : tile;
      const float* a = reinterpret_cast<const float*>(args.a) + row * stride + start;
      kMultiply[rows - 1](a, stride, args.scratch, size, c.From(row));
    }
  }
}

int64_t ScratchFloats(const RowShape&) { return kDecodeStep * kTilePanel; }

constexpr MatMulKernels kAvx2Panels = {kTilePanel,       PackedAmxfp4Bytes__avx2,
                                       PackAmxfp4__avx2, ScratchFloats,
                                       Gemm<Avx2Layout>, nullptr,
                                       kMaxRows,         4,
                                       kDecodeStep};

constexpr MatMulKernels kTiles = {
    kTilePanel, Tiles<2>::PackedBytes, Tiles<2>::Pack, ScratchFloats, Gemm<TileLayout>, nullptr, kMaxRows, 4,
    kDecodeStep};

}  // namespace

const PairKernels amxfp4_amxfp4_matmul__avx512 = {&amxfp4_few_matmul__avx2, &kAvx2Panels};
const PairKernels amxfp4_amxfp4_matmul__avx512vnni = {&amxfp4_few_matmul__avx512vnni, &kTiles};

}  // namespace mxcompile
