#include "kernels/isa.h"

#include "kernels/half_convert.h"

#ifdef MXC_NEON
#include <sys/auxv.h>
#endif

namespace mxcompile {
namespace {

constexpr const char* kNames[kIsaCount] = {"scalar",     "avx2", "avx512", "avx512vnni",
                                           "avx512bf16", "neon", "neondot"};

#ifdef MXC_X86
bool CpuHas(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
    case Isa::kAvx512:
      return CpuHas(Isa::kAvx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    case Isa::kAvx512Vnni:
      return CpuHas(Isa::kAvx512) && __builtin_cpu_supports("avx512vnni") &&
             __builtin_cpu_supports("avx512vbmi");
    case Isa::kAvx512Bf16:
      return CpuHas(Isa::kAvx512Vnni) && __builtin_cpu_supports("avx512bf16");
    default:
      return false;
  }
}
#elif defined(MXC_NEON)
constexpr unsigned long kHasDotProducts = 1ul << 20;  // ASIMDDP of AT_HWCAP, part of Linux's interface

bool CpuHas(Isa isa) {
  if (isa == Isa::kNeonDot) return (getauxval(AT_HWCAP) & kHasDotProducts) != 0;
  return isa == Isa::kScalar || isa == Isa::kNeon;  // aarch64 has NEON
}
#else
bool CpuHas(Isa isa) { return isa == Isa::kScalar; }
#endif

}  // namespace

const char* IsaName(Isa isa) { return kNames[static_cast<int>(isa)]; }

bool IsaAvailable(Isa isa) { return CpuHas(isa); }

IsaChoice ChooseIsa(const char* requested) {
  const std::string wanted = requested == nullptr ? "" : requested;
  std::string available;
  Isa best = Isa::kScalar;
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (!IsaAvailable(isa)) continue;
    if (wanted == kNames[i]) return {isa, ""};
    available += (available.empty() ? "" : ", ") + std::string(kNames[i]);
    best = isa;
  }
  if (wanted.empty()) return {best, ""};
  return {best, "MXCOMPILE_ISA is '" + wanted + "'; available on this machine: " + available +
                    ". Set one of them, or unset MXCOMPILE_ISA"};
}

const ConvertKernels& HalfConvert(Isa isa) {
#ifdef MXC_X86
  if (isa >= Isa::kAvx2) return half_convert__avx2;
#elif defined(MXC_NEON)
  if (isa >= Isa::kNeon) return half_convert__neon;
#endif
  (void)isa;
  return half_convert__scalar;
}

}  // namespace mxcompile
