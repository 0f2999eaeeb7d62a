// Data layout: A is made into rows of the set's form once, [a_batches * m], mostly float32; or by the units,
// each its own rows. The product is cut into units of (batch, group of panels of B, chunk of rows): each
// packs a panel of B if it has to, multiplies it with its rows into a tile [rows, panel], adds the bias and
// writes the tile to Y. A task is a run of units. Sizes depend on the shape alone.
#include "kernels/matmul.h"

#include <algorithm>
#include <atomic>
#include <string_view>
#include <type_traits>
#include <utility>

#include "kernels/isa.h"
#include "kernels/prepared_a.h"
#include "kernels/tensor_scales.h"

namespace mxcompile {
namespace {

// Work of one task, in multiply-adds: some ten microseconds, against half a microsecond to hand a task to a
// thread.
constexpr int64_t kTaskWork = int64_t{1} << 19;
constexpr int64_t kRowTile = 6;  // of the kernels that do not interleave A

void FromFloat(Isa, const float* x, int64_t size, float* y) { std::copy_n(x, size, y); }
void FromFloat(Isa isa, const float* x, int64_t size, Half* y) { HalfConvert(isa).float_to_half(x, size, y); }

// Everything a task needs to know; tasks differ by index alone.
template <typename T>
struct Plan {
  const MatMulProblem& p;
  const MatMulOperands<T>& operands;
  const MatMulKernels& kernels;
  const PreparedA& a;
  const float* bias;
  RowShape row;  // of B
  int64_t panels, panels_per_group, groups;
  int64_t rows_per_chunk, chunks;
  int64_t units, units_per_task;
  int64_t panel_bytes, code_bytes, scale_bytes;

  bool PacksOnTheWay() const { return kernels.pack != nullptr && operands.b_packed == nullptr; }
};

template <typename T>
Plan<T> MakePlan(const MatMulProblem& p, const MatMulOperands<T>& operands, const MatMulKernels& kernels,
                 const PreparedA& a, const float* bias) {
  Plan<T> plan{p, operands, kernels, a, bias, p.b_format.Row(p.k), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  const int64_t row_tile = a.tile > 1 ? a.tile : kRowTile;
  plan.rows_per_chunk = RoundUp(CeilDiv(p.m, CeilDiv(p.m, kernels.max_rows)), row_tile);
  plan.chunks = CeilDiv(p.m, plan.rows_per_chunk);
  plan.panels = CeilDiv(p.n, kernels.panel);
  const int64_t rows = std::min(p.m, plan.rows_per_chunk);
  const int64_t panel_work = kernels.panel * (p.k + 1) * (rows + kernels.weight_work);
  plan.panels_per_group =
      a.elements != nullptr ? plan.panels : std::clamp<int64_t>(kTaskWork / panel_work, 1, plan.panels);
  plan.groups = CeilDiv(plan.panels, plan.panels_per_group);
  plan.units = static_cast<int64_t>(p.a_batch.size()) * plan.groups * plan.chunks;
  plan.units_per_task = std::clamp<int64_t>(kTaskWork / (panel_work * plan.panels_per_group), 1, plan.units);
  plan.panel_bytes = kernels.pack != nullptr ? PanelBytes(kernels, plan.row) : 0;
  plan.code_bytes = p.b_format.CodeBytes(p.k);
  plan.scale_bytes = p.b_format.ScaleBytes(p.k);
  return plan;
}

// Rows [row, row + rows) of one batch of Y, columns of one panel, from a tile of sums. `factors` may be null.
template <typename T>
void FinishTile(const Plan<T>& plan, int64_t batch, int64_t row, int64_t rows, int64_t column,
                const SumFactors* factors, float* tile) {
  const MatMulProblem& p = plan.p;
  const int64_t panel = plan.kernels.panel, columns = std::min(panel, p.n - column);
  for (int64_t r = 0; r < rows; ++r) {
    float* sums = tile + r * panel;
    if (factors != nullptr) factors->Multiply(sums);
    if (plan.bias != nullptr) {
      for (int64_t c = 0; c < columns; ++c) sums[c] += plan.bias[column + c];
    }
    FromFloat(p.isa, sums, columns, plan.operands.y + (batch * p.m + row + r) * p.n + column);
  }
}

// Where a product goes that needs no finishing, a whole panel of float32 without bias; null: through a tile.
template <typename T>
float* DirectTo(const Plan<T>& plan, int64_t batch, int64_t row, int64_t column) {
  const MatMulProblem& p = plan.p;
  if constexpr (std::is_same_v<T, float>) {
    const bool whole = p.n - column >= plan.kernels.panel && plan.bias == nullptr;
    if (whole && p.k <= plan.kernels.direct_k) return plan.operands.y + (batch * p.m + row) * p.n + column;
  }
  return nullptr;
}

// The rows of B from `column` on.
template <typename T>
BRows RowsOf(const Plan<T>& plan, int64_t b_batch, int64_t column) {
  const int64_t row = b_batch * plan.p.n + column;
  return {plan.operands.b_codes + row * plan.code_bytes, plan.operands.b_scales + row * plan.scale_bytes,
          plan.code_bytes, plan.scale_bytes};
}

// The packed panel: from the constant weights, or packed now into `space`; null if the set does not pack.
template <typename T>
const uint8_t* PanelOf(const Plan<T>& plan, int64_t b_batch, int64_t panel, uint8_t* space) {
  if (plan.kernels.pack == nullptr) return nullptr;
  if (plan.operands.b_packed != nullptr) {
    return plan.operands.b_packed + (b_batch * plan.panels + panel) * plan.panel_bytes;
  }
  const int64_t column = panel * plan.kernels.panel;
  plan.kernels.pack(RowsOf(plan, b_batch, column), std::min(plan.kernels.panel, plan.p.n - column), plan.row,
                    space);
  return space;
}

// What multiplies the sums of a panel, which stands at `packed` if the set packs; none: they are as they
// should be.
template <typename T>
std::optional<SumFactors> FactorsOf(const Plan<T>& plan, int64_t b_batch, int64_t column,
                                    const uint8_t* packed) {
  if (!plan.kernels.tensor_scales_apart) return std::nullopt;
  const int64_t columns = std::min(plan.kernels.panel, plan.p.n - column);
  if (plan.operands.b_packed != nullptr)
    return SumFactors(plan.a.tensor_scale, packed + plan.kernels.packed_bytes(plan.row), kFloat, columns);
  const BRows b = RowsOf(plan, b_batch, column);
  return SumFactors(plan.a.tensor_scale, b.scales, b.scale_bytes, columns);
}

// A task's memory: scratch, the tile of sums, and a packed panel if it has to pack. In one piece, since a
// task may take no more than ten microseconds.
class Workspace {
 public:
  template <typename T>
  explicit Workspace(const Plan<T>& plan)
      : scratch_bytes_(RoundUp(plan.kernels.scratch_floats(plan.row) * kFloat, kLine)),
        tile_bytes_(RoundUp(std::min(plan.rows_per_chunk, plan.p.m) * plan.kernels.panel * kFloat, kLine)),
        panel_bytes_(plan.PacksOnTheWay() ? RoundUp(plan.panel_bytes, kLine) : 0),
        buffer_(scratch_bytes_ + tile_bytes_ + panel_bytes_ +
                (plan.a.elements != nullptr ? plan.rows_per_chunk * plan.a.row_bytes : 0)) {}

  explicit operator bool() const { return static_cast<bool>(buffer_); }
  float* scratch() const { return buffer_.As<float>(); }
  float* tile() const { return reinterpret_cast<float*>(buffer_.bytes() + scratch_bytes_); }
  uint8_t* panel() const { return buffer_.bytes() + scratch_bytes_ + tile_bytes_; }
  uint8_t* a() const { return panel() + panel_bytes_; }

 private:
  static constexpr int64_t kLine = 64;
  int64_t scratch_bytes_, tile_bytes_, panel_bytes_;
  Buffer buffer_;
};

// The rows [row, row + rows) of a batch of A, quantized now if they are not.
template <typename T>
const uint8_t* ChunkOf(const Plan<T>& plan, int64_t a_batch, int64_t row, int64_t rows, uint8_t* space) {
  const PreparedA& a = plan.a;
  if (a.elements == nullptr) return a.rows + (a_batch * a.batch_rows + row) * a.row_bytes;
  QuantizeRows(plan.p, *plan.kernels.a_form, a.elements, a_batch, row, rows, a.tile, space);
  return space;
}

template <typename T>
void RunUnit(const Plan<T>& plan, int64_t unit, const Workspace& work) {
  const MatMulProblem& p = plan.p;
  const int64_t chunk = unit % plan.chunks, group = unit / plan.chunks % plan.groups;
  const int64_t batch = unit / plan.chunks / plan.groups;
  const int64_t a_batch = p.a_batch[static_cast<size_t>(batch)],
                b_batch = p.b_batch[static_cast<size_t>(batch)];
  const int64_t row = chunk * plan.rows_per_chunk, rows = std::min(plan.rows_per_chunk, p.m - row);

  const uint8_t* const a = ChunkOf(plan, a_batch, row, rows, work.a());
  const int64_t end = std::min(plan.panels, (group + 1) * plan.panels_per_group);
  for (int64_t panel = group * plan.panels_per_group; panel < end; ++panel) {
    const int64_t column = panel * plan.kernels.panel, columns = std::min(plan.kernels.panel, p.n - column);
    float* const direct = DirectTo(plan, batch, row, column);
    float* const c = direct != nullptr ? direct : work.tile();
    const uint8_t* const packed = PanelOf(plan, b_batch, panel, work.panel());
    plan.kernels.gemm({a, plan.a.row_bytes, plan.a.tile, rows, plan.row, &p.b_format.Rows(p.isa),
                       RowsOf(plan, b_batch, column), columns, packed, work.scratch(), c,
                       direct != nullptr ? p.n : plan.kernels.panel});
    if (direct != nullptr) continue;
    const std::optional<SumFactors> factors = FactorsOf(plan, b_batch, column, packed);
    FinishTile(plan, batch, row, rows, column, factors ? &*factors : nullptr, c);
  }
}

template <typename T>
bool RunTask(const Plan<T>& plan, int64_t task) {
  const Workspace work(plan);
  if (!work) return false;
  const int64_t begin = task * plan.units_per_task, end = std::min(plan.units, begin + plan.units_per_task);
  for (int64_t unit = begin; unit < end; ++unit) RunUnit(plan, unit, work);
  return true;
}

const MatMulKernels& SetOf(const PairKernels& pair, const MatMulProblem& p) {
  if (p.constant_b) return p.m <= PairKernels::kFewRows ? *pair.few : *pair.many;
  if (pair.graph_few != nullptr && p.m <= pair.graph_few->max_rows) return *pair.graph_few;
  return pair.graph_many != nullptr ? *pair.graph_many : *pair.many;
}

}  // namespace

const MatMulKernels& MatMulSet(const MatMulProblem& p) {
  const FormatSpec& b = *p.b_format.spec;
  const FormatSpec* const a = p.a_format ? p.a_format->spec : nullptr;
  const PairKernels* const pair = BestUpTo(b.with_itself, p.isa);
  if (pair != nullptr && a == &b && p.a_format->block == b.default_block &&
      p.b_format.block == b.default_block)
    return SetOf(*pair, p);
  const MatMulKernels* const in_bf16 = BestUpTo(b.in_bf16, p.isa);
  if (in_bf16 != nullptr && a != nullptr && BestUpTo(a->in_bf16, p.isa) != nullptr) return *in_bf16;
  // What int8 rows look like is known to these sets alone, so the name decides.
  const MatMulKernels* const with_int8 = BestUpTo(b.with_int8, p.isa);
  const bool whole_rows = a != nullptr && p.a_format->block == 0 && p.b_format.block == 0;
  if (with_int8 != nullptr && whole_rows && std::string_view(a->name) == "int8") return *with_int8;
  return *BestUpTo(b.matmul, p.isa);
}

Buffer PackB(const MatMulKernels& kernels, const Format& format, int64_t b_batches, int64_t n, int64_t k,
             const uint8_t* codes, const uint8_t* scales) {
  const RowShape shape = format.Row(k);
  const int64_t panels = CeilDiv(n, kernels.panel), panel_bytes = PanelBytes(kernels, shape);
  const int64_t code_bytes = format.CodeBytes(k), scale_bytes = format.ScaleBytes(k);
  Buffer packed = Buffer::OnLargePages(b_batches * panels * panel_bytes);
  if (!packed) return packed;
  for (int64_t i = 0; i < b_batches * panels; ++i) {
    const int64_t first = i % panels * kernels.panel, row = i / panels * n + first;
    const BRows rows{codes + row * code_bytes, scales + row * scale_bytes, code_bytes, scale_bytes};
    PackPanel(kernels, rows, std::min(kernels.panel, n - first), shape, packed.bytes() + i * panel_bytes);
  }
  return packed;
}

template <typename T>
bool RunMatMul(const MatMulProblem& p, const MatMulOperands<T>& operands, Parallel& parallel) {
  if (p.a_batch.empty() || p.m == 0 || p.n == 0) return true;

  const MatMulKernels* set = &MatMulSet(p);
  PreparedA a = PrepareA(p, *set, operands.a, parallel);
  if (a.valid && !a.held) {
    set = set->otherwise;
    a = PrepareA(p, *set, operands.a, parallel);
  }
  if (!a.valid) return false;
  Buffer bias;
  if (operands.bias != nullptr) {
    bias = Buffer(p.n * kFloat);
    if (!bias) return false;
    ToFloat(p.isa, operands.bias, p.n, bias.As<float>());
  }

  const Plan<T> plan = MakePlan(p, operands, *set, a, bias.As<float>());
  std::atomic<bool> failed{false};
  parallel.For(CeilDiv(plan.units, plan.units_per_task), [&](int64_t task) {
    if (!RunTask(plan, task)) failed = true;
  });
  return !failed;
}

template bool RunMatMul<float>(const MatMulProblem&, const MatMulOperands<float>&, Parallel&);
template bool RunMatMul<Half>(const MatMulProblem&, const MatMulOperands<Half>&, Parallel&);

}  // namespace mxcompile
