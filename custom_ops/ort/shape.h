// Shapes of tensors and of graph values, and the arithmetic of shapes that come from outside.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mxcompile {

using Shape = std::vector<int64_t>;

// "[2, 3]"
std::string ToString(const Shape& shape);

// The product of dimensions [begin, end). Throws OpError with `where` if it does not fit an int64.
int64_t Product(const Shape& shape, size_t begin, size_t end, const std::string& where);

// A dimension of a graph value: a number, a name, or unknown (-1 without a name).
struct Dim {
  int64_t value = -1;
  std::string name;

  bool known() const { return value >= 0; }
};

using GraphShape = std::vector<Dim>;

// ceil(dim * numerator / denominator) and floor of the same; of a named dimension a name such as "ceil(K/2)",
// so that equal names stay equal values. The fraction has lowest terms.
Dim CeilDim(const Dim& dim, int64_t numerator, int64_t denominator);
Dim FloorDim(const Dim& dim, int64_t numerator, int64_t denominator);

// The numpy broadcast of two dimensions, or nothing if numbers contradict.
std::optional<Dim> BroadcastDim(const Dim& a, const Dim& b);

// The non-negative axis, or nothing if it is out of range.
std::optional<size_t> NormalizeAxis(int64_t axis, size_t rank);

}  // namespace mxcompile
