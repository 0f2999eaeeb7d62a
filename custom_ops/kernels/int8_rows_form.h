// What the integer products share: int8 rows of A in the form they multiply; unnamed namespace: see
// elements.h.
//
// y = fp32(fp32(s_a * u_b) * fp32(sum)), sum = sum over k of (qa - za) * Units(qb), exact, where u_b is s_b,
// or fp32(s_b * 0.5) with half steps. One rounding of the sum, one of the scales, one of the product: so the
// order of additions does not matter, and every instruction set gives the same bits.
//
// A prepared row is a header of 32 bytes, which begins with s_a, then int16 (qa - za), filled up with zeros
// to a multiple of 16.
#pragma once

#include <cstring>

#include "kernels/integers.h"
#include "kernels/kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kHeader = 32;
constexpr int64_t kStep = 16;  // int16 in a vector

inline int64_t PaddedSize(int64_t k) { return CeilDiv(k, kStep) * kStep; }

inline int64_t PreparedBytes(int64_t k) {
  return kHeader + PaddedSize(k) * static_cast<int64_t>(sizeof(int16_t));
}

inline float ScaleOfRow(const uint8_t* prepared) { return LoadFloat(prepared); }
inline const int16_t* UnitsOfRow(const uint8_t* prepared) {
  return reinterpret_cast<const int16_t*>(prepared + kHeader);
}

inline void PrepareInt8(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t) {
  std::memset(prepared, 0, kHeader);
  if (k == 0) return;
  const Int8::Scale scale = Int8::Load(scales);
  StoreFloat(scale.s, prepared);
  auto* units = reinterpret_cast<int16_t*>(prepared + kHeader);
  const auto z = static_cast<int16_t>(scale.z);
  for (int64_t i = 0; i < k; ++i) units[i] = static_cast<int16_t>(codes[i] - z);
  std::memset(units + k, 0, static_cast<size_t>(PaddedSize(k) - k) * sizeof(int16_t));
}

constexpr RowForm kInt8Form = {PreparedBytes, nullptr, PrepareInt8};

// The factor of B's units.
template <typename Number>
inline float UnitScale(const uint8_t* scales) {
  const float s = Number::Load(scales).s;
  return Number::kHalfSteps ? s * 0.5f : s;
}

}  // namespace
}  // namespace mxcompile
