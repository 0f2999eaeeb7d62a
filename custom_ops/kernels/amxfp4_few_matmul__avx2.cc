// Few amxfp4 rows times amxfp4 rows with AVX2. What is computed: amxfp4_blocks.h.
//
// Of four products of an element of A, by the signs of both factors, two are always zero, and which two is
// known from A alone. So the elements of a block of A come as pairs of one sign, those above zero first,
// zeros left out, each with its magnitude and the place of its column of B. The order of additions is free:
// the sums are exact integers.
//
// Data layout: B as in amxfp4_columns__avx2.h; A as a BlockHead and its pairs for each block, one after the
// other.
//
// Register plan, 64 rows of B and one sign of A: 8 sums of int16 (16 rows, b above or below zero), 2 tables,
// the mask of a nibble, the pair's magnitudes, 2 vectors of codes, 2 for what is decoded. The columns of a
// pair are interleaved, so that vpmaddubsw multiplies and adds both elements. Sums hold a block: at most 16
// times 288.
//
// Per pair, 64 x 2 weights: 2 vpunpckbw, 6 operations to get at nibbles, 8 vpshufb, 8 vpmaddubsw and 8
// additions, 32; 8 for 32 weights, and 2.25 to finish. Bound: vector operations, three or four a cycle, and
// two loops for each block that end after a number of pairs that no CPU foresees.
#include "kernels/amxfp4_blocks.h"
#include "kernels/amxfp4_columns__avx2.h"
#include "kernels/matmul_kernels.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kVectors = kColumnRows / 8;
constexpr int kGroups = kColumnRows / 16;

// Two elements of A of one sign; a last one may stand alone, with a magnitude of 0 beside it.
struct Pair {
  uint16_t columns[2];  // where they begin, in bytes
  uint8_t doubled[4];   // magnitudes: of the first, the second, and both again
};

// What a block of A begins with.
struct BlockHead {
  float above_scale;  // a quarter of the block's scale
  float below_scale;
  uint16_t above_pairs;
  uint16_t below_pairs;
};

constexpr int64_t kMostPairs = kPairBlock / 2 + 1;
constexpr auto kHeadBytes = static_cast<int64_t>(sizeof(BlockHead));
constexpr auto kPairBytes = static_cast<int64_t>(sizeof(Pair));

int64_t RowBytes(int64_t k) { return CeilDiv(k, kPairBlock) * (kHeadBytes + kMostPairs * kPairBytes); }

inline __m256i Twice(int64_t first, int64_t second) {
  return _mm256_setr_epi64x(first, second, first, second);
}
inline __m256i AboveTable() { return Twice(0x0C08060403020100, 0); }
inline __m256i BelowTable() { return Twice(0, 0x0C08060403020100); }

// The 32 elements from `codes` on as a byte each, those beyond `count` zero.
inline __m256i BlockCodes(const uint8_t* codes, int64_t count) {
  __m128i bytes = _mm_setzero_si128();
  std::memcpy(&bytes, codes, static_cast<size_t>(CodeBytes(count, 4)));
  const __m128i nibble = _mm_set1_epi8(0x0F);
  const __m128i even = _mm_and_si128(bytes, nibble), odd = _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble);
  return _mm256_set_m128i(_mm_unpackhi_epi8(even, odd), _mm_unpacklo_epi8(even, odd));
}

// The set of bytes above a limit, the first byte as bit 0.
inline uint32_t Over(__m256i bytes, int8_t limit) {
  return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpgt_epi8(bytes, _mm256_set1_epi8(limit))));
}

// Writes the pairs of a set of elements; returns where they end.
inline uint8_t* WritePairs(uint32_t set, const uint8_t* doubled, uint8_t* to) {
  while (set != 0) {
    const int first = __builtin_ctz(set);
    set &= set - 1;
    const bool both = set != 0;
    const int second = both ? __builtin_ctz(set) : first;
    set &= set - 1;
    const uint8_t x = doubled[first], y = both ? doubled[second] : uint8_t{0};
    const Pair pair = {
        {static_cast<uint16_t>(first * kColumnBytes), static_cast<uint16_t>(second * kColumnBytes)},
        {x, y, x, y}};
    std::memcpy(to, &pair, sizeof(pair));
    to += kPairBytes;
  }
  return to;
}

void Prepare(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t) {
  for (int64_t start = 0; start < k; start += kPairBlock, scales += 2) {
    const __m256i elements = BlockCodes(codes + start / 2, k - start < kPairBlock ? k - start : kPairBlock);
    alignas(32) uint8_t doubled[kPairBlock];
    const __m256i magnitudes = _mm256_or_si256(_mm256_shuffle_epi8(AboveTable(), elements),
                                               _mm256_shuffle_epi8(BelowTable(), elements));
    _mm256_store_si256(reinterpret_cast<__m256i*>(doubled), magnitudes);
    uint8_t* const pairs = prepared + kHeadBytes;
    uint8_t* const below = WritePairs(Over(elements, 0) & ~Over(elements, 7), doubled, pairs);
    uint8_t* const end = WritePairs(Over(elements, 8), doubled, below);
    const BlockHead head = {AmxScale::Decode(scales[0]) * 0.25f, AmxScale::Decode(scales[1]) * 0.25f,
                            static_cast<uint16_t>((below - pairs) / kPairBytes),
                            static_cast<uint16_t>((end - below) / kPairBytes)};
    std::memcpy(prepared, &head, sizeof(head));
    prepared = end;
  }
}

constexpr RowForm kForm = {RowBytes, nullptr, Prepare};

// Sums of int16 with elements of A of one sign, by the sign of b; 16 rows each.
struct Sums {
  __m256i above[kGroups], below[kGroups];
};

inline void AddTo(__m256i* sum, __m256i more) {
  *sum = _mm256_add_epi16(*sum, more);
  KeepInOrder(*sum);
}

inline __m256i LoadColumn(const uint8_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}

// `count` pairs with 64 rows of B whose columns begin here. A function of its own, and no arrays: so all sums
// and tables stay in registers.
[[gnu::noinline, gnu::flatten]] Sums Multiply(const uint8_t* pairs, int64_t count, const uint8_t* columns) {
  __m256i nibble = _mm256_set1_epi8(0x0F), above = AboveTable(), below = BelowTable();
  KeepInOrder(nibble);
  KeepInOrder(above);
  KeepInOrder(below);
  __m256i above0 = _mm256_setzero_si256(), above1 = above0, above2 = above0, above3 = above0;
  __m256i below0 = above0, below1 = above0, below2 = above0, below3 = above0;
  for (const uint8_t* const end = pairs + count * kPairBytes; pairs != end; pairs += kPairBytes) {
    Pair pair;
    std::memcpy(&pair, pairs, sizeof(pair));
    int32_t doubled;
    std::memcpy(&doubled, pairs + offsetof(Pair, doubled), sizeof(doubled));
    const __m256i x = _mm256_set1_epi32(doubled);
    const __m256i first = LoadColumn(columns + pair.columns[0]),
                  second = LoadColumn(columns + pair.columns[1]);
    const auto add = [&](__m256i codes, __m256i* sum_above, __m256i* sum_below) {
      const __m256i b = _mm256_and_si256(codes, nibble);
      AddTo(sum_above, _mm256_maddubs_epi16(_mm256_shuffle_epi8(above, b), x));
      AddTo(sum_below, _mm256_maddubs_epi16(_mm256_shuffle_epi8(below, b), x));
    };
    const __m256i left = _mm256_unpacklo_epi8(first, second), right = _mm256_unpackhi_epi8(first, second);
    add(left, &above0, &below0);
    add(right, &above1, &below1);
    add(_mm256_srli_epi16(left, 4), &above2, &below2);
    add(_mm256_srli_epi16(right, 4), &above3, &below3);
  }
  return {{above0, above1, above2, above3}, {below0, below1, below2, below3}};
}

// 8 of 16 sums, those of the lower or upper halves of the lanes, as float32.
template <int kHalf>
inline __m256 ToFloat(__m256i sums) {
  const __m256i zero = _mm256_setzero_si256();
  return _mm256_cvtepi32_ps(kHalf == 0 ? _mm256_unpacklo_epi16(sums, zero)
                                       : _mm256_unpackhi_epi16(sums, zero));
}

// Adds a block to y of 64 rows of B; `scales` are theirs.
inline void Finish(const Sums& with_above, const Sums& with_below, const BlockHead& a, const uint8_t* scales,
                   float* y) {
  const __m256 above_scale = _mm256_set1_ps(a.above_scale), below_scale = _mm256_set1_ps(a.below_scale);
  Unroll<kVectors>([&](auto j) {
    const ColumnScales b(scales + 16 * j);
    const auto combine = [&](const Sums& s) {
      return _mm256_fnmadd_ps(b.below, ToFloat<j % 2>(s.below[j / 2]),
                              _mm256_mul_ps(b.above, ToFloat<j % 2>(s.above[j / 2])));
    };
    const __m256 sum = _mm256_fmadd_ps(above_scale, combine(with_above), _mm256_loadu_ps(y + 8 * j));
    _mm256_storeu_ps(y + 8 * j, _mm256_fnmadd_ps(below_scale, combine(with_below), sum));
  });
}

[[gnu::flatten]] void MultiplyRow(const GemmArgs& args, int64_t row) {
  const uint8_t* a = args.a + row * args.a_stride;
  const uint8_t* record = args.packed;
  float* const y = args.c + row * kColumnRows;
  std::memset(y, 0, kColumnRows * sizeof(float));
  for (int64_t start = 0; start < args.row.k; start += kPairBlock, record += kColumnRecord) {
    PrefetchAhead(record, kColumnRecord);
    BlockHead head;
    std::memcpy(&head, a, sizeof(head));
    const uint8_t *const above = a + kHeadBytes, *const below = above + head.above_pairs * kPairBytes;
    const uint8_t* const columns = record + kColumnScales;
    Finish(Multiply(above, head.above_pairs, columns), Multiply(below, head.below_pairs, columns), head,
           record, y);
    a = below + head.below_pairs * kPairBytes;
  }
}

void Gemm(const GemmArgs& args) {
  for (int64_t row = 0; row < args.m; ++row) MultiplyRow(args, row);
}

int64_t ScratchFloats(const RowShape&) { return 0; }

}  // namespace

const MatMulKernels amxfp4_few_matmul__avx2 = {kColumnRows,
                                               PackedAmxfp4Bytes__avx2,
                                               PackAmxfp4__avx2,
                                               ScratchFloats,
                                               Gemm,
                                               &kForm,
                                               PairKernels::kFewRows,
                                               4};

const PairKernels amxfp4_amxfp4_matmul__avx2 = {&amxfp4_few_matmul__avx2, &f32_amxfp4_columns_matmul__avx2,
                                                nullptr, &f32_amxfp4_matmul__avx2};

}  // namespace mxcompile
