#include "ort/matmul_block.h"

#include <algorithm>

#include "kernels/mapped_pages.h"

namespace mxcompile {
namespace {

constexpr const char* kNone = "none";  // a_format: A as it is

// The batch dimensions of an operand whose last `matrix_rank` dimensions are the matrix.
template <typename D>
std::vector<D> BatchDims(const std::vector<D>& shape, size_t matrix_rank) {
  const size_t batch_rank = shape.size() - std::min(shape.size(), matrix_rank);
  return {shape.begin(), shape.begin() + static_cast<std::ptrdiff_t>(batch_rank)};
}

// Dimension i of `rank` broadcast dimensions, counted from the left; missing ones are `one`.
template <typename D>
D AlignedDim(const std::vector<D>& batch, size_t rank, size_t i, const D& one) {
  const size_t missing = rank - batch.size();
  return i < missing ? one : batch[i - missing];
}

// For each batch of the output, in order, the batch of an operand with dimensions `batch`.
std::vector<int64_t> BatchIndices(const Shape& output, const Shape& batch, int64_t count) {
  std::vector<int64_t> indices(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i, index = 0, stride = 1;
    for (size_t d = output.size(); d-- > 0;) {
      const int64_t dim = AlignedDim<int64_t>(batch, output.size(), d, 1);
      const int64_t position = rest % output[d];
      rest /= output[d];
      index += dim == 1 ? 0 : position * stride;
      stride *= dim;
    }
    indices[static_cast<size_t>(i)] = index;
  }
  return indices;
}

}  // namespace

template <typename T>
MatMulBlock<T>::MatMulBlock(const NodeInfo& node, Isa isa)
    : where_(node.where()), isa_(isa), b_format_(node.FormatOf("b_format")), k_(node.Int("k")) {
  const std::string a_format = node.String("a_format");
  if (a_format != kNone) a_format_ = node.ParseFormatOf("a_format", a_format);
  if (k_ < 0) throw OpError(where_ + ": attribute k is " + std::to_string(k_) + "; allowed is 0 or more");

  const abi::Value* const codes_value = node.ConstantInput(1);
  const abi::Value* const scales_value = node.ConstantInput(2);
  // k = 0 leaves the length of rows to A, and a packed layout to each run.
  if (k_ == 0 || codes_value == nullptr || scales_value == nullptr) return;
  const Tensor codes = TensorOf(node.api(), codes_value), scales = TensorOf(node.api(), scales_value);
  CheckB(codes.shape, scales.shape, k_);
  constant_b_ = true;
  MatMulProblem problem{};
  problem.isa = isa_;
  problem.a_format = a_format_;
  problem.b_format = b_format_;
  problem.constant_b = true;
  const MatMulKernels& kernels = MatMulSet(problem);
  if (kernels.pack == nullptr) return;
  const size_t rank = codes.shape.size();
  packed_shape_ = codes.shape;
  packed_ = PackB(kernels, b_format_, Product(codes.shape, 0, rank - 2, where_), codes.shape[rank - 2], k_,
                  codes.As<uint8_t>(), scales.As<uint8_t>());
  if (!packed_) throw std::bad_alloc();
  // onnxruntime keeps what it mapped from a file, and nobody reads it again: Compute takes the packed ones.
  for (const Tensor& tensor : {codes, scales})
    DropMappedPages(tensor.data, Product(tensor.shape, 0, tensor.shape.size(), where_));
}

template <typename T>
void MatMulBlock<T>::CheckB(const Shape& codes, const Shape& scales, int64_t k) const {
  const int64_t row_bytes = b_format_.CodeBytes(k);
  if (codes.size() < 2 || codes.back() != row_bytes) {
    throw OpError(where_ + ": B_codes of shape " + ToString(codes) + " do not hold rows of k = " +
                  std::to_string(k) + "; expected [..., n, " + std::to_string(row_bytes) + "]");
  }
  Shape expected = codes;
  expected.back() = b_format_.ScaleGroups(k);
  expected.push_back(b_format_.spec->scales_per_block);
  if (scales != expected) {
    throw OpError(where_ + ": B_codes of shape " + ToString(codes) + " and B_scales of shape " +
                  ToString(scales) + " do not belong together: " + b_format_.spec->name + " in blocks of " +
                  std::to_string(b_format_.Row(k).block) + " with k = " + std::to_string(k) + " has scales " +
                  ToString(expected));
  }
}

template <typename T>
int64_t MatMulBlock<T>::RowLength(const Shape& a) const {
  if (a.empty() || (k_ != 0 && a.back() != k_)) {
    const std::string k = k_ == 0 ? "k" : std::to_string(k_);
    throw OpError(where_ + ": A of shape " + ToString(a) + " does not end in k" + (k_ == 0 ? "" : " = " + k) +
                  "; expected [..., m, " + k + "]");
  }
  return a.back();
}

template <typename T>
void MatMulBlock<T>::CheckBias(const std::optional<Tensor>& bias, int64_t n) const {
  if (bias && bias->shape != Shape{n}) {
    throw OpError(where_ + ": bias of shape " + ToString(bias->shape) + " does not fit " + std::to_string(n) +
                  " rows of B; expected [" + std::to_string(n) + "]");
  }
}

template <typename T>
Shape MatMulBlock<T>::BatchShape(const Shape& a, const Shape& b) const {
  const Shape a_batch = BatchDims(a, 2), b_batch = BatchDims(b, 2);
  Shape batch(std::max(a_batch.size(), b_batch.size()));
  for (size_t i = 0; i < batch.size(); ++i) {
    const int64_t da = AlignedDim<int64_t>(a_batch, batch.size(), i, 1);
    const int64_t db = AlignedDim<int64_t>(b_batch, batch.size(), i, 1);
    if (da != db && da != 1 && db != 1) {
      throw OpError(where_ + ": A of shape " + ToString(a) + " and B_codes of shape " + ToString(b) +
                    " do not broadcast: batch dimensions must be equal or 1");
    }
    batch[i] = da == 1 ? db : da;
  }
  return batch;
}

template <typename T>
MatMulProblem MatMulBlock<T>::Problem(const Shape& a, const Shape& b, const Shape& batch) const {
  const Shape a_batch = BatchDims(a, 2), b_batch = BatchDims(b, 2);
  MatMulProblem problem{};
  problem.isa = isa_;
  problem.a_format = a_format_;
  problem.b_format = b_format_;
  problem.constant_b = constant_b_;
  problem.m = a.size() < 2 ? 1 : a[a.size() - 2];
  problem.n = b[b.size() - 2];
  problem.k = a.back();
  problem.a_batches = Product(a_batch, 0, a_batch.size(), where_);
  problem.b_batches = Product(b_batch, 0, b_batch.size(), where_);
  if (problem.b_batches == 1) {
    // One B for all: the batches of A are just more rows.
    problem.m = Product(a, 0, a.size() - 1, where_);
    problem.a_batches = 1;
    problem.a_batch = problem.b_batch = {0};
    return problem;
  }
  const int64_t count = Product(batch, 0, batch.size(), where_);
  problem.a_batch = BatchIndices(batch, a_batch, count);
  problem.b_batch = BatchIndices(batch, b_batch, count);
  return problem;
}

template <typename T>
void MatMulBlock<T>::Compute(RunContext& run) const {
  const Tensor a = run.Input(0);
  const int64_t k = RowLength(a.shape);
  const std::optional<Tensor> bias = run.OptionalInput(3);
  Tensor codes{packed_shape_, nullptr}, scales;
  if (!packed_) {  // else they were checked, and nobody reads them again: asking for them takes time
    codes = run.Input(1);
    scales = run.Input(2);
    CheckB(codes.shape, scales.shape, k);
  }
  const int64_t n = codes.shape[codes.shape.size() - 2];
  CheckBias(bias, n);

  const Shape batch = BatchShape(a.shape, codes.shape);
  Shape y_shape = batch;
  if (a.shape.size() > 1) y_shape.push_back(a.shape[a.shape.size() - 2]);
  y_shape.push_back(n);
  Product(y_shape, 0, y_shape.size(), where_);
  const Tensor y = run.Output(0, y_shape);
  if (y.Empty()) return;

  const MatMulProblem problem = Problem(a.shape, codes.shape, batch);
  const MatMulOperands<T> operands{
      a.As<T>(), codes.As<uint8_t>(), scales.As<uint8_t>(), packed_.bytes(), bias ? bias->As<T>() : nullptr,
      y.As<T>()};
  if (!RunMatMul<T>(problem, operands, run)) throw std::bad_alloc();
}

template <typename T>
void MatMulBlock<T>::InferShapes(InferContext& infer) {
  const auto a = infer.Input(0), b = infer.Input(1);
  if (!a || !b || b->size() < 2) return;
  const Dim one{1, ""};
  const GraphShape a_batch = BatchDims(*a, 2), b_batch = BatchDims(*b, 2);
  GraphShape y(std::max(a_batch.size(), b_batch.size()));
  for (size_t i = 0; i < y.size(); ++i) {
    const auto dim =
        BroadcastDim(AlignedDim(a_batch, y.size(), i, one), AlignedDim(b_batch, y.size(), i, one));
    if (!dim) return;
    y[i] = *dim;
  }
  if (a->size() > 1) y.push_back((*a)[a->size() - 2]);
  y.push_back((*b)[b->size() - 2]);
  // Not kElementType<T>: onnxruntime asks the op that was registered first, whatever the types of the node.
  infer.SetOutput(0, infer.InputType(0), y);
}

template class MatMulBlock<float>;
template class MatMulBlock<Half>;

}  // namespace mxcompile
