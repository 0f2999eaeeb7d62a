#include "kernels/isa.h"

#include "kernels/half_convert.h"

namespace mxcompile {
namespace {

// From the plainest to the best.
constexpr const char* kNames[kIsaCount] = {"scalar", "avx2"};

#ifdef MXC_X86
bool CpuHasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
#else
bool CpuHasAvx2() { return false; }
#endif

}  // namespace

const char* IsaName(Isa isa) { return kNames[static_cast<int>(isa)]; }

bool IsaAvailable(Isa isa) { return isa == Isa::kScalar || CpuHasAvx2(); }

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
  if (isa == Isa::kAvx2) return half_convert__avx2;
#endif
  (void)isa;
  return half_convert__scalar;
}

}  // namespace mxcompile
