// Few amxfp4 rows times amxfp4 rows with AVX2. What is computed: amxfp4_blocks.h.
//
// Data layout: B as in f32_packed_matmul__avx2.cc: in a block's record two times 32 bytes of scales, then for
// each 8 elements 32 words, one a row, k ascending from the lowest nibble. The low nibbles of a word's bytes
// are the even elements, the high ones the odd ones; so stand the elements of A, 16 even ones before 16 odd
// ones.
//
// Register plan, 8 rows of B at a time: 4 sums of int16, 2 tables, 1 vector of words, 2 decoded, 2
// broadcasts. Per 8 x 32 weights: 16 vpshufb, 32 vpmaddubsw and as many additions. Sums of int16 hold a
// block: a lane adds 16 products of at most 144 (two a vpmaddubsw, 8 times), 2304.
#include "kernels/amxfp4_blocks.h"
#include "kernels/elements__avx2.h"
#include "kernels/matmul_kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 32, kScales = 2 * kPanel, kGroupBytes = 4 * kPanel;

inline __m256i Twice(int64_t first, int64_t second) {
  return _mm256_setr_epi64x(first, second, first, second);
}
inline __m256i AboveTable() { return Twice(0x0C08060403020100, 0); }
inline __m256i BelowTable() { return Twice(0, 0x0C08060403020100); }

void Prepare(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t) {
  const __m128i nibble = _mm_set1_epi8(0x0F);
  for (int64_t start = 0; start < k; start += kPairBlock, scales += 2, prepared += kAmxBlockBytes) {
    const int64_t count = k - start < kPairBlock ? k - start : kPairBlock;
    __m128i bytes = _mm_setzero_si128();
    std::memcpy(&bytes, codes + start / 2, static_cast<size_t>(CodeBytes(count, 4)));
    const __m256i elements =
        _mm256_set_m128i(_mm_and_si128(_mm_srli_epi16(bytes, 4), nibble), _mm_and_si128(bytes, nibble));
    auto* block = reinterpret_cast<AmxBlock*>(prepared);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(block->above),
                        _mm256_shuffle_epi8(AboveTable(), elements));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(block->below),
                        _mm256_shuffle_epi8(BelowTable(), elements));
    block->above_scale = AmxScale::Decode(scales[0]) * 0.25f;
    block->below_scale = AmxScale::Decode(scales[1]) * 0.25f;
  }
}

constexpr RowForm kForm = {AmxBlocksBytes, nullptr, Prepare};

inline __m256i FourElements(const uint8_t* x) {
  int32_t four;
  std::memcpy(&four, x, sizeof(four));
  return _mm256_set1_epi32(four);
}

inline __m256 ToFloat(__m256i pairs) {
  return _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

inline __m256 Scales(const uint8_t* bytes) {
  return AmxDecode::Decode(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
}

// y of 8 rows of B after one more block; `words` and `scales` are those of the 8.
inline __m256 AddBlock(const AmxBlock& a, const uint8_t* words, int64_t groups, const uint8_t* scales,
                       __m256 y) {
  __m256i sums[2][2];  // by the signs of a and b
  for (auto& side : sums) side[0] = side[1] = _mm256_setzero_si256();
  for (int64_t g = 0; g < groups; ++g) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words + g * kGroupBytes));
    for (int half = 0; half < 2; ++half) {
      const __m256i nibbles =
          _mm256_and_si256(half == 0 ? codes : _mm256_srli_epi16(codes, 4), _mm256_set1_epi8(0x0F));
      const __m256i b[2] = {_mm256_shuffle_epi8(AboveTable(), nibbles),
                            _mm256_shuffle_epi8(BelowTable(), nibbles)};
      const __m256i x[2] = {FourElements(a.above + 16 * half + 4 * g),
                            FourElements(a.below + 16 * half + 4 * g)};
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 2; ++j)
          sums[i][j] = _mm256_add_epi16(sums[i][j], _mm256_maddubs_epi16(x[i], b[j]));
      }
    }
  }
  const __m256 above = Scales(scales), below = Scales(scales + kPanel);
  const auto combine = [&](const __m256i(&s)[2]) {
    return _mm256_fnmadd_ps(below, ToFloat(s[1]), _mm256_mul_ps(above, ToFloat(s[0])));
  };
  y = _mm256_fmadd_ps(_mm256_set1_ps(a.above_scale), combine(sums[0]), y);
  return _mm256_fnmadd_ps(_mm256_set1_ps(a.below_scale), combine(sums[1]), y);
}

void Gemm(const GemmArgs& args) {
  constexpr int64_t kRecord = kScales + kPairBlock / 8 * kGroupBytes;
  for (int64_t row = 0; row < args.m; ++row) {
    const auto* a = reinterpret_cast<const AmxBlock*>(args.a + row * args.a_stride);
    for (int64_t j = 0; j < kPanel; j += 8) {
      __m256 y = _mm256_setzero_ps();
      const uint8_t* record = args.packed;
      for (int64_t start = 0; start < args.row.k; start += kPairBlock, record += kRecord) {
        const int64_t count = args.row.k - start < kPairBlock ? args.row.k - start : kPairBlock;
        y = AddBlock(a[start / kPairBlock], record + kScales + 4 * j, CeilDiv(count, 8), record + j, y);
      }
      _mm256_storeu_ps(args.c + row * kPanel + j, y);
    }
  }
}

int64_t ScratchFloats(const RowShape&) { return 0; }

constexpr MatMulKernels kFew = {
    kPanel, PackedAmxfp4Bytes__avx2, PackAmxfp4__avx2, ScratchFloats, Gemm, &kForm, PairKernels::kFewRows, 4};

}  // namespace

const PairKernels amxfp4_amxfp4_matmul__avx2 = {&kFew, &f32_amxfp4_matmul__avx2};

}  // namespace mxcompile
