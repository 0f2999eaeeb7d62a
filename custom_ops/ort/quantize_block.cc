#include "ort/quantize_block.h"

#include "ort/tensor_units.h"

namespace mxcompile {

template <typename T>
QuantizeBlock<T>::QuantizeBlock(const NodeInfo& node, Isa isa)
    : where_(node.where()), isa_(isa), format_(node.FormatOf("format")), axis_(node.Int("axis", -1)) {}

template <typename T>
void QuantizeBlock<T>::Compute(RunContext& run) const {
  const Tensor x = run.Input(0);
  const auto axis = NormalizeAxis(axis_, x.shape.size());
  if (!axis) {
    throw OpError(where_ + ": axis " + std::to_string(axis_) + " is out of range for X of shape " +
                  ToString(x.shape) + "; allowed is -rank to rank - 1");
  }
  const int64_t k = x.shape[*axis];
  Shape codes_shape = x.shape, scales_shape = x.shape;
  codes_shape[*axis] = CodeBytes(k);
  scales_shape[*axis] = format_.Blocks(k);
  scales_shape.push_back(format_.spec->scales_per_block);

  const Tensor codes = run.Output(0, codes_shape), scales = run.Output(1, scales_shape);
  if (x.Empty()) return;
  const AxisView view = ViewAround(x.shape, *axis, k, where_);
  ForUnits(run, view, [&](int64_t begin, int64_t end) {
    QuantizeUnits(format_, isa_, view, x.As<T>(), begin, end, codes.As<uint8_t>(), scales.As<uint8_t>());
  });
}

template <typename T>
void QuantizeBlock<T>::InferShapes(InferContext& infer) {
  const auto x = infer.Input(0);
  const auto format = infer.FormatOf("format");
  const auto attribute = infer.Int("axis", -1);
  if (!x || !format || !attribute) return;
  const auto axis = NormalizeAxis(*attribute, x->size());
  if (!axis) return;
  GraphShape codes = *x, scales = *x;
  codes[*axis] = CeilDivDim((*x)[*axis], 2);
  scales[*axis] = CeilDivDim((*x)[*axis], format->block);
  scales.push_back({format->spec->scales_per_block, ""});
  infer.SetOutput(0, abi::kUint8, codes);
  infer.SetOutput(1, abi::kUint8, scales);
}

template class QuantizeBlock<float>;
template class QuantizeBlock<Half>;

}  // namespace mxcompile
