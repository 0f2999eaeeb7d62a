// How A becomes the rows that a set multiplies: quantized and decoded again, or brought into the set's form,
// by rows or whole tiles.
#include "kernels/prepared_a.h"

#include <atomic>
#include <type_traits>
#include <utility>

#include "kernels/nvfp4.h"

namespace mxcompile {
namespace {

constexpr int64_t kPrepareWork = int64_t{1} << 14;      // elements of A a task prepares
constexpr int64_t kFewColumns = 128, kEnoughUnits = 8;  // see TasksQuantize
constexpr int64_t kUnit = 4;                            // bytes of a row of A that stay together

// Rows of A that are interleaved: 1 means none.
int64_t TileOf(const MatMulKernels& kernels, int64_t m) {
  return kernels.a_form != nullptr && kernels.a_form->tile != nullptr ? kernels.a_form->tile(m) : 1;
}

// One task's share of preparing A: quantizes float32 rows by a_format and decodes them again, or brings them
// into the form that the set wants.
class RowPreparer {
 public:
  RowPreparer(const MatMulProblem& p, const RowForm* form)
      : p_(p),
        form_(form),
        codes_(p.a_format->CodeBytes(p.k)),
        scales_(p.a_format->ScaleBytes(p.k)),
        elements_(form != nullptr && form->prepare == nullptr ? p.k * kFloat : 0) {}

  explicit operator bool() const { return codes_ && scales_ && elements_; }

  // `to` may be `x`. False: the form does not hold the row.
  bool Prepare(const float* x, float amax, uint8_t* to, int64_t step) const {
    const RowKernels& rows = p_.a_format->Rows(p_.isa);
    const RowShape row = p_.a_format->Row(p_.k);
    rows.quantize(x, row, amax, codes_.bytes(), scales_.bytes());
    if (form_ != nullptr && form_->prepare != nullptr) {
      form_->prepare(codes_.bytes(), scales_.bytes(), p_.k, to, step);
      return true;
    }
    auto* const elements = form_ != nullptr ? elements_.As<float>() : reinterpret_cast<float*>(to);
    rows.dequantize(codes_.bytes(), scales_.bytes(), row, 0, p_.k, elements);
    return form_ == nullptr || form_->prepare_elements(elements, p_.k, to, step);
  }

 private:
  const MatMulProblem& p_;
  const RowForm* form_;
  Buffer codes_, scales_, elements_;
};

// Calls body(first, last) for runs of A's tiles of so many rows; body returns false when out of memory.
template <typename Body>
bool ForTiles(const MatMulProblem& p, int64_t tile, Parallel& parallel, const Body& body) {
  const int64_t tiles = p.a_batches * CeilDiv(p.m, tile);
  const int64_t per_task = CeilDiv(kPrepareWork, std::max<int64_t>(tile * p.k, 1));
  std::atomic<bool> failed{false};
  parallel.For(CeilDiv(tiles, per_task), [&](int64_t task) {
    if (!body(task * per_task, std::min(tiles, (task + 1) * per_task))) failed = true;
  });
  return !failed;
}

template <typename Body>
bool ForRows(const MatMulProblem& p, Parallel& parallel, const Body& body) {
  return ForTiles(p, 1, parallel, body);
}

// The largest magnitude in the finite blocks of A, if a_format asks for it.
float LargestInA(const MatMulProblem& p, const float* a, Parallel& parallel) {
  const LargestInRow largest = p.a_format->Rows(p.isa).largest;
  if (largest == nullptr) return 0.0f;
  // Magnitudes are ordered like their bits.
  std::atomic<uint32_t> result{0};
  ForRows(p, parallel, [&](int64_t first, int64_t last) {
    float found = 0.0f;
    for (int64_t r = first; r < last; ++r)
      found = std::max(found, largest(a + r * p.k, p.a_format->Row(p.k)));
    uint32_t known = result.load();
    while (known < BitsOf(found) && !result.compare_exchange_weak(known, BitsOf(found))) {
    }
    return true;
  });
  return FloatOf(result.load());
}

// A as float32 rows.
template <typename T>
PreparedA WidenA(const MatMulProblem& p, const T* a, Parallel& parallel) {
  PreparedA wide;
  wide.row_bytes = p.k * kFloat;
  wide.batch_rows = p.m;
  if constexpr (std::is_same_v<T, float>) {
    wide.rows = reinterpret_cast<const uint8_t*>(a);
    wide.valid = true;
  } else {
    wide.owner = Buffer(p.a_batches * p.m * wide.row_bytes);
    wide.rows = wide.owner.bytes();
    wide.valid =
        wide.owner && ForRows(p, parallel, [&](int64_t first, int64_t last) {
          ToFloat(p.isa, a + first * p.k, (last - first) * p.k, wide.owner.As<float>() + first * p.k);
          return true;
        });
  }
  return wide;
}

// Whether tasks quantize A, each the rows that it multiplies, which then need not leave the cache: if no two
// of them need the same rows, all columns being one task's, and if that leaves enough tasks.
bool TasksQuantize(const MatMulProblem& p, const MatMulKernels& kernels) {
  if (kernels.a_form == nullptr || kernels.a_form->quantize == nullptr || p.n > kFewColumns) return false;
  const auto batches = static_cast<int64_t>(p.a_batch.size());
  return batches == p.a_batches && batches * CeilDiv(p.m, kernels.max_rows) >= kEnoughUnits;
}

// Quantizes rows of float32 straight to `prepared`.
bool QuantizeAll(const MatMulProblem& p, const RowForm& form, const float* from, Parallel& parallel,
                 const PreparedA& prepared) {
  const int64_t tiles = CeilDiv(p.m, prepared.tile);
  return ForTiles(p, prepared.tile, parallel, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      const int64_t row = t % tiles * prepared.tile;
      QuantizeRows(p, form, from, t / tiles, row, std::min(prepared.tile, p.m - row), prepared.tile,
                   prepared.owner.bytes() + t * prepared.tile * prepared.row_bytes);
    }
    return true;
  });
}

// Quantizes row by row, then brings each into the form, if there is one. Sets valid and held.
void PrepareAll(const MatMulProblem& p, const RowForm* form, const float* from, Parallel& parallel,
                PreparedA* prepared) {
  const float amax = LargestInA(p, from, parallel);
  prepared->tensor_scale = NvScales::TensorScale(amax);
  std::atomic<bool> held{true};
  prepared->valid = ForRows(p, parallel, [&](int64_t first, int64_t last) {
    const RowPreparer preparer(p, form);
    if (!preparer) return false;
    for (int64_t r = first; r < last; ++r) {
      const int64_t row = r / p.m * prepared->batch_rows + r % p.m, lane = row % prepared->tile;
      uint8_t* to = prepared->owner.bytes() + (row - lane) * prepared->row_bytes + lane * kUnit;
      if (!preparer.Prepare(from + r * p.k, amax, to, prepared->tile * kUnit)) held = false;
    }
    return true;
  });
  prepared->held = held;
}

}  // namespace

template <typename T>
PreparedA PrepareA(const MatMulProblem& p, const MatMulKernels& kernels, const T* a, Parallel& parallel) {
  PreparedA wide = WidenA(p, a, parallel);
  if (!p.a_format || !wide.valid) return wide;
  const auto* from = reinterpret_cast<const float*>(wide.rows);
  const RowForm* const form = kernels.a_form;

  PreparedA prepared;
  prepared.row_bytes = form != nullptr ? form->bytes(p.k) : p.k * kFloat;
  prepared.tile = TileOf(kernels, p.m);
  prepared.batch_rows = RoundUp(p.m, prepared.tile);
  if (TasksQuantize(p, kernels)) {
    prepared.elements = from;
    prepared.owner = std::move(wide.owner);
    prepared.valid = true;
    return prepared;
  }
  const bool in_place = wide.owner && form == nullptr;
  prepared.owner =
      in_place ? std::move(wide.owner) : Buffer(p.a_batches * prepared.batch_rows * prepared.row_bytes);
  prepared.rows = prepared.owner.bytes();
  if (!prepared.owner) return prepared;
  if (form != nullptr && form->quantize != nullptr) {
    prepared.valid = QuantizeAll(p, *form, from, parallel, prepared);
  } else {
    PrepareAll(p, form, from, parallel, &prepared);
  }
  return prepared;
}

template PreparedA PrepareA<float>(const MatMulProblem&, const MatMulKernels&, const float*, Parallel&);
template PreparedA PrepareA<Half>(const MatMulProblem&, const MatMulKernels&, const Half*, Parallel&);

}  // namespace mxcompile
