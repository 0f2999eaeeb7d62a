// nvfp4 rows times nvfp4 rows with AVX512 VNNI and VBMI. What is computed: nvfp4_blocks.h.
//
// Data layout, register plan and bound: fp4_dot_tiles__avx512vnni.h, two blocks a record. For 6 rows and 32
// columns a block ends with 12 conversions, 12 products of scales and 12 multiply-adds: with 96 vpdpbusd, 72
// cycles per 32 k. 16 scales take 8 operations, through float16, whose subnormals no session flushes to zero.
#include "kernels/fp4_dot_tiles__avx512vnni.h"
#include "kernels/matmul_kernels.h"
#include "kernels/nvfp4_blocks.h"

namespace mxcompile {
namespace {

// What follows the elements of a block of A.
struct NvBlockEnd {
  int32_t start = 0;  // of the sum
  float scale = 0;    // a / 4 * kNvHalves
};

struct NvProduct {
  static constexpr int kParts = kPairBlock / kNvBlock;
  static constexpr int64_t kEndUnits = sizeof(NvBlockEnd) / 4;

  // The scales times 1 / kNvHalves: exponent and mantissa stand in a float16 as in E4M3, the bias apart.
  static inline __m512 Scales(__m128i bytes) {
    const __m256i words = _mm256_slli_epi16(_mm256_cvtepi8_epi16(bytes), 7);
    const __m256i halves = _mm256_and_si256(words, _mm256_set1_epi16(static_cast<int16_t>(0xBFFF)));
    const __m128i magnitudes = _mm_or_si128(bytes, _mm_set1_epi8(INT8_MIN));
    const __mmask16 is_nan = _mm_cmpeq_epi8_mask(magnitudes, _mm_set1_epi8(-1));
    return _mm512_cvtph_ps(_mm256_mask_mov_epi16(halves, is_nan, _mm256_set1_epi16(0x7E00)));
  }
  static inline __m512 Finish(__m512i sum, const uint8_t* end, int64_t tile, __m512 scales, __m512 y) {
    const __m512 product = _mm512_mul_ps(_mm512_castsi512_ps(Unit(end, tile)), scales);
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), product, y);
  }
};

int64_t NvRowBytes(int64_t k) { return 4 * CeilDiv(k, kPairBlock) * kRecordUnits<NvProduct>; }

void PrepareNv(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t step) {
  const __m256i order = _mm256_load_si256(reinterpret_cast<const __m256i*>(kTileOrder.numbers));
  const auto put = [&](const void* unit) {
    std::memcpy(prepared, unit, 4);
    prepared += step;
  };
  scales += NvScales::kRowBytes;
  for (int64_t start = 0; start < k; start += kPairBlock) {
    alignas(32) int8_t elements[kPairBlock];
    const int64_t count = k - start < kPairBlock ? k - start : kPairBlock;
    const __m256i all = Elements(codes + start / 2, count, order);
    _mm256_store_si256(reinterpret_cast<__m256i*>(elements), all);
    const __m256i sums = SumsOfHalves(all);
    for (int64_t first = 0; first < kPairBlock; first += kNvBlock) {
      NvBlockEnd end;
      if (start + first < k) end.scale = E4M3::Decode(*scales++) * (kNvHalves / 4);
      end.start = -12 * (first == 0 ? _mm256_extract_epi32(sums, 0) : _mm256_extract_epi32(sums, 4));
      for (int64_t i = first; i < first + kNvBlock; i += 4) put(elements + i);
      put(&end.start);
      put(&end.scale);
    }
  }
}

constexpr RowForm kForm = {NvRowBytes, TileRows, PrepareNv};

int64_t PackedBytes(const RowShape& row) { return CeilDiv(row.k, kPairBlock) * kRecord<NvProduct>; }

void Pack(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed) {
  const uint8_t* scales = b.scales + NvScales::kRowBytes;
  for (int64_t start = 0; start < row.k; start += kPairBlock, packed += kRecord<NvProduct>) {
    for (int64_t part = 0; part < NvProduct::kParts; ++part, ++scales) {
      const bool missing = start + part * kNvBlock >= row.k;
      Tiles<1>::PackScales(scales, missing ? 0 : rows, b.scale_bytes, packed + part * kTilePanel);
    }
    PackCodes(b, rows, row.k, start, packed + kScaleBytes<NvProduct>);
  }
}

void Gemm(const GemmArgs& args) { MultiplyRecords<NvProduct>(args, args.packed); }

constexpr MatMulKernels kAny =
    WithTensorScalesApart({kTilePanel, PackedBytes, Pack, ScratchFloats<NvProduct>, Gemm, &kForm, kMaxRows});

}  // namespace

const PairKernels nvfp4_nvfp4_matmul__avx512vnni = {&kAny, &kAny};

}  // namespace mxcompile
