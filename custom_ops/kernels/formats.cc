#include "kernels/formats.h"

#include "kernels/f32_fp4_matmul.h"
#include "kernels/fp4_rows.h"

#ifdef MXC_X86
#define MXC_AVX2(set) &set
#else
#define MXC_AVX2(set) nullptr
#endif

namespace mxcompile {
namespace {

constexpr FormatSpec kFormats[] = {
    {"amxfp4",
     32,
     2,
     {&amxfp4_rows__scalar, MXC_AVX2(amxfp4_rows__avx2)},
     {&f32_amxfp4_matmul__scalar, MXC_AVX2(f32_amxfp4_matmul__avx2)}},
    {"mxfp4",
     32,
     1,
     {&mxfp4_rows__scalar, MXC_AVX2(mxfp4_rows__avx2)},
     {&f32_mxfp4_matmul__scalar, MXC_AVX2(f32_mxfp4_matmul__avx2)}},
};

// Kernels rely on these: multiples of 8, so that a group of 8 elements never spans two blocks.
constexpr int64_t kBlockSizes[] = {16, 32, 64};

std::string Known() {
  std::string names;
  for (const FormatSpec& spec : kFormats) names += std::string(names.empty() ? "" : ", ") + spec.name;
  return names + "; with a block size of 16, 32 or 64 as in " + kFormats[0].name + "_b16";
}

}  // namespace

bool ParseFormat(std::string_view name, Format* format, std::string* error) {
  for (const FormatSpec& spec : kFormats) {
    if (name == spec.name) {
      *format = {&spec, spec.default_block};
      return true;
    }
    for (int64_t block : kBlockSizes) {
      if (name == std::string(spec.name) + "_b" + std::to_string(block)) {
        *format = {&spec, block};
        return true;
      }
    }
  }
  *error = "unknown format '" + std::string(name) + "': known are " + Known();
  return false;
}

}  // namespace mxcompile
