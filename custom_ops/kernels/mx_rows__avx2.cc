// OCP MX rows of 6 and 8 bits with AVX2: one E8M0 scale a block, FLOOR rule.
//
// Data layout and register plan: see block_rows__avx2.h. The factor of a block is 2^(127 - byte), exact as a
// float32, so multiplying equals dividing.
#include "kernels/block_rows__avx2.h"
#include "kernels/row_kernels.h"

namespace mxcompile {
namespace {

template <typename Element>
struct Mx {
  static constexpr int kBits = Element::kBits;
  struct Block {
    __m256 factor;
  };

  static inline bool Begin(const float* x, int64_t size, const RowShape&, float, int64_t index,
                           uint8_t* scales, Block* block) {
    const uint32_t largest = LargestMagnitude(x, size);
    if (largest >= kExponentMask) {
      scales[index] = kE8M0NaN;
      return false;
    }
    const uint32_t exponent = largest >> 23, byte = exponent < Element::kEmax ? 0 : exponent - Element::kEmax;
    scales[index] = static_cast<uint8_t>(byte);
    block->factor = _mm256_set1_ps(byte == 254 ? 0x1p-127f : FloatOf((254 - byte) << 23));
    return true;
  }

  static inline __m256i Encode(const Block& block, __m256 x) {
    return WithSigns<Element>(EncodeMagnitudes<Element>(_mm256_mul_ps(Magnitude(x), block.factor)), x);
  }

  static inline Block Load(const uint8_t* scales, const RowShape&, int64_t index) {
    return {_mm256_set1_ps(DecodeE8M0(scales[index]))};
  }

  static inline __m256 Decode(const Block& block, __m256i codes) {
    return _mm256_mul_ps(DecodeCodes<Element>(codes), block.factor);
  }
};

template <typename Element>
constexpr RowKernels Rows() {
  return {QuantizeBlocks<Mx<Element>>, DequantizeBlocks<Mx<Element>>};
}

}  // namespace

const RowKernels mxfp6_e3m2_rows__avx2 = Rows<E3M2>();
const RowKernels mxfp6_e2m3_rows__avx2 = Rows<E2M3>();
const RowKernels mxfp8_e4m3_rows__avx2 = Rows<E4M3>();
const RowKernels mxfp8_e5m2_rows__avx2 = Rows<E5M2>();
const RowKernels mxint8_rows__avx2 = Rows<MxInt8>();

}  // namespace mxcompile
