// nvfp4 rows times nvfp4 rows with AVX2. What is computed: nvfp4_blocks.h.
//
// Data layout, register plan and bound: fp4_dot_tiles__avx2.h. With blocks of 16, many rows take 7
// cycles for 8 rows of B and 32 k. 8 scales take 9 operations, through float16, whose subnormals no session
// flushes to zero.
#include "kernels/fp4_dot_tiles__avx2.h"
#include "kernels/matmul_kernels.h"
#include "kernels/nvfp4_blocks.h"

namespace mxcompile {
namespace {

struct NvProduct {
  static constexpr int64_t kBlock = kNvBlock, kRowScales = NvScales::kRowBytes;

  static float AScale(uint8_t byte) { return E4M3::Decode(byte) * (kNvHalves / 4); }
  // The scales times 1 / kNvHalves: exponent and mantissa stand in a float16 as in E4M3, the bias apart.
  static inline __m256 BScales(__m128i bytes) {
    const __m128i words = _mm_slli_epi16(_mm_cvtepi8_epi16(bytes), 7);
    const __m128i magnitudes = _mm_and_si128(words, _mm_set1_epi16(0x3F80));
    const __m128i is_nan = _mm_cmpeq_epi16(magnitudes, _mm_set1_epi16(0x3F80));
    const __m128i halves = _mm_and_si128(words, _mm_set1_epi16(static_cast<int16_t>(0xBFFF)));
    return _mm256_cvtph_ps(_mm_or_si128(halves, _mm_and_si128(is_nan, _mm_set1_epi16(0x7E00))));
  }
  static inline __m256 Finish(__m256 sum, __m256 a, __m256 b, __m256 y) {
    return _mm256_fmadd_ps(sum, _mm256_mul_ps(a, b), y);
  }
};

constexpr MatMulKernels kAny =
    WithTensorScalesApart({kPanel, PackedNvfp4Bytes__avx2, PackNvfp4__avx2, ScratchFloats<NvProduct>,
                           Gemm<NvProduct>, &kForm<NvProduct>});

}  // namespace

const PairKernels nvfp4_nvfp4_matmul__avx2 = {&kAny, &kAny};

}  // namespace mxcompile
