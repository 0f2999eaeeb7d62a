#include "ort/shape.h"

#include "kernels/kernels.h"
#include "ort/status.h"

namespace mxcompile {

std::string ToString(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

int64_t Product(const Shape& shape, size_t begin, size_t end, const std::string& where) {
  int64_t product = 1;
  for (size_t i = begin; i < end; ++i) {
    if (__builtin_mul_overflow(product, shape[i], &product)) {
      throw OpError(where + ": a tensor of shape " + ToString(shape) + " is too large");
    }
  }
  return product;
}

Dim CeilDivDim(const Dim& dim, int64_t divisor) {
  if (dim.known()) return {CeilDiv(dim.value, divisor), ""};
  if (dim.name.empty()) return {};
  return {-1, "ceil(" + dim.name + "/" + std::to_string(divisor) + ")"};
}

Dim TimesDim(int64_t factor, const Dim& dim) {
  int64_t product = 0;
  if (dim.known()) return __builtin_mul_overflow(factor, dim.value, &product) ? Dim{} : Dim{product, ""};
  if (dim.name.empty()) return {};
  return {-1, std::to_string(factor) + "*" + dim.name};
}

std::optional<Dim> BroadcastDim(const Dim& a, const Dim& b) {
  if (a.value == 1) return b;
  if (b.value == 1) return a;
  if (a.known() && b.known()) return a.value == b.value ? std::optional<Dim>(a) : std::nullopt;
  if (a.known()) return a;  // the other one must be 1 or the same
  if (b.known()) return b;
  return a.name == b.name ? a : Dim{};
}

std::optional<size_t> NormalizeAxis(int64_t axis, size_t rank) {
  const auto size = static_cast<int64_t>(rank);
  if (axis < -size || axis >= size) return std::nullopt;
  return static_cast<size_t>(axis < 0 ? axis + size : axis);
}

}  // namespace mxcompile
