// float32 rows times amxfp4 rows in blocks of 32 with AVX512, for CPUs without BF16: many rows, from the
// layouts of the sets for few rows, so that constant weights are packed once.
//
// Data layout: that of fp4_tiles__avx512.h (with VNNI), or that of amxfp4_columns__avx2.h (without), of which
// 32 rows of a panel have their turn after the other 32. Either has a record for 32 k.
//
// 128 k of 32 rows are decoded to [128][32] float32 (16 KB, L1): for 16 elements one or two operations bring
// their codes to the lowest nibbles of lanes; vpermps by the code with its sign, a test, a blend and a
// multiplication. Then tiles of 12 rows x 32 columns.
//
// Register plan: 24 sums, 2 vectors of B, a broadcast. 24 multiply-adds take 14 loads and 12 cycles. Bound:
// vfmadd, two a cycle.
#include "kernels/amxfp4_columns__avx2.h"
#include "kernels/elements__avx2.h"
#include "kernels/fp4_tiles__avx512.h"
#include "kernels/matmul_kernels.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kTileRows = 12;
constexpr int64_t kMaxRows = 504;  // sums of a panel: 63 KB, in the L2 cache

// Scales of 16 rows, of which those of 8 stand at `first`, the others 16 bytes further.
inline __m512 GroupScales(const uint8_t* first) {
  const auto eight = [](const uint8_t* from) {
    return AmxDecode::Decode(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  };
  return _mm512_insertf32x8(_mm512_castps256_ps512(eight(first)), eight(first + 16), 1);
}

// Elements of 16 rows, by the codes in the lowest nibbles.
struct GroupDecoder {
  __m512 above, below;

  inline void Store(__m512i codes, float* to) const {
    const __m512 elements = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f,
                                           -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
    const __mmask16 negative = _mm512_test_epi32_mask(codes, _mm512_set1_epi32(8));
    const __m512 scale = _mm512_mask_blend_ps(negative, above, below);
    _mm512_store_ps(to, _mm512_mul_ps(_mm512_permutexvar_ps(codes, elements), scale));
  }
};

struct TileLayout {
  static constexpr int64_t kPanel = kTilePanel, kRecord = Tiles<2>::kRecord;
  static constexpr int kNibble[8] = {4, 0, 5, 1, 6, 2, 7, 3};  // of element 0, 1, ... of a lane

  // A record to [32 k][32 rows].
  template <int kPart>
  [[gnu::flatten]] static void Decode(const uint8_t* record, float* to) {
    Unroll<2>([&](auto group) {
      const GroupDecoder decoder{GroupScales(record + 8 * group), GroupScales(record + 32 + 8 * group)};
      const uint8_t* codes = record + Tiles<2>::kScales + group * kGroupCodes;
      for (int j = 0; j < 4; ++j) {
        const __m512i lanes = LoadLine(codes + 64 * j);
        Unroll<8>([&](auto e) {
          decoder.Store(_mm512_srli_epi32(lanes, 4 * kNibble[e]),
                        to + (8 * j + e) * kTilePanel + group * kTileGroup);
        });
      }
    });
  }
};

struct ColumnLayout {
  static constexpr int64_t kPanel = kColumnRows, kRecord = kColumnRecord;

  // The first 32 rows of a record, or the last, to [32 k][32 rows].
  template <int kPart>
  [[gnu::flatten]] static void Decode(const uint8_t* record, float* to) {
    GroupDecoder decoders[2];
    Unroll<2>([&](auto group) {
      const uint8_t* scales = record + 64 * kPart + 32 * group;
      decoders[group] = {GroupScales(scales), GroupScales(scales + 8)};
    });
    const uint8_t* column = record + kColumnScales;
    for (int64_t i = 0; i < kPairBlock; ++i, column += kColumnBytes, to += kTilePanel) {
      const __m128i left = _mm_loadu_si128(reinterpret_cast<const __m128i*>(column));
      const __m128i right = _mm_loadu_si128(reinterpret_cast<const __m128i*>(column + 16));
      Unroll<2>([&](auto group) {
        const __m128i bytes = group == 0 ? _mm_unpacklo_epi32(left, right) : _mm_unpackhi_epi32(left, right);
        decoders[group].Store(_mm512_srli_epi32(_mm512_cvtepu8_epi32(bytes), 4 * kPart),
                              to + group * kTileGroup);
      });
    }
  }
};

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

// 32 rows of B, of a panel that has one or two times so many, with all rows of A; `size` elements.
template <typename Layout, int kPart>
void MultiplyPart(const GemmArgs& args, int64_t start, int64_t size) {
  const int64_t stride = args.a_stride / static_cast<int64_t>(sizeof(float));
  const int64_t tile = CeilDiv(args.m, CeilDiv(args.m, kTileRows));  // tiles of nearly equal height
  for (int64_t i = 0; i < size; i += kPairBlock) {
    const uint8_t* record = args.packed + (start + i) / kPairBlock * Layout::kRecord;
    Layout::template Decode<kPart>(record, args.scratch + i * kTilePanel);
  }
  const SumRows c{args.c + kPart * kTilePanel, args.c_stride, start == 0};
  for (int64_t row = 0; row < args.m; row += tile) {
    const int64_t rows = args.m - row < tile ? args.m - row : tile;
    const float* a = reinterpret_cast<const float*>(args.a) + row * stride + start;
    kMultiply[rows - 1](a, stride, args.scratch, size, c.From(row));
  }
}

template <typename Layout>
void Gemm(const GemmArgs& args) {
  const bool two_parts = Layout::kPanel > kTilePanel && args.b_rows > kTilePanel;
  if (args.row.k == 0) {
    for (int64_t r = 0; r < args.m; ++r)
      std::memset(args.c + r * args.c_stride, 0, Layout::kPanel * sizeof(float));
  }
  for (int64_t start = 0; start < args.row.k; start += kDecodeStep) {
    const int64_t size = args.row.k - start < kDecodeStep ? args.row.k - start : kDecodeStep;
    MultiplyPart<Layout, 0>(args, start, size);
    if (two_parts) MultiplyPart<Layout, 1>(args, start, size);
  }
}

int64_t ScratchFloats(const RowShape&) { return kDecodeStep * kTilePanel; }

constexpr MatMulKernels kColumns = {kColumnRows,        PackedAmxfp4Bytes__avx2,
                                    PackAmxfp4__avx2,   ScratchFloats,
                                    Gemm<ColumnLayout>, nullptr,
                                    kMaxRows / 2,       4,
                                    kDecodeStep};

}  // namespace

const MatMulKernels f32_amxfp4_tiles_matmul__avx512 = {
    kTilePanel, Tiles<2>::PackedBytes, Tiles<2>::Pack, ScratchFloats, Gemm<TileLayout>, nullptr, kMaxRows, 4,
    kDecodeStep};

const PairKernels amxfp4_amxfp4_matmul__avx512 = {&amxfp4_few_matmul__avx2, &kColumns, nullptr,
                                                  &f32_amxfp4_tiles_matmul__avx512};
const PairKernels amxfp4_amxfp4_matmul__avx512vnni = {&amxfp4_few_matmul__avx512vnni,
                                                      &f32_amxfp4_tiles_matmul__avx512};

}  // namespace mxcompile
