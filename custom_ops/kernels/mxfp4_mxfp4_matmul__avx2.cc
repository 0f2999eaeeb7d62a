// mxfp4 rows times mxfp4 rows with AVX2. What is computed: mxfp4_blocks.h.
//
// Data layout: B as in f32_packed_matmul__avx2.cc: in a block's record 32 bytes of scales, then for each 8
// elements 32 words, one a row, k ascending from the lowest nibble. The low nibbles of a word's bytes are the
// even elements, the high ones the odd ones; so stand the elements of A, 16 even ones before 16 odd ones.
//
// vpmaddubsw multiplies bytes without sign by bytes with sign: elements of B come as e + 12, and 12 times the
// sum of A's elements is taken away at the end. Sums of int16 hold a block: a lane adds 16 products of at
// most 24 * 12, 4608.
//
// Register plan: 4 rows of A by 8 rows of B: 4 sums, 4 results, a table, words, 2 decoded vectors, a
// broadcast.
#include "kernels/elements__avx2.h"
#include "kernels/matmul_kernels.h"
#include "kernels/mxfp4_blocks.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 32, kScales = kPanel, kGroupBytes = 4 * kPanel;
constexpr int64_t kRecord = kScales + kPairBlock / 8 * kGroupBytes;
constexpr int kRows = 4;

struct Block {
  int8_t elements[kPairBlock];
  int32_t offset;  // 12 times their sum
  float scale;     // a quarter of the block's
};

int64_t RowBytes(int64_t k) { return CeilDiv(k, kPairBlock) * static_cast<int64_t>(sizeof(Block)); }

void Prepare(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t) {
  auto* block = reinterpret_cast<Block*>(prepared);
  for (int64_t start = 0; start < k; start += kPairBlock, ++block, ++scales) {
    *block = {{}, 0, DecodeE8M0(*scales) * 0.25f};
    const int64_t count = k - start < kPairBlock ? k - start : kPairBlock;
    for (int64_t i = 0; i < count; ++i) {
      const int8_t element = kDoubledSigned[GetCode(codes, start + i, E2M1::kBits)];
      block->elements[i % 2 * 16 + i / 2] = element;
      block->offset += 12 * element;
    }
  }
}

constexpr RowForm kForm = {RowBytes, nullptr, Prepare};

inline __m256i FourElements(const int8_t* x) {
  int32_t four;
  std::memcpy(&four, x, sizeof(four));
  return _mm256_set1_epi32(four);
}

inline __m256i SumTable() {
  alignas(16) int8_t table[16];
  for (int i = 0; i < 16; ++i) table[i] = static_cast<int8_t>(kDoubledSigned[i] + 12);
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
}

// Rows of A, `a_stride` bytes apart, by 8 rows of B: those whose scales and words begin here.
void MultiplyColumns(const uint8_t* a, int64_t a_stride, int64_t rows, const uint8_t* scales,
                     const uint8_t* words, int64_t k, float* c) {
  const __m256i table = SumTable();
  __m256 y[kRows];
  for (__m256& each : y) each = _mm256_setzero_ps();
  for (int64_t start = 0; start < k; start += kPairBlock, scales += kRecord, words += kRecord) {
    const int64_t groups = CeilDiv(k - start < kPairBlock ? k - start : kPairBlock, 8);
    const Block* blocks[kRows];
    for (int r = 0; r < kRows; ++r) {
      const uint8_t* row = a + (r < rows ? r : 0) * a_stride;
      blocks[r] = reinterpret_cast<const Block*>(row) + start / kPairBlock;
    }
    __m256i sums[kRows];
    for (__m256i& each : sums) each = _mm256_setzero_si256();
    for (int64_t g = 0; g < groups; ++g) {
      const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words + g * kGroupBytes));
      const __m256i low = _mm256_set1_epi8(0x0F);
      const __m256i even = _mm256_shuffle_epi8(table, _mm256_and_si256(codes, low));
      const __m256i odd = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(codes, 4), low));
      for (int r = 0; r < kRows; ++r) {
        const int8_t* x = blocks[r]->elements + 4 * g;
        sums[r] = _mm256_add_epi16(sums[r], _mm256_maddubs_epi16(even, FourElements(x)));
        sums[r] = _mm256_add_epi16(sums[r], _mm256_maddubs_epi16(odd, FourElements(x + 16)));
      }
    }
    const __m256 b = DecodeE8M0x8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales)));
    for (int r = 0; r < kRows; ++r) {
      const __m256i pairs = _mm256_madd_epi16(sums[r], _mm256_set1_epi16(1));
      const __m256i sum = _mm256_sub_epi32(pairs, _mm256_set1_epi32(blocks[r]->offset));
      y[r] =
          _mm256_fmadd_ps(_mm256_set1_ps(blocks[r]->scale), _mm256_mul_ps(b, _mm256_cvtepi32_ps(sum)), y[r]);
    }
  }
  for (int64_t r = 0; r < rows; ++r) _mm256_storeu_ps(c + r * kPanel, y[r]);
}

void Gemm(const GemmArgs& args) {
  for (int64_t row = 0; row < args.m; row += kRows) {
    const int64_t rows = args.m - row < kRows ? args.m - row : kRows;
    for (int64_t j = 0; j < kPanel; j += 8) {
      MultiplyColumns(args.a + row * args.a_stride, args.a_stride, rows, args.packed + j,
                      args.packed + kScales + 4 * j, args.row.k, args.c + row * kPanel + j);
    }
  }
}

int64_t ScratchFloats(const RowShape&) { return 0; }

constexpr MatMulKernels kAny = {kPanel, PackedMxfp4Bytes__avx2, PackMxfp4__avx2, ScratchFloats, Gemm, &kForm};

}  // namespace

const PairKernels mxfp4_mxfp4_matmul__avx2 = {&kAny, &kAny};

}  // namespace mxcompile
