#include "tests/pair_products.h"

#include <string>
#include <utility>

#include "kernels/matmul.h"
#include "tests/harness.h"
#include "tests/matmul_case.h"

namespace mxcompile {
namespace {

// Sums as large as they can be, of one sign and of both, with all elements of A taken or none.
void TestLargestSums(Isa isa) {
  for (const auto& [a_even, a_odd] : {std::pair{6.0f, 6.0f}, {-6.0f, -6.0f}, {-6.0f, 6.0f}, {0.0f, 0.0f}}) {
    for (uint8_t byte : {uint8_t{0x77}, uint8_t{0xFF}, uint8_t{0x7F}}) {
      const int64_t m = 2, n = 70, k = 63;
      const Format format = FormatOf("amxfp4");
      MatMulProblem problem{Isa::kScalar, format, format, m, n, k, 1, 1, {0}, {0}, true};
      const Guarded<float> a(m * k);
      for (int64_t i = 0; i < a.size(); ++i) a.data()[i] = i % 2 == 0 ? a_even : a_odd;
      const Guarded<uint8_t> codes(n * format.CodeBytes(k), [byte = byte] { return byte; });
      const Guarded<uint8_t> scales(n * format.ScaleBytes(k), [] { return uint8_t{0x3D}; });
      const Guarded<float> y(m * n), y_ref(m * n);
      Serial serial;
      bool done = RunMatMul<float>(
          problem, {a.data(), codes.data(), scales.data(), nullptr, nullptr, y_ref.data()}, serial);
      problem.isa = isa;
      const MatMulKernels& kernels = MatMulSet(problem);
      Buffer packed;
      if (kernels.pack != nullptr) packed = PackB(kernels, format, 1, n, k, codes.data(), scales.data());
      done = done &&
             RunMatMul<float>(
                 problem, {a.data(), codes.data(), scales.data(), packed.bytes(), nullptr, y.data()}, serial);
      Expect(done && SameValues(y, y_ref), std::string("the largest sums ") + IsaName(isa));
    }
  }
}

// Rows and columns that fill tiles, groups and panels, and that do not.
void TestSizes(const char* name, Isa isa) {
  for (int64_t n : kSizes) {
    for (int64_t m : {1, 3, 4}) TestMatMul<float>({name, name, m, n, 47, 1}, isa);
  }
  for (int64_t k : kSizes) {
    for (int64_t m : kSizes) TestMatMul<float>({name, name, m, 35, k, 1}, isa);
    TestMatMul<Half>({name, name, 4, 70, k, 2}, isa);
  }
  for (int64_t m : {1, 4, 13}) TestMatMul<float>({name, name, m, 70, 0, 1}, isa);
}

// Few rows, B in several panels of any layout; and the smallest scales.
void TestFewRows(const char* name, Isa isa) {
  for (int64_t m = 1; m <= 9; ++m) {
    for (int64_t k : {63, 64, 128, 600}) TestMatMul<float>({name, name, m, 300, k, 1}, isa);
    TestMatMulOf<float>({name, name, m, 81, 101, 2}, isa, Operands::kSmallScales);
  }
  TestMatMulOf<float>({name, name, 20, 81, 101, 1}, isa, Operands::kSmallScales);
}

}  // namespace

void TestPairProducts(Isa isa) {
  TestLargestSums(isa);
  for (const char* name : {"amxfp4", "amxfp4_e4m3", "mxfp4"}) {
    TestSizes(name, isa);
    TestFewRows(name, isa);
    if (!largest_too) continue;
    for (int64_t m : {1, 4, 9, 10, 12, 13, 16, 20, 600}) TestMatMul<float>({name, name, m, 65, 777, 1}, isa);
  }
}

}  // namespace mxcompile
