// int8 rows times integer rows of 3 and 8 bits with AVX2. What is computed: see int8_rows_form.h.
//
// Data layout: B as it comes, 16 rows a panel; they are decoded once to int16 units [16][k] in scratch (L2),
// and four of them at a time (L1) meet all rows of A. vpmaddwd takes int16 pairs to int32 exactly; vpmaddubsw
// would saturate.
//
// Register plan: 2 rows x 4 columns, 8 accumulators of 8 int32, 4 vectors of B, 2 of A: 6 loads for 8
// products, which two load ports and two multipliers feed evenly. Pieces of 8192 k: |sum| <= 8192 * 255 * 510
// < 2^31 even after the 8 lanes are added; pieces are added as int64.
#include "kernels/codes__avx2.h"
#include "kernels/int8_rows_form.h"
#include "kernels/matmul_kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 16;
constexpr int64_t kColumns = 4;
constexpr int64_t kPiece = 8192;

int64_t ScratchFloats(const RowShape& row) { return kPanel * PaddedSize(row.k) / 2 + kPanel; }

inline __m256i Load(const int16_t* x) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)); }
inline void Store(__m256i x, int16_t* y) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), x); }

// Units of 8 codes, one a 32-bit lane.
template <typename Number>
class UnitsOfEight {
 public:
  explicit UnitsOfEight(int z) : z_(_mm256_set1_epi32(z)) {
    alignas(32) int32_t values[8];
    for (int code = 0; code < 8; ++code) values[code] = Number::Units(code, z);
    table_ = _mm256_load_si256(reinterpret_cast<const __m256i*>(values));
  }

  inline __m256i operator()(__m256i more) const {
    if constexpr (Number::kBits == 3) return _mm256_permutevar8x32_epi32(table_, more);  // looks at 3 bits
    const __m256i codes = CodesAlone<Number::kBits>(more);
    const __m256i steps = _mm256_sub_epi32(codes, z_);
    if constexpr (!Number::kHalfSteps) return steps;
    const __m256i plus = _mm256_cmpeq_epi32(codes, _mm256_set1_epi32(Number::kPlusHalf));
    const __m256i minus = _mm256_cmpeq_epi32(codes, _mm256_set1_epi32(Number::kMinusHalf));
    const __m256i units = _mm256_blendv_epi8(_mm256_slli_epi32(steps, 1), _mm256_set1_epi32(1), plus);
    return _mm256_blendv_epi8(units, _mm256_set1_epi32(-1), minus);
  }

 private:
  __m256i z_, table_;  // the table serves the codes below 8
};

// 16 elements at a time of 8 bits. Gives how many elements it did.
inline int64_t DecodeBytes(const uint8_t* codes, int z, int64_t k, int16_t* units) {
  const __m256i zero_point = _mm256_set1_epi16(static_cast<int16_t>(z));
  int64_t i = 0;
  for (; i + 16 <= k; i += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i));
    Store(_mm256_sub_epi16(_mm256_cvtepu8_epi16(bytes), zero_point), units + i);
  }
  return i;
}

// A row of B to units, filled up with zeros.
template <typename Number>
void DecodeRow(const uint8_t* codes, int z, int64_t k, int16_t* units) {
  int64_t i = 0;
  if constexpr (Number::kBits == 8) i = DecodeBytes(codes, z, k, units);
  const UnitsOfEight<Number> units_of_eight(z);
  for (; i + 8 <= k; i += 8) {
    const __m256i eight = EightCodes<Number::kBits>(codes + i / 8 * Number::kBits);
    const __m256i lanes = units_of_eight(eight);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(units + i), words);
  }
  for (; i < k; ++i) units[i] = static_cast<int16_t>(Number::Units(GetCode(codes, i, Number::kBits), z));
  std::memset(units + k, 0, static_cast<size_t>(PaddedSize(k) - k) * sizeof(int16_t));
}

// The lanes of four vectors added up.
inline __m128i LaneSums(const __m256i (&sums)[kColumns]) {
  const __m256i pairs =
      _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
  return _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
}

// Sums of kRows rows of A with four rows of units, `stride` apart.
template <int kRows>
void MultiplyTile(const uint8_t* a, int64_t a_stride, const int16_t* units, int64_t stride, int64_t k,
                  int64_t (*totals)[kColumns]) {
  for (int64_t start = 0; start < k; start += kPiece) {
    const int64_t end = k - start < kPiece ? k : start + kPiece;
    __m256i sums[kRows][kColumns];
    for (auto& row : sums) {
      for (__m256i& sum : row) sum = _mm256_setzero_si256();
    }
    for (int64_t i = start; i < end; i += kStep) {
      __m256i b[kColumns];
      for (int j = 0; j < kColumns; ++j) b[j] = Load(units + j * stride + i);
      for (int r = 0; r < kRows; ++r) {
        const __m256i x = Load(UnitsOfRow(a + r * a_stride) + i);
        for (int j = 0; j < kColumns; ++j)
          sums[r][j] = _mm256_add_epi32(sums[r][j], _mm256_madd_epi16(x, b[j]));
      }
    }
    for (int r = 0; r < kRows; ++r) {
      alignas(16) int32_t piece[kColumns];
      _mm_store_si128(reinterpret_cast<__m128i*>(piece), LaneSums(sums[r]));
      for (int j = 0; j < kColumns; ++j) totals[r][j] += piece[j];
    }
  }
}

template <int kRows>
void MultiplyRows(const GemmArgs& args, int64_t row, int64_t column, const int16_t* units,
                  const float* unit_scales) {
  const uint8_t* a = args.a + row * args.a_stride;
  const int64_t stride = PaddedSize(args.row.k);
  int64_t totals[kRows][kColumns] = {};
  MultiplyTile<kRows>(a, args.a_stride, units + column * stride, stride, stride, totals);
  for (int r = 0; r < kRows; ++r) {
    const float s = ScaleOfRow(a + r * args.a_stride);
    for (int j = 0; j < kColumns; ++j) {
      args.c[(row + r) * kPanel + column + j] =
          s * unit_scales[column + j] * static_cast<float>(totals[r][j]);
    }
  }
}

template <typename Number>
void Gemm(const GemmArgs& args) {
  const int64_t stride = PaddedSize(args.row.k);
  float* unit_scales = args.scratch;
  auto* units = reinterpret_cast<int16_t*>(args.scratch + kPanel);
  for (int64_t j = 0; j < kPanel; ++j) {
    const uint8_t* scales = args.b.scales + j * args.b.scale_bytes;
    const bool exists = j < args.b_rows && args.row.k > 0;
    unit_scales[j] = exists ? UnitScale<Number>(scales) : 0.0f;
    if (exists) {
      DecodeRow<Number>(args.b.codes + j * args.b.code_bytes, Number::Load(scales).z, args.row.k,
                        units + j * stride);
    } else {
      std::memset(units + j * stride, 0, static_cast<size_t>(stride) * sizeof(int16_t));
    }
  }
  for (int64_t column = 0; column < args.b_rows; column += kColumns) {
    int64_t row = 0;
    for (; row + 2 <= args.m; row += 2) MultiplyRows<2>(args, row, column, units, unit_scales);
    if (row < args.m) MultiplyRows<1>(args, row, column, units, unit_scales);
  }
}

template <typename Number>
constexpr MatMulKernels Set() {
  return {kPanel, nullptr, nullptr, ScratchFloats, Gemm<Number>, &kInt8Form};
}

}  // namespace

const MatMulKernels int8_dint3_matmul__avx2 = Set<DInt3>();
const MatMulKernels int8_int8_matmul__avx2 = Set<Int8>();

}  // namespace mxcompile
