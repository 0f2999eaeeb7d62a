// Data layout: A is made into float32 rows once, [a_batches * m, k]. The product is cut into units of (batch,
// group of panels of B, chunk of rows): each packs a panel of B if it has to, multiplies it with its rows
// into a tile [rows, panel], adds the bias and writes the tile to Y. A task is a run of units. Sizes depend
// on the shape alone.
#include "kernels/matmul.h"

#include <algorithm>
#include <atomic>
#include <type_traits>
#include <utility>

#include "kernels/isa.h"

namespace mxcompile {
namespace {

// Work of one task, in multiply-adds: some ten microseconds, against half a microsecond to hand a task to a
// thread.
constexpr int64_t kTaskWork = int64_t{1} << 19;
// Decoding a weight costs about as much as multiplying it this many times.
constexpr int64_t kDecodeWork = 4;
// Rows of a task: the tile stays in the L1 cache, and a multiple of the kernels' 6-row tiles.
constexpr int64_t kMaxRows = 126;
constexpr int64_t kRowTile = 6;
constexpr int64_t kPrepareWork = int64_t{1} << 14;  // elements of A a task prepares

int64_t RoundUp(int64_t value, int64_t multiple) { return CeilDiv(value, multiple) * multiple; }

int64_t RowsPerChunk(int64_t m) { return RoundUp(CeilDiv(m, CeilDiv(m, kMaxRows)), kRowTile); }

void ToFloat(Isa, const float* x, int64_t size, float* y) { std::copy_n(x, size, y); }
void ToFloat(Isa isa, const Half* x, int64_t size, float* y) { HalfConvert(isa).half_to_float(x, size, y); }
void FromFloat(Isa, const float* x, int64_t size, float* y) { std::copy_n(x, size, y); }
void FromFloat(Isa isa, const float* x, int64_t size, Half* y) { HalfConvert(isa).float_to_half(x, size, y); }

// A row of A as the product sees it: widened, then quantized and decoded again by a_format.
template <typename T>
void PrepareRow(const MatMulProblem& p, const T* x, uint8_t* codes, uint8_t* scales, float* y) {
  ToFloat(p.isa, x, p.k, y);
  if (!p.a_format) return;
  const RowKernels& rows = p.a_format->Rows(p.isa);
  rows.quantize(y, p.k, p.a_format->block, codes, scales);
  rows.dequantize(codes, scales, p.k, p.a_format->block, y);
}

template <typename T>
Buffer PrepareA(const MatMulProblem& p, const T* a, Parallel& parallel) {
  const int64_t rows = p.a_batches * p.m;
  Buffer prepared(rows * p.k * static_cast<int64_t>(sizeof(float)));
  const int64_t per_task = CeilDiv(kPrepareWork, std::max<int64_t>(p.k, 1));
  const int64_t code_bytes = CodeBytes(p.k), scale_bytes = p.a_format ? p.a_format->ScaleBytes(p.k) : 0;
  std::atomic<bool> failed{!prepared};
  if (failed) return prepared;
  parallel.For(CeilDiv(rows, per_task), [&](int64_t task) {
    const Buffer packed(code_bytes + scale_bytes);
    if (!packed) {
      failed = true;
      return;
    }
    for (int64_t r = task * per_task; r < std::min(rows, (task + 1) * per_task); ++r) {
      PrepareRow(p, a + r * p.k, packed.bytes(), packed.bytes() + code_bytes, prepared.As<float>() + r * p.k);
    }
  });
  return failed ? Buffer() : std::move(prepared);
}

// Everything a task needs to know; tasks differ by index alone.
template <typename T>
struct Plan {
  const MatMulProblem& p;
  const MatMulOperands<T>& operands;
  const MatMulKernels& kernels;
  const float* a;
  const float* bias;
  int64_t panels, panels_per_group, groups;
  int64_t rows_per_chunk, chunks;
  int64_t units, units_per_task;
  int64_t panel_bytes, code_bytes, scale_bytes;
};

template <typename T>
Plan<T> MakePlan(const MatMulProblem& p, const MatMulOperands<T>& operands, const float* a,
                 const float* bias) {
  const MatMulKernels& kernels = p.b_format.MatMul(p.isa);
  Plan<T> plan{p, operands, kernels, a, bias, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  plan.rows_per_chunk = RowsPerChunk(p.m);
  plan.chunks = CeilDiv(p.m, plan.rows_per_chunk);
  plan.panels = CeilDiv(p.n, kernels.panel);
  const int64_t rows = std::min(p.m, plan.rows_per_chunk);
  const int64_t panel_work = kernels.panel * (p.k + 1) * (rows + kDecodeWork);
  plan.panels_per_group = std::clamp<int64_t>(kTaskWork / panel_work, 1, plan.panels);
  plan.groups = CeilDiv(plan.panels, plan.panels_per_group);
  plan.units = static_cast<int64_t>(p.a_batch.size()) * plan.groups * plan.chunks;
  plan.units_per_task = std::clamp<int64_t>(kTaskWork / (panel_work * plan.panels_per_group), 1, plan.units);
  plan.panel_bytes = kernels.packed_bytes(p.k, p.b_format.block);
  plan.code_bytes = CodeBytes(p.k);
  plan.scale_bytes = p.b_format.ScaleBytes(p.k);
  return plan;
}

// Rows [row, row + rows) of one batch of Y, columns of one panel, from a tile of sums.
template <typename T>
void FinishTile(const Plan<T>& plan, int64_t batch, int64_t row, int64_t rows, int64_t column, float* tile) {
  const MatMulProblem& p = plan.p;
  const int64_t panel = plan.kernels.panel, columns = std::min(panel, p.n - column);
  for (int64_t r = 0; r < rows; ++r) {
    float* sums = tile + r * panel;
    if (plan.bias != nullptr) {
      for (int64_t c = 0; c < columns; ++c) sums[c] += plan.bias[column + c];
    }
    FromFloat(p.isa, sums, columns, plan.operands.y + (batch * p.m + row + r) * p.n + column);
  }
}

// The packed panel: from the constant weights, or packed now into `space`.
template <typename T>
const uint8_t* PanelOf(const Plan<T>& plan, int64_t b_batch, int64_t panel, uint8_t* space) {
  if (plan.operands.b_packed != nullptr) {
    return plan.operands.b_packed + (b_batch * plan.panels + panel) * plan.panel_bytes;
  }
  const int64_t column = panel * plan.kernels.panel, row = b_batch * plan.p.n + column;
  const BRows rows{plan.operands.b_codes + row * plan.code_bytes,
                   plan.operands.b_scales + row * plan.scale_bytes, plan.code_bytes, plan.scale_bytes};
  plan.kernels.pack(rows, std::min(plan.kernels.panel, plan.p.n - column), plan.p.k, plan.p.b_format.block,
                    space);
  return space;
}

struct Workspace {
  Buffer scratch, tile, space;
};

template <typename T>
void RunUnit(const Plan<T>& plan, int64_t unit, const Workspace& work) {
  const MatMulProblem& p = plan.p;
  const int64_t chunk = unit % plan.chunks, group = unit / plan.chunks % plan.groups;
  const int64_t batch = unit / plan.chunks / plan.groups;
  const int64_t a_batch = p.a_batch[static_cast<size_t>(batch)],
                b_batch = p.b_batch[static_cast<size_t>(batch)];
  const int64_t row = chunk * plan.rows_per_chunk, rows = std::min(plan.rows_per_chunk, p.m - row);

  const int64_t end = std::min(plan.panels, (group + 1) * plan.panels_per_group);
  for (int64_t panel = group * plan.panels_per_group; panel < end; ++panel) {
    const uint8_t* packed = PanelOf(plan, b_batch, panel, work.space.bytes());
    plan.kernels.gemm({plan.a + (a_batch * p.m + row) * p.k, p.k, rows, p.k, p.b_format.block, packed,
                       work.scratch.As<float>(), work.tile.As<float>()});
    FinishTile(plan, batch, row, rows, panel * plan.kernels.panel, work.tile.As<float>());
  }
}

template <typename T>
bool RunTask(const Plan<T>& plan, int64_t task) {
  constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
  const int64_t rows = std::min(plan.rows_per_chunk, plan.p.m);
  const Workspace work{Buffer(plan.kernels.scratch_floats(plan.p.k) * kFloat),
                       Buffer(rows * plan.kernels.panel * kFloat),
                       Buffer(plan.operands.b_packed != nullptr ? 0 : plan.panel_bytes)};
  if (!work.scratch || !work.tile || !work.space) return false;
  const int64_t begin = task * plan.units_per_task, end = std::min(plan.units, begin + plan.units_per_task);
  for (int64_t unit = begin; unit < end; ++unit) RunUnit(plan, unit, work);
  return true;
}

}  // namespace

Buffer PackB(Isa isa, const Format& format, int64_t b_batches, int64_t n, int64_t k, const uint8_t* codes,
             const uint8_t* scales) {
  const MatMulKernels& kernels = format.MatMul(isa);
  const int64_t panels = CeilDiv(n, kernels.panel), panel_bytes = kernels.packed_bytes(k, format.block);
  const int64_t code_bytes = CodeBytes(k), scale_bytes = format.ScaleBytes(k);
  Buffer packed(b_batches * panels * panel_bytes);
  if (!packed) return packed;
  for (int64_t i = 0; i < b_batches * panels; ++i) {
    const int64_t first = i % panels * kernels.panel, row = i / panels * n + first;
    const BRows rows{codes + row * code_bytes, scales + row * scale_bytes, code_bytes, scale_bytes};
    kernels.pack(rows, std::min(kernels.panel, n - first), k, format.block, packed.bytes() + i * panel_bytes);
  }
  return packed;
}

template <typename T>
bool RunMatMul(const MatMulProblem& p, const MatMulOperands<T>& operands, Parallel& parallel) {
  if (p.a_batch.empty() || p.m == 0 || p.n == 0) return true;

  Buffer prepared, bias;
  const float* a = nullptr;
  if constexpr (std::is_same_v<T, float>) a = p.a_format ? nullptr : operands.a;
  if (a == nullptr) {
    prepared = PrepareA(p, operands.a, parallel);
    if (!prepared) return false;
    a = prepared.As<float>();
  }
  if (operands.bias != nullptr) {
    bias = Buffer(p.n * static_cast<int64_t>(sizeof(float)));
    if (!bias) return false;
    ToFloat(p.isa, operands.bias, p.n, bias.As<float>());
  }

  const Plan<T> plan = MakePlan(p, operands, a, bias.As<float>());
  std::atomic<bool> failed{false};
  parallel.For(CeilDiv(plan.units, plan.units_per_task), [&](int64_t task) {
    if (!RunTask(plan, task)) failed = true;
  });
  return !failed;
}

template bool RunMatMul<float>(const MatMulProblem&, const MatMulOperands<float>&, Parallel&);
template bool RunMatMul<Half>(const MatMulProblem&, const MatMulOperands<Half>&, Parallel&);

}  // namespace mxcompile
