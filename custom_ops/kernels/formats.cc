#include "kernels/formats.h"

#include <iterator>

#include "kernels/matmul_kernels.h"
#include "kernels/row_kernels.h"

#ifdef MXC_X86
#define MXC_AVX2(set) &set##__avx2
#define MXC_AVX512(set) &set##__avx512
#define MXC_VNNI(set) &set##__avx512vnni
#define MXC_BF16(set) &set##__avx512bf16
#else
#define MXC_AVX2(set) nullptr
#define MXC_AVX512(set) nullptr
#define MXC_VNNI(set) nullptr
#define MXC_BF16(set) nullptr
#endif
#ifdef MXC_NEON
#define MXC_NEON_BASE(set) &set##__neon
#define MXC_NEON_DOT(set) &set##__neondot
#else
#define MXC_NEON_BASE(set) nullptr
#define MXC_NEON_DOT(set) nullptr
#endif
#define MXC_SETS(set) {&set##__scalar, MXC_AVX2(set)}
// A packed layout is for vectors; the scalar product takes any format as it comes.
#define MXC_SETS_AVX512(set) {&set##__scalar, MXC_AVX2(set), MXC_AVX512(set)}
#define MXC_SETS_VNNI(set) {&set##__scalar, MXC_AVX2(set), nullptr, MXC_VNNI(set)}
#define MXC_PACKED(set) \
  {&f32_rows_matmul__scalar, MXC_AVX2(set), MXC_AVX512(set), nullptr, nullptr, MXC_NEON_BASE(f32_rows_matmul)}
#define MXC_E2M1_ROWS(set) \
  {&set##__scalar, MXC_AVX2(set), MXC_AVX512(set), nullptr, nullptr, MXC_NEON_BASE(set)}
#define MXC_ROWS(set) {&set##__scalar, MXC_AVX2(set), nullptr, nullptr, nullptr, MXC_NEON_BASE(set)}
#define MXC_INT8_TIMES_4_BITS(set) \
  {&set##__scalar, MXC_AVX2(set), nullptr, MXC_VNNI(set), nullptr, MXC_NEON_BASE(set), MXC_NEON_DOT(set)}
#define MXC_AMXFP4_PAIR                                                                                    \
  {&amxfp4_amxfp4_matmul__scalar,     MXC_AVX2(amxfp4_amxfp4_matmul), MXC_AVX512(amxfp4_amxfp4_matmul),    \
   MXC_VNNI(amxfp4_amxfp4_matmul),    MXC_BF16(amxfp4_amxfp4_matmul), MXC_NEON_BASE(amxfp4_amxfp4_matmul), \
   MXC_NEON_DOT(amxfp4_amxfp4_matmul)}
#define MXC_IN_BF16(format) {nullptr, nullptr, nullptr, nullptr, MXC_BF16(bf16_##format##_packed_matmul)}
#define MXC_NVFP4_PAIR                \
  {&nvfp4_nvfp4_matmul__scalar,       \
   MXC_AVX2(nvfp4_nvfp4_matmul),      \
   nullptr,                           \
   MXC_VNNI(nvfp4_nvfp4_matmul),      \
   nullptr,                           \
   MXC_NEON_BASE(nvfp4_nvfp4_matmul), \
   MXC_NEON_DOT(nvfp4_nvfp4_matmul)}
// With AVX512 A is quantized on the way, so each rounding rule has a set of its own.
#define MXC_MXFP4_PAIR(vnni)                                                                             \
  {&mxfp4_mxfp4_matmul__scalar,       MXC_AVX2(mxfp4_mxfp4_matmul),    nullptr, MXC_VNNI(vnni), nullptr, \
   MXC_NEON_BASE(mxfp4_mxfp4_matmul), MXC_NEON_DOT(mxfp4_mxfp4_matmul)}

namespace mxcompile {
namespace {

// Kernels rely on block sizes that are multiples of 8, so that a group of 8 elements never spans two blocks,
// and that divide kDecodeStep.
#define MXC_MICRO {16, 32, 64, -1}, 32
#define MXC_SIXTEEN {16, -1}, 16
#define MXC_WHOLE_ROW {0, 32, 64, 128}, 0
#define MXC_ANY                                                                         \
  {&f32_rows_matmul__scalar,      MXC_AVX2(f32_rows_matmul), nullptr, nullptr, nullptr, \
   MXC_NEON_BASE(f32_rows_matmul)}

// clang-format off
constexpr FormatSpec kFormats[] = {
    // name, bits, block sizes, scales a block, groups a row, row-bound, rows, matmul, matmul with int8, with itself, in bfloat16
    {"amxfp4",       4, MXC_MICRO, 2, 0, false, MXC_E2M1_ROWS(amxfp4_rows), MXC_PACKED(f32_amxfp4_matmul), {}, MXC_AMXFP4_PAIR, MXC_IN_BF16(amxfp4)},
    {"amxfp4_pot",   4, MXC_MICRO, 2, 0, false, MXC_E2M1_ROWS(amxfp4_pot_rows), MXC_PACKED(f32_amxfp4_pot_matmul), {}, {}, MXC_IN_BF16(amxfp4_pot)},
    {"amxfp4_pot_r", 4, MXC_MICRO, 2, 0, false, MXC_E2M1_ROWS(amxfp4_pot_r_rows), MXC_PACKED(f32_amxfp4_pot_matmul), {}, {}, MXC_IN_BF16(amxfp4_pot)},
    {"amxfp4_e4m3",  4, MXC_MICRO, 2, 0, false, MXC_ROWS(amxfp4_e4m3_rows), MXC_PACKED(f32_amxfp4_e4m3_matmul), {}, {}, MXC_IN_BF16(amxfp4_e4m3)},
    {"mxfp4",        4, MXC_MICRO, 1, 0, false, MXC_E2M1_ROWS(mxfp4_rows), MXC_PACKED(f32_mxfp4_matmul), {}, MXC_MXFP4_PAIR(mxfp4_mxfp4_matmul), MXC_IN_BF16(mxfp4)},
    {"mxfp4_even",   4, MXC_MICRO, 1, 0, false, MXC_E2M1_ROWS(mxfp4_even_rows), MXC_PACKED(f32_mxfp4_matmul), {}, MXC_MXFP4_PAIR(mxfp4_even_mxfp4_even_matmul), MXC_IN_BF16(mxfp4)},
    {"mxfp6_e3m2",   6, MXC_MICRO, 1, 0, false, MXC_ROWS(mxfp6_e3m2_rows), MXC_PACKED(f32_mxfp6_e3m2_matmul), {}, {}, MXC_IN_BF16(mxfp6_e3m2)},
    {"mxfp6_e2m3",   6, MXC_MICRO, 1, 0, false, MXC_ROWS(mxfp6_e2m3_rows), MXC_PACKED(f32_mxfp6_e2m3_matmul), {}, {}, MXC_IN_BF16(mxfp6_e2m3)},
    {"mxfp8_e4m3",   8, MXC_MICRO, 1, 0, false, MXC_ROWS(mxfp8_e4m3_rows), MXC_PACKED(f32_mxfp8_e4m3_matmul), {}, {}, MXC_IN_BF16(mxfp8_e4m3)},
    {"mxfp8_e5m2",   8, MXC_MICRO, 1, 0, false, MXC_ROWS(mxfp8_e5m2_rows), MXC_PACKED(f32_mxfp8_e5m2_matmul), {}, {}, MXC_IN_BF16(mxfp8_e5m2)},
    {"mxint8",       8, MXC_MICRO, 1, 0, false, MXC_ROWS(mxint8_rows), MXC_PACKED(f32_mxint8_matmul), {}, {}, MXC_IN_BF16(mxint8)},
    {"nvfp4",        4, MXC_SIXTEEN, 1, 4, true, MXC_ROWS(nvfp4_rows), MXC_PACKED(f32_nvfp4_matmul), {}, MXC_NVFP4_PAIR, {}},
    {"amxint4",      8, MXC_MICRO, 8, 0, true, MXC_SETS(amxint4_rows), MXC_ANY, {}, {}, {}},
    {"dint4",        4, MXC_WHOLE_ROW, 5, 0, false, MXC_ROWS(dint4_rows), MXC_ANY, MXC_INT8_TIMES_4_BITS(int8_dint4_matmul), {}, {}},
    {"dint3",        3, MXC_WHOLE_ROW, 5, 0, false, MXC_SETS(dint3_rows), MXC_ANY, MXC_SETS_VNNI(int8_dint3_matmul), {}, {}},
    {"int4",         4, MXC_WHOLE_ROW, 5, 0, false, MXC_ROWS(int4_rows), MXC_ANY, MXC_INT8_TIMES_4_BITS(int8_int4_matmul), {}, {}},
    {"int8",         8, MXC_WHOLE_ROW, 5, 0, false, MXC_ROWS(int8_rows), MXC_ANY, MXC_SETS_VNNI(int8_int8_matmul), {}, {}},
};
// clang-format on

std::string Known() {
  std::string names;
  for (const FormatSpec& spec : kFormats) names += std::string(names.empty() ? "" : ", ") + spec.name;
  return names + " (block size: " + kFormats[0].name + "_b16)";
}

std::string Sizes(const FormatSpec& spec) {
  std::string sizes;
  for (const int64_t* size = spec.block_sizes; size != std::end(spec.block_sizes) && *size >= 0; ++size)
    sizes += (sizes.empty() ? "" : ", ") + std::to_string(*size);
  return sizes;
}

// The digits behind "_b" in a name of the format's family, or nothing.
std::string SizeBehind(const FormatSpec& spec, std::string_view name) {
  const std::string prefix = std::string(spec.name) + "_b";
  if (name.substr(0, prefix.size()) != prefix) return "";
  const std::string_view digits = name.substr(prefix.size());
  return digits.find_first_not_of("0123456789") == std::string_view::npos ? std::string(digits) : "";
}

bool ParseSized(const FormatSpec& spec, std::string_view size, Format* format) {
  for (int64_t block : spec.block_sizes) {
    if (block < 0) return false;
    if (size != std::to_string(block)) continue;
    *format = {&spec, block};
    return true;
  }
  return false;
}

}  // namespace

bool ParseFormat(std::string_view name, Format* format, std::string* error) {
  for (const FormatSpec& spec : kFormats) {
    const std::string_view family = spec.name;
    if (name == family) {
      *format = {&spec, spec.default_block};
      return true;
    }
    const std::string size = SizeBehind(spec, name);
    if (size.empty()) continue;
    if (ParseSized(spec, size, format)) return true;
    *error = "format '" + std::string(name) + "': block size " + size + " is not possible, " + spec.name +
             " has " + Sizes(spec);
    return false;
  }
  *error = "unknown format '" + std::string(name) + "': known are " + Known();
  return false;
}

}  // namespace mxcompile
