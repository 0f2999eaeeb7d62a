// QuantizeBlock(X) -> codes, scales: a tensor in blocks along one axis.
#pragma once

#include "kernels/tensor_rows.h"
#include "ort/op.h"

namespace mxcompile {

template <typename T>
class QuantizeBlock {
 public:
  static constexpr OpSignature kSignature = {
      "QuantizeBlock", 1, 2, {kElementType<T>}, {abi::kUint8, abi::kUint8}, 1};

  QuantizeBlock(const NodeInfo& node, Isa isa);
  void Compute(RunContext& run) const;
  static void InferShapes(InferContext& infer);

 private:
  // The largest magnitude in X's finite blocks, if the format asks for it.
  float Largest(RunContext& run, const AxisView& view, const Tensor& x) const;

  std::string where_;
  Isa isa_;
  Format format_;
  int64_t axis_;
};

extern template class QuantizeBlock<float>;
extern template class QuantizeBlock<Half>;

}  // namespace mxcompile
