// AMXINT4 rows with AVX2. Data layout and register plan: see block_rows__avx2.h and amxint4.h.
#include "kernels/amxint4.h"
#include "kernels/block_rows__avx2.h"
#include "kernels/row_kernels.h"

namespace mxcompile {
namespace {

struct AmxInt4Rows {
  static constexpr int kBits = AmxInt4::kBits;
  struct Block {
    __m256 s, shift;
  };

  static inline Block Spread(const AmxInt4::Scale& scale) {
    return {_mm256_set1_ps(scale.s), _mm256_set1_ps(scale.shift)};
  }

  static inline bool Begin(const float* x, int64_t size, const RowShape& row, float, int64_t index,
                           uint8_t* scales, Block* block) {
    float lo, hi;
    const bool finite = Extremes(x, size, &lo, &hi);
    const AmxInt4::Scale scale = finite ? AmxInt4::ScaleOf(lo, hi, row) : AmxInt4::NotFinite();
    AmxInt4::Store(scale, scales + index * AmxInt4::kScaleBytes);
    *block = Spread(scale);
    return finite;
  }

  static inline __m256i Encode(const Block& block, __m256 x) {
    const __m256 limit = _mm256_set1_ps(AmxInt4::kLimit);
    const __m256 exact = _mm256_add_ps(_mm256_div_ps(x, block.s), block.shift);
    const __m256 q = _mm256_max_ps(_mm256_min_ps(exact, limit), Negate(limit));
    // Half away from zero: twice what lies behind the point, truncated, is -1, 0 or 1; both products are
    // exact.
    const __m256 whole = _mm256_round_ps(q, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    const __m256 rest = _mm256_sub_ps(q, whole);
    const __m256i code =
        _mm256_add_epi32(_mm256_cvttps_epi32(whole), _mm256_cvttps_epi32(_mm256_add_ps(rest, rest)));
    return _mm256_and_si256(code, _mm256_set1_epi32(0xFF));
  }

  static inline Block Load(const uint8_t* scales, const RowShape&, int64_t index) {
    return Spread(AmxInt4::Load(scales + index * AmxInt4::kScaleBytes));
  }

  static inline __m256 Decode(const Block& block, __m256i codes) {
    const __m256i numbers = _mm256_srai_epi32(_mm256_slli_epi32(codes, 24), 24);
    return _mm256_mul_ps(_mm256_sub_ps(_mm256_cvtepi32_ps(numbers), block.shift), block.s);
  }
};

}  // namespace

const RowKernels amxint4_rows__avx2 = {QuantizeBlocks<AmxInt4Rows>, DequantizeBlocks<AmxInt4Rows>};

}  // namespace mxcompile
