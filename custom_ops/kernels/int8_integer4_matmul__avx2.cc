// int8 rows times rows of 4-bit integers with AVX2. What is computed: int8_rows_form.h.
//
// Data layout: B as it comes, 16 rows a panel, read 4 rows at a time; units of a row by one vpshufb, for the
// zero point is the row's. They go to scratch [4][k] int8 (L1), for each 64 elements the 32 even ones before
// the odd ones, with their sum. So stand the codes of A, which have no sign:
//   sum of (qa - za) * u = sum of qa * u - za * sum of u.
// vpmaddubsw adds two products of at most 255 * kMaxUnit, and two such pairs still fit int16. A zero point
// with larger units, or k beyond kMaxSize, which could leave 32 bits: such a row is multiplied one element at
// a time.
//
// Register plan: 2 rows of A by 4 columns: 8 sums of int32, 2 vectors of A, one of B, one of products, the
// ones that add pairs. Per row of A, column and 32 weights: 1 vpmaddubsw, half a vpmaddwd and 1 addition;
// decoding takes 4.5 operations and a store. Bound: the two multipliers for many rows, decoding for one.
// Prefetching kAhead bytes hides the start of each line.
#include <immintrin.h>

#include "kernels/int8_rows_form.h"
#include "kernels/matmul_kernels.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 16, kColumns = 4;
constexpr int64_t kHalf = 32, kBlock = 2 * kHalf;
constexpr int64_t kAhead = 8192;  // bytes: rows of B follow each other
constexpr int kMaxUnit = 32;
constexpr int64_t kMaxSize = int64_t{1} << 17;  // 255 * 32 * 2^17 < 2^31

struct CodeHeader {
  float scale;
  int32_t z;
};
static_assert(sizeof(CodeHeader) <= kHeader);

int64_t CodeRowSize(int64_t k) { return CeilDiv(k, kBlock) * kBlock; }
int64_t CodeRowBytes(int64_t k) { return kHeader + CodeRowSize(k); }

inline __m256i Load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
inline void Store(__m256i x, void* to) { _mm256_storeu_si256(static_cast<__m256i*>(to), x); }

// 32 bytes, the even ones first.
inline __m256i EvenFirst(__m256i bytes) {
  const __m256i order =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
  return _mm256_permute4x64_epi64(_mm256_shuffle_epi8(bytes, order), 0xD8);
}

void PrepareCodes(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t) {
  std::memset(prepared, 0, kHeader);
  if (k == 0) return;
  const CodeHeader header = {Int8::Load(scales).s, Int8::Load(scales).z};
  std::memcpy(prepared, &header, sizeof(header));
  uint8_t* to = prepared + kHeader;
  for (int64_t i = 0; i < CodeRowSize(k); i += kBlock) {
    uint8_t padded[kBlock] = {};
    const int64_t count = k - i < kBlock ? k - i : kBlock;
    if (count < kBlock) std::memcpy(padded, codes + i, static_cast<size_t>(count));
    const uint8_t* from = count == kBlock ? codes + i : padded;
    const __m256i first = EvenFirst(Load(from)), second = EvenFirst(Load(from + kHalf));
    Store(_mm256_permute2x128_si256(first, second, 0x20), to + i);
    Store(_mm256_permute2x128_si256(first, second, 0x31), to + i + kHalf);
  }
}

constexpr RowForm kCodeForm = {CodeRowBytes, nullptr, PrepareCodes};

inline int32_t LaneSum(__m256i lanes) {
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1)));
}

// Whether the code z stands for 0, and no unit is too large.
template <typename Number>
bool IsPlain(int z) {
  return z <= Number::kTop && -Number::Units(0, z) <= kMaxUnit && Number::Units(Number::kTop, z) <= kMaxUnit;
}

// A row of B to units, filled up with zeros. Gives their sum.
template <typename Number>
int32_t DecodeUnits(const uint8_t* codes, int z, int64_t k, int8_t* units) {
  alignas(16) int8_t values[16];
  for (int code = 0; code < 16; ++code) values[code] = static_cast<int8_t>(Number::Units(code, z));
  const __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(values)));
  const __m256i nibble = _mm256_set1_epi8(0x0F);
  __m256i sum = _mm256_setzero_si256();
  const auto decode = [&](const uint8_t* from, int8_t* to) {
    const __m256i both = Load(from);
    const __m256i even = _mm256_shuffle_epi8(table, _mm256_and_si256(both, nibble));
    const __m256i odd = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble));
    Store(even, to);
    Store(odd, to + kHalf);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), _mm256_add_epi8(even, odd));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  };
  int64_t i = 0;
  for (; i + kBlock <= k; i += kBlock) {
    _mm_prefetch(reinterpret_cast<const char*>(codes + i / 2 + kAhead), _MM_HINT_T0);
    decode(codes + i / 2, units + i);
  }
  if (i < k) {
    uint8_t padded[kHalf];  // with codes that stand for 0
    std::memset(padded, z * 0x11, sizeof(padded));
    std::memcpy(padded, codes + i / 2, static_cast<size_t>((k - i) / 2));
    if (k % 2 == 1) padded[(k - i) / 2] = static_cast<uint8_t>((codes[k / 2] & 0x0F) | z << 4);
    decode(padded, units + i);
  }
  return LaneSum(sum);
}

// Units of four rows of B, and what they are worth.
struct Columns {
  const int8_t* units;  // [4][size]
  int64_t size;
  int32_t sums[kColumns];
  float scales[kColumns];
};

template <int kRows>
[[gnu::flatten]] void MultiplyUnits(const GemmArgs& args, int64_t row, const Columns& b, int64_t count,
                                    float* c) {
  const uint8_t* a[kRows];
  __m256i sums[kRows][kColumns];
  Unroll<kRows>([&](auto r) {
    a[r] = args.a + (row + r) * args.a_stride;
    Unroll<kColumns>([&](auto j) { sums[r][j] = _mm256_setzero_si256(); });
  });
  for (int64_t i = 0; i < b.size; i += kBlock) {
    Unroll<kRows>([&](auto r) {
      const uint8_t* x = a[r] + kHeader + i;
      const __m256i first = Load(x), second = Load(x + kHalf);
      Unroll<kColumns>([&](auto j) {
        const int8_t* units = b.units + j * b.size + i;
        const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(first, Load(units)),
                                               _mm256_maddubs_epi16(second, Load(units + kHalf)));
        sums[r][j] = _mm256_add_epi32(sums[r][j], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        KeepInOrder(sums[r][j]);
      });
    });
  }
  Unroll<kRows>([&](auto r) {
    CodeHeader header;
    std::memcpy(&header, a[r], sizeof(header));
    int32_t totals[kColumns];
    Unroll<kColumns>([&](auto j) { totals[j] = LaneSum(sums[r][j]); });
    for (int64_t j = 0; j < count; ++j) {
      const int64_t sum = totals[j] - int64_t{header.z} * b.sums[j];
      c[r * kPanel + j] = header.scale * b.scales[j] * static_cast<float>(sum);
    }
  });
}

// One row of B with any zero point and any k.
template <typename Number>
void MultiplySlowly(const GemmArgs& args, int64_t column) {
  const uint8_t* codes = args.b.codes + column * args.b.code_bytes;
  const uint8_t* scales = args.b.scales + column * args.b.scale_bytes;
  const int z = Number::Load(scales).z;
  for (int64_t row = 0; row < args.m; ++row) {
    const uint8_t* a = args.a + row * args.a_stride;
    CodeHeader header;
    std::memcpy(&header, a, sizeof(header));
    int64_t sum = 0;
    for (int64_t k = 0; k < args.row.k; ++k) {
      const int code = a[kHeader + k / kBlock * kBlock + k % 2 * kHalf + k % kBlock / 2];
      sum += (code - header.z) * Number::Units(GetCode(codes, k, Number::kBits), z);
    }
    args.c[row * kPanel + column] = header.scale * UnitScale<Number>(scales) * static_cast<float>(sum);
  }
}

// Four rows of B from `column` on, or as many as there are.
template <typename Number>
void MultiplyColumns(const GemmArgs& args, int64_t column) {
  const int64_t count = args.b_rows - column < kColumns ? args.b_rows - column : kColumns;
  auto* units = reinterpret_cast<int8_t*>(args.scratch);
  Columns b = {units, CodeRowSize(args.row.k), {}, {}};
  bool plain[kColumns] = {};
  for (int64_t j = 0; j < kColumns; ++j) {
    const uint8_t* scales = args.b.scales + (column + j) * args.b.scale_bytes;
    plain[j] = j < count && args.row.k <= kMaxSize && IsPlain<Number>(Number::Load(scales).z);
    if (plain[j]) {
      b.scales[j] = UnitScale<Number>(scales);
      b.sums[j] = DecodeUnits<Number>(args.b.codes + (column + j) * args.b.code_bytes, Number::Load(scales).z,
                                      args.row.k, units + j * b.size);
    } else {
      std::memset(units + j * b.size, 0, static_cast<size_t>(b.size));
    }
  }
  int64_t row = 0;
  float* c = args.c + column;
  for (; row + 2 <= args.m; row += 2) MultiplyUnits<2>(args, row, b, count, c + row * kPanel);
  if (row < args.m) MultiplyUnits<1>(args, row, b, count, c + row * kPanel);
  for (int64_t j = 0; j < count; ++j) {
    if (!plain[j]) MultiplySlowly<Number>(args, column + j);
  }
}

template <typename Number>
void Gemm(const GemmArgs& args) {
  if (args.row.k == 0) {
    std::memset(args.c, 0, static_cast<size_t>(args.m * kPanel) * sizeof(float));
    return;
  }
  for (int64_t column = 0; column < args.b_rows; column += kColumns) MultiplyColumns<Number>(args, column);
}

int64_t ScratchFloats(const RowShape& row) { return kColumns * CodeRowSize(row.k) / 4; }

template <typename Number>
constexpr MatMulKernels Set() {
  return {kPanel, nullptr, nullptr, ScratchFloats, Gemm<Number>, &kCodeForm};
}

}  // namespace

const MatMulKernels int8_dint4_matmul__avx2 = Set<DInt4>();
const MatMulKernels int8_int4_matmul__avx2 = Set<Int4>();

}  // namespace mxcompile
