#include "ort/dequantize_block.h"

#include <algorithm>

#include "ort/tensor_units.h"

namespace mxcompile {

DequantizeBlock::DequantizeBlock(const NodeInfo& node, Isa isa)
    : where_(node.where()),
      isa_(isa),
      format_(node.FormatOf("format")),
      axis_(node.Int("axis", -1)),
      size_(node.Int("size", 0)) {
  if (size_ < 0) {
    throw OpError(where_ + ": attribute size is " + std::to_string(size_) +
                  "; allowed is the number of elements along the axis, or 0 for as many as the codes hold");
  }
}

Shape DequantizeBlock::OutputShape(const Shape& codes, const Shape& scales, size_t axis) const {
  const int64_t bytes = codes[axis], bits = format_.spec->bits;
  const int64_t most = Product({8, bytes}, 0, 2, where_) / bits;
  const int64_t size = size_ != 0 ? size_ : most;
  if (format_.CodeBytes(size) != bytes) {
    const int64_t least = std::min(most, 8 * (bytes - 1) / bits + 1);
    throw OpError(where_ + ": size " + std::to_string(size) + " does not fit codes of shape " +
                  ToString(codes) + " along axis " + std::to_string(axis) + "; allowed is " +
                  (least < most ? std::to_string(least) + (least + 1 < most ? " to " : " or ") : "") +
                  std::to_string(most));
  }
  Shape expected = codes;
  expected[axis] = format_.ScaleGroups(size);
  expected.push_back(format_.spec->scales_per_block);
  if (scales != expected) {
    throw OpError(where_ + ": codes of shape " + ToString(codes) + " and scales of shape " +
                  ToString(scales) + " do not belong together: " + format_.spec->name + " with " +
                  std::to_string(size) + " elements along axis " + std::to_string(axis) + " has scales " +
                  ToString(expected));
  }
  Shape shape = codes;
  shape[axis] = size;
  return shape;
}

void DequantizeBlock::Compute(RunContext& run) const {
  const Tensor codes = run.Input(0), scales = run.Input(1);
  const auto axis = NormalizeAxis(axis_, codes.shape.size());
  if (!axis) {
    throw OpError(where_ + ": axis " + std::to_string(axis_) + " is out of range for codes of shape " +
                  ToString(codes.shape) + "; allowed is -rank to rank - 1");
  }
  const Tensor x = run.Output(0, OutputShape(codes.shape, scales.shape, *axis));
  if (x.Empty()) return;
  const AxisView view = ViewAround(x.shape, *axis, x.shape[*axis], where_);
  ForUnits(run, view, [&](int64_t begin, int64_t end) {
    return DequantizeUnits(format_, isa_, view, codes.As<uint8_t>(), scales.As<uint8_t>(), begin, end,
                           x.As<float>());
  });
}

void DequantizeBlock::InferShapes(InferContext& infer) {
  const auto codes = infer.Input(0);
  const auto attribute = infer.Int("axis", -1), size = infer.Int("size", 0);
  if (!codes || !attribute || !size || *size < 0) return;
  const auto axis = NormalizeAxis(*attribute, codes->size());
  if (!axis) return;
  const auto format = infer.FormatOf("format");
  if (!format) return;
  const CodeGroup group(format->spec->bits);
  GraphShape x = *codes;
  x[*axis] = *size != 0 ? Dim{*size, ""} : FloorDim((*codes)[*axis], group.elements, group.bytes);
  infer.SetOutput(0, abi::kFloat, x);
}

}  // namespace mxcompile
