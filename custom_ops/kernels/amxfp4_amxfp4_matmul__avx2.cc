// Few amxfp4 rows times amxfp4 rows with AVX2. What is computed: amxfp4_blocks.h.
//
// Data layout: B as in f32_packed_matmul__avx2.cc: in a block's record two times 32 bytes of scales, then for
// each 8 elements 32 words, one a row, k ascending from the lowest nibble. The low nibbles of a word's bytes
// are the even elements, the high ones the odd ones; so stand the elements of A, 16 even ones before 16 odd
// ones.
//
// Register plan, 8 rows of B at a time, 4 times a record, so that B is read once and in order: 4 sums of
// int16, 2 tables, 1 vector of words, 2 decoded, 2 broadcasts. Sums of int16 hold a block: a lane adds 16
// products of at most 144 (two a vpmaddubsw, 8 times), 2304.
//
// Per 8 x 32 weights: 32 vpmaddubsw, 28 additions, 16 vpshufb, 12 operations to get at nibbles and 20 to
// finish, some 110 for 144 bytes. Bound: four vector operations a cycle.
#include "kernels/amxfp4_blocks.h"
#include "kernels/elements__avx2.h"
#include "kernels/matmul_kernels.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 32, kScales = 2 * kPanel, kGroupBytes = 4 * kPanel;
constexpr int64_t kVectors = kPanel / 8, kGroups = kPairBlock / 8;
constexpr int64_t kRecord = kScales + kGroups * kGroupBytes;
constexpr int64_t kAhead = 8192;

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

// The sums of int16 of 8 rows of B, by the signs of a, then b.
struct Sums {
  __m256i above_above, above_below, below_above, below_below;
};

inline __m256i Add(__m256i x, __m256i y) {
  __m256i sum = _mm256_add_epi16(x, y);
  KeepInOrder(sum);
  return sum;
}

// A block with 8 rows of B whose words begin here.
inline Sums MultiplyBlock(const AmxBlock& a, const uint8_t* words) {
  Sums s;
  Unroll<kGroups>([&](auto g) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words + g * kGroupBytes));
    Unroll<2>([&](auto half) {
      const __m256i nibbles =
          _mm256_and_si256(half == 0 ? codes : _mm256_srli_epi16(codes, 4), _mm256_set1_epi8(0x0F));
      const __m256i above = _mm256_shuffle_epi8(AboveTable(), nibbles);
      const __m256i below = _mm256_shuffle_epi8(BelowTable(), nibbles);
      const __m256i x_above = FourElements(a.above + 16 * half + 4 * g);
      const __m256i x_below = FourElements(a.below + 16 * half + 4 * g);
      const Sums more = {_mm256_maddubs_epi16(x_above, above), _mm256_maddubs_epi16(x_above, below),
                         _mm256_maddubs_epi16(x_below, above), _mm256_maddubs_epi16(x_below, below)};
      if constexpr (g + half == 0) {
        s = more;
      } else {
        s = {Add(s.above_above, more.above_above), Add(s.above_below, more.above_below),
             Add(s.below_above, more.below_above), Add(s.below_below, more.below_below)};
      }
    });
  });
  return s;
}

// y of 8 rows of B after one more block; `scales` are those of the 8.
inline __m256 Finish(const Sums& s, const AmxBlock& a, const uint8_t* scales, __m256 y) {
  const __m256 b_above = Scales(scales), b_below = Scales(scales + kPanel);
  const __m256 above =
      _mm256_fnmadd_ps(b_below, ToFloat(s.above_below), _mm256_mul_ps(b_above, ToFloat(s.above_above)));
  const __m256 below =
      _mm256_fnmadd_ps(b_below, ToFloat(s.below_below), _mm256_mul_ps(b_above, ToFloat(s.below_above)));
  y = _mm256_fmadd_ps(_mm256_set1_ps(a.above_scale), above, y);
  return _mm256_fnmadd_ps(_mm256_set1_ps(a.below_scale), below, y);
}

[[gnu::flatten]] void MultiplyRow(const GemmArgs& args, int64_t row) {
  const auto* a = reinterpret_cast<const AmxBlock*>(args.a + row * args.a_stride);
  const int64_t blocks = CeilDiv(args.row.k, kPairBlock);
  const uint8_t* record = args.packed;
  __m256 y[kVectors];
  for (__m256& each : y) each = _mm256_setzero_ps();
  for (int64_t b = 0; b < blocks; ++b, ++a, record += kRecord) {
    for (int64_t line = 0; line < kRecord; line += 64)
      _mm_prefetch(reinterpret_cast<const char*>(record + kAhead + line), _MM_HINT_T0);
    Unroll<kVectors>([&](auto j) {
      y[j] = Finish(MultiplyBlock(*a, record + kScales + 32 * j), *a, record + 8 * j, y[j]);
    });
  }
  for (int64_t j = 0; j < kVectors; ++j) _mm256_storeu_ps(args.c + row * kPanel + 8 * j, y[j]);
}

void Gemm(const GemmArgs& args) {
  for (int64_t row = 0; row < args.m; ++row) MultiplyRow(args, row);
}

int64_t ScratchFloats(const RowShape&) { return 0; }

}  // namespace

const MatMulKernels amxfp4_few_matmul__avx2 = {
    kPanel, PackedAmxfp4Bytes__avx2, PackAmxfp4__avx2, ScratchFloats, Gemm, &kForm, PairKernels::kFewRows, 4};

const PairKernels amxfp4_amxfp4_matmul__avx2 = {&amxfp4_few_matmul__avx2, &f32_amxfp4_matmul__avx2};

}  // namespace mxcompile
