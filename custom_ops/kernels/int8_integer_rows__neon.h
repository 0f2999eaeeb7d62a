// int8 rows times rows of 4-bit integers with NEON; what is computed: int8_rows_form.h. `Sums` adds up
// products of bytes along k. Unnamed namespace: see elements.h.
//
// Data layout: B as it comes, 8 rows a panel, read 4 rows at a time; units of a row by one tbl, for the zero
// point is the row's. They go to scratch [4][k] int8, for each 32 elements the 16 even ones before the odd
// ones, with their sum. So stand the elements of A, as qa - 128: int8 has no sign to lose then, and
//   sum of (qa - za) * u = sum of (qa - 128) * u + (128 - za) * sum of u.
// A zero point beyond kMaxZero, or k beyond kMaxSize, could leave 8 or 32 bits: such a row is multiplied one
// element at a time.
#pragma once

#include <arm_neon.h>

#include "kernels/int8_rows_form.h"
#include "kernels/matmul_kernels.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 8, kColumns = 4;
constexpr int64_t kBlock = 32;
constexpr int kMaxZero = 63;           // units of at most 126
constexpr int64_t kMaxSize = 1 << 16;  // 128 * 126 * 2^16 < 2^31

struct ByteHeader {
  float scale;
  int32_t z;
};
static_assert(sizeof(ByteHeader) <= kHeader);

int64_t ByteRowSize(int64_t k) { return CeilDiv(k, kBlock) * kBlock; }
int64_t ByteRowBytes(int64_t k) { return kHeader + ByteRowSize(k); }

void PrepareByteRow(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t) {
  std::memset(prepared, 0, kHeader);
  if (k == 0) return;
  const ByteHeader header = {Int8::Load(scales).s, Int8::Load(scales).z};
  std::memcpy(prepared, &header, sizeof(header));
  uint8_t* to = prepared + kHeader;
  for (int64_t i = 0; i < k; i += kBlock, to += kBlock) {
    uint8_t padded[kBlock] = {};
    const bool whole = k - i >= kBlock;
    if (!whole) std::memcpy(padded, codes + i, static_cast<size_t>(k - i));
    const uint8x16x2_t parts = vld2q_u8(whole ? codes + i : padded);
    vst1q_u8(to, veorq_u8(parts.val[0], vdupq_n_u8(0x80)));
    vst1q_u8(to + 16, veorq_u8(parts.val[1], vdupq_n_u8(0x80)));
  }
}

constexpr RowForm kByteForm = {ByteRowBytes, nullptr, PrepareByteRow};

// A row of B to units, filled up with zeros. Gives their sum.
template <typename Number>
int32_t DecodeUnits(const uint8_t* codes, int z, int64_t k, int8_t* units) {
  int8_t values[16];
  for (int code = 0; code < 16; ++code) values[code] = static_cast<int8_t>(Number::Units(code, z));
  const int8x16_t table = vld1q_s8(values);
  int32x4_t sum = vdupq_n_s32(0);
  int64_t i = 0;
  for (; i + kBlock <= k; i += kBlock) {
    const uint8x16_t both = vld1q_u8(codes + i / 2);
    const int8x16_t even = vqtbl1q_s8(table, vandq_u8(both, vdupq_n_u8(15)));
    const int8x16_t odd = vqtbl1q_s8(table, vshrq_n_u8(both, 4));
    vst1q_s8(units + i, even);
    vst1q_s8(units + i + 16, odd);
    sum = vpadalq_s16(sum, vpadalq_s8(vpaddlq_s8(even), odd));
  }
  int32_t rest = 0;
  if (i < k) std::memset(units + i, 0, kBlock);
  for (int64_t j = i; j < k; ++j) {
    const int unit = Number::Units(GetCode(codes, j, Number::kBits), z);
    units[i + j % 2 * 16 + (j - i) / 2] = static_cast<int8_t>(unit);
    rest += unit;
  }
  return vaddvq_s32(sum) + rest;
}

// Units of four rows of B, and what they are worth.
struct Columns {
  const int8_t* units;  // [4][size]
  int64_t size;
  int32_t sums[kColumns];
  float scales[kColumns];
};

template <typename Sums, int kRows>
[[gnu::flatten]] void MultiplyUnits(const GemmArgs& args, int64_t row, const Columns& b, int64_t count,
                                    float* c) {
  const uint8_t* a[kRows];
  Unroll<kRows>([&](auto r) { a[r] = args.a + (row + r) * args.a_stride; });
  Sums sums[kRows][kColumns];
  Unroll<kRows>([&](auto r) { Unroll<kColumns>([&](auto j) { sums[r][j] = Sums::Zero(); }); });
  for (int64_t i = 0; i < b.size; i += kBlock) {
    int8x16_t x[kRows][2];
    Unroll<kRows>([&](auto r) {
      const auto* units = reinterpret_cast<const int8_t*>(a[r] + kHeader + i);
      x[r][0] = vld1q_s8(units);
      x[r][1] = vld1q_s8(units + 16);
    });
    Unroll<kColumns>([&](auto j) {
      const int8_t* units = b.units + j * b.size + i;
      const int8x16_t even = vld1q_s8(units), odd = vld1q_s8(units + 16);
      Unroll<kRows>([&](auto r) { sums[r][j].Add(even, x[r][0], odd, x[r][1]); });
    });
  }
  Unroll<kRows>([&](auto r) {
    ByteHeader header;
    std::memcpy(&header, a[r], sizeof(header));
    int32_t totals[kColumns];
    Unroll<kColumns>([&](auto j) { totals[j] = sums[r][j].Total(); });
    for (int64_t j = 0; j < count; ++j) {
      const int64_t sum = totals[j] + int64_t{128 - header.z} * b.sums[j];
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
    ByteHeader header;
    std::memcpy(&header, a, sizeof(header));
    int64_t sum = 0;
    for (int64_t k = 0; k < args.row.k; ++k) {
      const int64_t place = k / kBlock * kBlock + k % 2 * 16 + k % kBlock / 2;
      const int code = a[kHeader + place] ^ 0x80;
      sum += (code - header.z) * Number::Units(GetCode(codes, k, Number::kBits), z);
    }
    args.c[row * kPanel + column] = header.scale * UnitScale<Number>(scales) * static_cast<float>(sum);
  }
}

// Four rows of B from `column` on, or as many as there are.
template <typename Number, typename Sums>
void MultiplyColumns(const GemmArgs& args, int64_t column) {
  const int64_t count = args.b_rows - column < kColumns ? args.b_rows - column : kColumns;
  auto* units = reinterpret_cast<int8_t*>(args.scratch);
  Columns b = {units, ByteRowSize(args.row.k), {}, {}};
  bool plain[kColumns] = {}, all = true;
  for (int64_t j = 0; j < kColumns; ++j) {
    const uint8_t* scales = args.b.scales + (column + j) * args.b.scale_bytes;
    plain[j] = j < count && args.row.k <= kMaxSize && Number::Load(scales).z <= kMaxZero;
    if (plain[j]) {
      b.scales[j] = UnitScale<Number>(scales);
      b.sums[j] = DecodeUnits<Number>(args.b.codes + (column + j) * args.b.code_bytes, Number::Load(scales).z,
                                      args.row.k, units + j * b.size);
    } else {
      std::memset(units + j * b.size, 0, static_cast<size_t>(b.size));
    }
    all = all && (plain[j] || j >= count);
  }
  int64_t row = 0;
  float* c = args.c + column;
  for (; row + Sums::kRows <= args.m; row += Sums::kRows)
    MultiplyUnits<Sums, Sums::kRows>(args, row, b, count, c + row * kPanel);
  for (; row < args.m; ++row) MultiplyUnits<Sums, 1>(args, row, b, count, c + row * kPanel);
  for (int64_t j = 0; !all && j < count; ++j) {
    if (!plain[j]) MultiplySlowly<Number>(args, column + j);
  }
}

template <typename Number, typename Sums>
void Gemm(const GemmArgs& args) {
  if (args.row.k == 0) {
    std::memset(args.c, 0, static_cast<size_t>(args.m * kPanel) * sizeof(float));
    return;
  }
  for (int64_t column = 0; column < args.b_rows; column += kColumns)
    MultiplyColumns<Number, Sums>(args, column);
}

int64_t ScratchFloats(const RowShape& row) { return kColumns * ByteRowSize(row.k) / 4; }

template <typename Number, typename Sums>
constexpr MatMulKernels Set() {
  return {kPanel, nullptr, nullptr, ScratchFloats, Gemm<Number, Sums>, &kByteForm};
}

}  // namespace
}  // namespace mxcompile
