// Runs one kernel so often, for a count of instructions: kernels_run ISA quantize|dequantize FORMAT ROWS K
// TIMES, or kernels_run ISA constant|graph A_FORMAT B_FORMAT M N K TIMES. Prints nothing.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "kernels/formats.h"
#include "kernels/isa.h"
#include "kernels/matmul.h"
#include "kernels/tensor_rows.h"

namespace mxcompile {
namespace {

Format FormatOf(const char* name) {
  Format format;
  std::string error;
  if (ParseFormat(name, &format, &error)) return format;
  std::fprintf(stderr, "%s\n", error.c_str());
  std::exit(2);
}

class Serial final : public Parallel {
 public:
  void For(int64_t count, const std::function<void(int64_t)>& body) override {
    for (int64_t i = 0; i < count; ++i) body(i);
  }
};

std::vector<float> Normal(int64_t size) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(size));
  for (float& each : x) each = normal(random);
  return x;
}

// A tensor [rows, k] and its form.
struct Quantized {
  Quantized(const Format& format, Isa isa, int64_t rows, int64_t k)
      : view{rows, k, 1},
        x(Normal(rows * k)),
        codes(static_cast<size_t>(rows * format.CodeBytes(k))),
        scales(static_cast<size_t>(rows * format.ScaleBytes(k))) {
    Quantize(format, isa);
  }
  bool Quantize(const Format& format, Isa isa) {
    return QuantizeUnits(format, isa, view, x.data(), 0.0f, 0, view.outer, codes.data(), scales.data());
  }
  bool Dequantize(const Format& format, Isa isa) {
    return DequantizeUnits(format, isa, view, codes.data(), scales.data(), 0, view.outer, x.data());
  }

  AxisView view;
  std::vector<float> x;
  std::vector<uint8_t> codes, scales;
};

bool RunRows(Isa isa, bool quantize, const Format& format, int64_t rows, int64_t k, int64_t times) {
  Quantized tensor(format, Isa::kScalar, rows, k);
  bool done = true;
  for (int64_t i = 0; i < times; ++i)
    done = done && (quantize ? tensor.Quantize(format, isa) : tensor.Dequantize(format, isa));
  return done;
}

bool RunProduct(const MatMulProblem& problem, int64_t times) {
  const Quantized b(problem.b_format, Isa::kScalar, problem.n, problem.k);
  const std::vector<float> a = Normal(problem.m * problem.k);
  std::vector<float> y(static_cast<size_t>(problem.m * problem.n));
  const MatMulKernels& kernels = MatMulSet(problem);
  Buffer packed;
  if (problem.constant_b && kernels.pack != nullptr)
    packed = PackB(kernels, problem.b_format, 1, problem.n, problem.k, b.codes.data(), b.scales.data());
  const MatMulOperands<float> operands{a.data(),       b.codes.data(), b.scales.data(),
                                       packed.bytes(), nullptr,        y.data()};
  Serial serial;
  bool done = true;
  for (int64_t i = 0; i < times; ++i) done = done && RunMatMul<float>(problem, operands, serial);
  return done;
}

bool Run(int argc, char** argv) {
  if (argc < 7) return false;
  const IsaChoice choice = ChooseIsa(argv[1]);
  if (!choice.error.empty()) std::fprintf(stderr, "%s\n", choice.error.c_str());
  const std::string what = argv[2];
  const auto number = [argv](int i) { return std::strtoll(argv[i], nullptr, 10); };
  if (!choice.error.empty()) return false;
  if (argc == 7)
    return RunRows(choice.isa, what == "quantize", FormatOf(argv[3]), number(4), number(5), number(6));
  if (argc != 9) return false;
  const MatMulProblem problem{
      choice.isa, FormatOf(argv[3]), FormatOf(argv[4]), number(5), number(6), number(7), 1, 1, {0},
      {0},        what == "constant"};
  return RunProduct(problem, number(8));
}

}  // namespace
}  // namespace mxcompile

int main(int argc, char** argv) { return mxcompile::Run(argc, argv) ? 0 : 2; }
