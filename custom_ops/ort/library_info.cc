#include "ort/library_info.h"

namespace mxcompile {

void LibraryInfo::Compute(RunContext& run) const {
  run.StringOutput(0, MXCOMPILE_VERSION);
  run.StringOutput(1, IsaName(isa_));
}

void LibraryInfo::InferShapes(InferContext& infer) {
  infer.SetOutput(0, abi::kString, {});
  infer.SetOutput(1, abi::kString, {});
}

}  // namespace mxcompile
