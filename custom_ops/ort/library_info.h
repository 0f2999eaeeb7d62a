// LibraryInfo() -> version, isa: which library this is, and the instruction set it uses.
#pragma once

#include "ort/op.h"

namespace mxcompile {

class LibraryInfo {
 public:
  static constexpr OpSignature kSignature = {"LibraryInfo", 0, 2, {}, {abi::kString, abi::kString}, 0};

  LibraryInfo(const NodeInfo&, Isa isa) : isa_(isa) {}
  void Compute(RunContext& run) const;
  static void InferShapes(InferContext& infer);

 private:
  Isa isa_;
};

}  // namespace mxcompile
