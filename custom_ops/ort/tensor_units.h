// What QuantizeBlock and DequantizeBlock share: the view around an axis, and the cut into tasks.
#pragma once

#include <algorithm>
#include <atomic>
#include <new>
#include <numeric>

#include "kernels/tensor_rows.h"
#include "ort/context.h"

namespace mxcompile {

inline AxisView ViewAround(const Shape& shape, size_t axis, int64_t k, const std::string& where) {
  return {Product(shape, 0, axis, where), k, Product(shape, axis + 1, shape.size(), where)};
}

// Elements that fill whole bytes, and those bytes: 8 / gcd(8, bits) and bits / gcd(8, bits).
struct CodeGroup {
  explicit CodeGroup(int bits) : elements(8 / std::gcd(8, bits)), bytes(bits / std::gcd(8, bits)) {}
  int64_t elements, bytes;
};

// Runs body(begin, end) over a tensor's units, in tasks of some ten microseconds; body returns false when out
// of memory. There is at least one unit.
template <typename Body>
void ForUnits(RunContext& run, const AxisView& view, const Body& body) {
  constexpr int64_t kTaskElements = int64_t{1} << 14;
  const int64_t units = UnitCount(view), elements = view.outer * view.k * view.inner;
  const int64_t per_unit = std::max<int64_t>(elements / units, 1);
  const int64_t per_task = CeilDiv(kTaskElements, per_unit);
  std::atomic<bool> failed{false};
  run.For(CeilDiv(units, per_task), [&](int64_t task) {
    if (!body(task * per_task, std::min(units, (task + 1) * per_task))) failed = true;
  });
  if (failed) throw std::bad_alloc();
}

}  // namespace mxcompile
