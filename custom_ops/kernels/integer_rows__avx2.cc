// Rows of integers with AVX2. Data layout and register plan: see block_rows__avx2.h; scale and zero point of
// a group stay in two registers, the thresholds of the half steps in four.
#include "kernels/block_rows__avx2.h"
#include "kernels/integers.h"
#include "kernels/row_kernels.h"

namespace mxcompile {
namespace {

template <typename Number>
struct IntegerRows {
  static constexpr int kBits = Number::kBits;
  struct Block {
    __m256 s;
    __m256i z;
  };

  static inline Block Spread(const typename Number::Scale& scale) {
    return {_mm256_set1_ps(scale.s), _mm256_set1_epi32(scale.z)};
  }

  static inline bool Begin(const float* x, int64_t size, const RowShape&, float, int64_t index,
                           uint8_t* scales, Block* block) {
    float smallest, largest;
    const bool finite = Extremes(x, size, &smallest, &largest);
    const auto scale = finite ? Number::ScaleOf(smallest, largest) : Number::NotFinite();
    Number::Store(scale, scales + index * Number::kScaleBytes);
    *block = Spread(scale);
    return finite;
  }

  static inline __m256 Between(__m256 low_side, __m256 high_side) {
    return _mm256_and_ps(low_side, high_side);
  }

  static inline __m256i Choose(__m256i value, __m256 where, int other) {
    return _mm256_blendv_epi8(value, _mm256_set1_epi32(other), Bits(where));
  }

  static inline __m256i Encode(const Block& block, __m256 x) {
    const __m256 v = _mm256_div_ps(x, block.s);
    __m256i code = _mm256_add_epi32(_mm256_cvtps_epi32(v), block.z);  // to nearest, ties to even
    code = _mm256_max_epi32(code, _mm256_setzero_si256());
    code = _mm256_min_epi32(code, _mm256_set1_epi32(Number::kTop));
    if constexpr (Number::kHalfSteps) {
      const __m256 low = _mm256_set1_ps(0.25f), high = _mm256_set1_ps(0.75f);
      code = Choose(code, Between(_mm256_cmp_ps(v, low, _CMP_GT_OQ), _mm256_cmp_ps(v, high, _CMP_LE_OQ)),
                    Number::kPlusHalf);
      code = Choose(
          code,
          Between(_mm256_cmp_ps(v, Negate(high), _CMP_GE_OQ), _mm256_cmp_ps(v, Negate(low), _CMP_LT_OQ)),
          Number::kMinusHalf);
    }
    return code;
  }

  static inline Block Load(const uint8_t* scales, const RowShape&, int64_t index) {
    return Spread(Number::Load(scales + index * Number::kScaleBytes));
  }

  static inline __m256 Decode(const Block& block, __m256i more) {
    const __m256i codes = CodesAlone<kBits>(more);
    __m256 steps = _mm256_cvtepi32_ps(_mm256_sub_epi32(codes, block.z));
    if constexpr (Number::kHalfSteps) {
      const __m256i plus = _mm256_cmpeq_epi32(codes, _mm256_set1_epi32(Number::kPlusHalf));
      const __m256i minus = _mm256_cmpeq_epi32(codes, _mm256_set1_epi32(Number::kMinusHalf));
      steps = _mm256_blendv_ps(steps, _mm256_set1_ps(0.5f), _mm256_castsi256_ps(plus));
      steps = _mm256_blendv_ps(steps, _mm256_set1_ps(-0.5f), _mm256_castsi256_ps(minus));
    }
    return _mm256_mul_ps(steps, block.s);
  }
};

template <typename Number>
constexpr RowKernels Rows() {
  return {QuantizeBlocks<IntegerRows<Number>>, DequantizeBlocks<IntegerRows<Number>>};
}

}  // namespace

const RowKernels dint4_rows__avx2 = Rows<DInt4>();
const RowKernels dint3_rows__avx2 = Rows<DInt3>();
const RowKernels int4_rows__avx2 = Rows<Int4>();
const RowKernels int8_rows__avx2 = Rows<Int8>();

}  // namespace mxcompile
