// NVFP4 rows with AVX2. Data layout: see block_rows__avx2.h and nvfp4.h. A block is one unit of 16 elements;
// its scale is computed on the side, the latency of which the elements of the block before hide.
#include "kernels/block_rows__avx2.h"
#include "kernels/nvfp4.h"
#include "kernels/row_kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kBatch = 8;   // blocks whose scales are computed together
constexpr int64_t kBlock = 16;  // formats.cc allows no other

// For the frame: the elements of a block.
struct NvElements {
  static constexpr int kBits = E2M1::kBits;
  struct Block {
    __m256 scale;
  };

  static inline __m256i Encode(const Block& block, __m256 x) {
    // 0 / 0, in a tiny tensor, is NaN; vmaxps gives its second operand then.
    const __m256 q = _mm256_max_ps(_mm256_div_ps(Magnitude(x), block.scale), _mm256_setzero_ps());
    // E2M1::EncodeToEven: from 1 on by its addition to the bits, below 1 by two thresholds. Neither exceeds
    // the right code on the other's ground, so the larger one is right.
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(Bits(q), 22), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_add_epi32(_mm256_add_epi32(Bits(q), _mm256_set1_epi32((1 << 21) - 1)), odd);
    const __m256i normal =
        _mm256_sub_epi32(_mm256_srli_epi32(rounded, 22), _mm256_set1_epi32((127 - 1) << 1));
    const __m256i above_quarter = Bits(_mm256_cmp_ps(q, _mm256_set1_ps(0.25f), _CMP_GT_OQ));
    const __m256i above_half = Bits(_mm256_cmp_ps(q, _mm256_set1_ps(0.75f), _CMP_GE_OQ));
    const __m256i below_one = _mm256_abs_epi32(_mm256_add_epi32(above_quarter, above_half));
    const __m256i code = _mm256_min_epi32(_mm256_max_epi32(normal, below_one), _mm256_set1_epi32(E2M1::kMax));
    return WithSigns<E2M1>(code, x);
  }

  static inline __m256 Decode(const Block& block, __m256i codes) {
    return DecodeE2M1(E2M1Table(), codes, block.scale, Negate(block.scale));
  }
};

// The float32 scales of 8 blocks from their E4M3 bytes.
inline __m256 DecodeScales(__m256i bytes, float tensor_scale) {
  return _mm256_mul_ps(_mm256_set1_ps(tensor_scale), DecodeCodes<E4M3>(bytes));
}

// NvScales::Encode for 8 blocks. What it rounds is a normal number.
inline __m256i EncodeScales(__m256 amax, float tensor_scale) {
  const __m256 sixth = _mm256_div_ps(amax, _mm256_set1_ps(E2M1::kMaximum));
  __m256 wanted = _mm256_div_ps(sixth, _mm256_set1_ps(tensor_scale));
  wanted = _mm256_max_ps(wanted, _mm256_set1_ps(E4M3::kMinNormal));
  wanted = _mm256_min_ps(wanted, _mm256_set1_ps(E4M3::kMaximum));
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(Bits(wanted), 20), _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_add_epi32(_mm256_add_epi32(Bits(wanted), _mm256_set1_epi32((1 << 19) - 1)), odd);
  return _mm256_sub_epi32(_mm256_srli_epi32(rounded, 20), _mm256_set1_epi32((127 - E4M3::kBias) << 3));
}

// Up to 8 blocks.
void QuantizeBatch(const float* x, int64_t size, float tensor_scale, uint8_t* codes, uint8_t* scales) {
  alignas(32) uint32_t amax[kBatch] = {};
  alignas(32) float values[kBatch];
  alignas(16) uint8_t bytes[kBatch * 2];
  const int64_t blocks = CeilDiv(size, kBlock);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t rest = size - b * kBlock;
    amax[b] = LargestMagnitude(x + b * kBlock, rest < kBlock ? rest : kBlock);
  }
  const __m256i largest = _mm256_load_si256(reinterpret_cast<const __m256i*>(amax));
  const __m256i encoded = EncodeScales(_mm256_castsi256_ps(largest), tensor_scale);
  _mm256_store_ps(values, DecodeScales(encoded, tensor_scale));
  _mm_store_si128(reinterpret_cast<__m128i*>(bytes), SixteenBytes(encoded, encoded));

  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t rest = size - b * kBlock, count = rest < kBlock ? rest : kBlock;
    uint8_t* block_codes = codes + b * kBlock / 2;
    if (amax[b] < kExponentMask) {
      scales[b] = bytes[b];
      EncodeElements<NvElements>({_mm256_broadcast_ss(values + b)}, x + b * kBlock, count, block_codes);
    } else {
      scales[b] = NvScales::kNaN;
      std::memset(block_codes, 0, static_cast<size_t>(CodeBytes(count, E2M1::kBits)));
    }
  }
}

void Quantize(const float* x, const RowShape& row, float amax, uint8_t* codes, uint8_t* scales) {
  constexpr int64_t kStep = kBatch * kBlock;
  const float tensor_scale = NvScales::TensorScale(amax);
  StoreFloat(tensor_scale, scales);
  scales += NvScales::kRowBytes;
  for (int64_t i = 0; i < row.k; i += kStep) {
    const int64_t size = row.k - i < kStep ? row.k - i : kStep;
    QuantizeBatch(x + i, size, tensor_scale, codes + i / 2, scales + i / kBlock);
  }
}

// `begin` may lie within the row: then at a multiple of 8 blocks.
void Dequantize(const uint8_t* codes, const uint8_t* scales, const RowShape&, int64_t begin, int64_t end,
                float* x) {
  const float tensor_scale = LoadFloat(scales);
  for (int64_t i = begin; i < end; i += kBatch * kBlock) {
    const int64_t size = end - i < kBatch * kBlock ? end - i : kBatch * kBlock,
                  blocks = CeilDiv(size, kBlock);
    uint64_t bytes = 0;
    std::memcpy(&bytes, scales + NvScales::kRowBytes + i / kBlock, static_cast<size_t>(blocks));
    alignas(32) float values[kBatch];
    const __m128i packed = _mm_cvtsi64_si128(static_cast<int64_t>(bytes));
    _mm256_store_ps(values, DecodeScales(_mm256_cvtepu8_epi32(packed), tensor_scale));
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t start = i + b * kBlock, rest = end - start;
      DecodeElements<NvElements>({_mm256_broadcast_ss(values + b)}, codes + start / 2,
                                 rest < kBlock ? rest : kBlock, x + (start - begin));
    }
  }
}

float Largest(const float* x, const RowShape& row) {
  uint32_t largest = 0;
  for (int64_t start = 0; start < row.k; start += row.block) {
    const int64_t size = row.k - start < row.block ? row.k - start : row.block;
    const uint32_t found = LargestMagnitude(x + start, size);
    if (found < kExponentMask && found > largest) largest = found;
  }
  return FloatOf(largest);
}

}  // namespace

const RowKernels nvfp4_rows__avx2 = {Quantize, Dequantize, Largest};

}  // namespace mxcompile
