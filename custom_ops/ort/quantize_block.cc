#include "ort/quantize_block.h"

#include <mutex>

#include "ort/tensor_units.h"

namespace mxcompile {
namespace {

// Groups of scales of an axis.
Dim GroupsDim(const Format& format, const Dim& size) {
  if (size.known()) return {format.ScaleGroups(size.value), ""};
  if (size.name.empty()) return {};
  if (format.block == 0) return {-1, "min(" + size.name + ",1)"};
  Dim groups = CeilDim(size, 1, format.block);
  if (format.spec->row_groups > 0) groups.name += "+" + std::to_string(format.spec->row_groups);
  return groups;
}

}  // namespace

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
  codes_shape[*axis] = format_.CodeBytes(k);
  scales_shape[*axis] = format_.ScaleGroups(k);
  scales_shape.push_back(format_.spec->scales_per_block);

  const Tensor codes = run.Output(0, codes_shape), scales = run.Output(1, scales_shape);
  if (scales.Empty()) return;  // else there is at least one row, if only of no elements
  const AxisView view = ViewAround(x.shape, *axis, k, where_);
  const float amax = Largest(run, view, x);
  ForUnits(run, view, [&](int64_t begin, int64_t end) {
    return QuantizeUnits(format_, isa_, view, x.As<T>(), amax, begin, end, codes.As<uint8_t>(),
                         scales.As<uint8_t>());
  });
}

template <typename T>
float QuantizeBlock<T>::Largest(RunContext& run, const AxisView& view, const Tensor& x) const {
  if (format_.Rows(isa_).largest == nullptr) return 0.0f;
  std::mutex mutex;
  float largest = 0.0f;
  ForUnits(run, view, [&](int64_t begin, int64_t end) {
    const auto found = LargestInUnits(format_, isa_, view, x.As<T>(), begin, end);
    const std::lock_guard<std::mutex> lock(mutex);
    largest = std::max(largest, found.value_or(0.0f));
    return found.has_value();
  });
  return largest;
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
  const CodeGroup group(format->spec->bits);
  codes[*axis] = CeilDim((*x)[*axis], group.bytes, group.elements);
  scales[*axis] = GroupsDim(*format, (*x)[*axis]);
  scales.push_back({format->spec->scales_per_block, ""});
  infer.SetOutput(0, abi::kUint8, codes);
  infer.SetOutput(1, abi::kUint8, scales);
}

template class QuantizeBlock<float>;
template class QuantizeBlock<Half>;

}  // namespace mxcompile
