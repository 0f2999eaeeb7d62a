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

namespace {

Dim RatioDim(const Dim& dim, int64_t numerator, int64_t denominator, bool up) {
  int64_t product = 0;
  if (dim.known()) {
    if (__builtin_mul_overflow(dim.value, numerator, &product)) return {};
    return {up ? CeilDiv(product, denominator) : product / denominator, ""};
  }
  if (dim.name.empty()) return {};
  const std::string scaled = (numerator == 1 ? "" : std::to_string(numerator) + "*") + dim.name;
  if (denominator == 1) return {-1, scaled};
  return {-1, (up ? "ceil(" : "floor(") + scaled + "/" + std::to_string(denominator) + ")"};
}

}  // namespace

Dim CeilDim(const Dim& dim, int64_t numerator, int64_t denominator) {
  return RatioDim(dim, numerator, denominator, true);
}

Dim FloorDim(const Dim& dim, int64_t numerator, int64_t denominator) {
  return RatioDim(dim, numerator, denominator, false);
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
