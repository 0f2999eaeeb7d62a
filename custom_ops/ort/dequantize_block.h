// DequantizeBlock(codes, scales) -> X_hat: the inverse of QuantizeBlock, exact.
#pragma once

#include "ort/op.h"

namespace mxcompile {

class DequantizeBlock {
 public:
  static constexpr OpSignature kSignature = {"DequantizeBlock", 2, 1, {abi::kUint8, abi::kUint8},
                                             {abi::kFloat},     2};

  DequantizeBlock(const NodeInfo& node, Isa isa);
  void Compute(RunContext& run) const;
  static void InferShapes(InferContext& infer);

 private:
  // The shape of X_hat; OpError if codes, scales, axis and size do not belong together.
  Shape OutputShape(const Shape& codes, const Shape& scales, size_t axis) const;

  std::string where_;
  Isa isa_;
  Format format_;
  int64_t axis_;
  int64_t size_;  // elements along the axis; 0: as many as the codes hold
};

}  // namespace mxcompile
