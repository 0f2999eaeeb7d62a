// MatMulBlock(A, B_codes, B_scales [, bias]) -> Y: A times the rows of a block-quantized B.
#pragma once

#include <optional>

#include "kernels/matmul.h"
#include "ort/op.h"

namespace mxcompile {

template <typename T>
class MatMulBlock {
 public:
  static constexpr OpSignature kSignature = {
      "MatMulBlock",     4, 1, {kElementType<T>, abi::kUint8, abi::kUint8, kElementType<T>},
      {kElementType<T>}, 3};

  MatMulBlock(const NodeInfo& node, Isa isa);
  void Compute(RunContext& run) const;
  static void InferShapes(InferContext& infer);

 private:
  // OpError unless they are [..., n, code bytes of k] and [..., n, scale groups of k, s].
  void CheckB(const Shape& codes, const Shape& scales, int64_t k) const;
  // The k of this run; OpError if A is a scalar or does not end in the attribute.
  int64_t RowLength(const Shape& a) const;
  void CheckBias(const std::optional<Tensor>& bias, int64_t n) const;
  // Y's batch dimensions; OpError if those of A and B do not broadcast.
  Shape BatchShape(const Shape& a, const Shape& b) const;
  MatMulProblem Problem(const Shape& a, const Shape& b, const Shape& batch) const;

  std::string where_;
  Isa isa_;
  std::optional<Format> a_format_;
  Format b_format_;
  int64_t k_;           // the attribute; 0: as A has it
  Buffer packed_;       // constant B in the kernels' layout
  Shape packed_shape_;  // of its codes
  bool constant_b_ = false;
};

extern template class MatMulBlock<float>;
extern template class MatMulBlock<Half>;

}  // namespace mxcompile
