// mxfp4 rows times mxfp4 rows with AVX2. What is computed: mxfp4_blocks.h.
//
// Data layout, register plan and bound: fp4_dot_tiles__avx2.h. With blocks of 32, many rows take 6 cycles for
// 8 rows of B and 32 k.
#include "kernels/fp4_dot_tiles__avx2.h"
#include "kernels/matmul_kernels.h"

namespace mxcompile {
namespace {

struct MxProduct {
  static constexpr int64_t kBlock = kPairBlock, kRowScales = 0;

  static float AScale(uint8_t byte) { return DecodeE8M0(byte) * 0.25f; }
  static inline __m256 BScales(__m128i bytes) { return DecodeE8M0x8(bytes); }
  static inline __m256 Finish(__m256 sum, __m256 a, __m256 b, __m256 y) {
    return _mm256_fmadd_ps(a, _mm256_mul_ps(b, sum), y);
  }
};

constexpr MatMulKernels kAny = {kPanel,          PackedMxfp4Bytes__avx2,
                                PackMxfp4__avx2, ScratchFloats<MxProduct>,
                                Gemm<MxProduct>, &kForm<MxProduct>};

}  // namespace

const PairKernels mxfp4_mxfp4_matmul__avx2 = {&kAny, &kAny};

}  // namespace mxcompile
