#include "tests/pair_products.h"

#include <cmath>
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

// Tasks that quantize A themselves, where all columns are one task's and there are many.
void TestManyBatches(const char* name, Isa isa) {
  for (int64_t n : {33, 64, 128}) {
    TestMatMul<float>({name, name, 5, n, 101, 9}, isa);
    TestMatMul<Half>({name, name, 13, n, 500, 8}, isa);
  }
  if (largest_too) TestMatMul<float>({name, name, 520, 33, 70, 4}, isa);
}

// Few rows, B in several panels of any layout; and the smallest scales.
void TestFewRows(const char* name, Isa isa) {
  for (int64_t m = 1; m <= 9; ++m) {
    for (int64_t k : {63, 64, 128, 600}) TestMatMul<float>({name, name, m, 300, k, 1}, isa);
    TestMatMulOf<float>({name, name, m, 81, 101, 2}, isa, Operands::kSmallScales);
  }
  TestMatMulOf<float>({name, name, 20, 81, 101, 1}, isa, Operands::kSmallScales);
}

float RandomPositive() { return std::fabs(RandomCoarse()); }
float RandomNegative() { return -RandomPositive(); }
float AnyZero() { return random_bits() % 2 == 0 ? 0.0f : -0.0f; }
float RandomSubnormal() { return RandomFinite() * 0x1p-126f; }

// A tile of rows quantized straight to the form of A, against codes and scales brought into it.
void TestForm(const Format& format, const RowForm& form, Isa isa, int64_t rows, int64_t tile, int64_t k,
              float (*number)()) {
  const Guarded<float> x(rows * k, number);
  const auto anything = [] { return uint8_t{0xA5}; };
  const Guarded<uint8_t> straight(tile * form.bytes(k), anything), prepared(tile * form.bytes(k), anything);
  form.quantize(x.data(), rows, k, straight.data(), tile);
  Guarded<uint8_t> codes(format.CodeBytes(k)), scales(format.ScaleBytes(k));
  for (int64_t r = 0; r < rows; ++r) {
    format.Rows(isa).quantize(x.data() + r * k, format.Row(k), 0.0f, codes.data(), scales.data());
    form.prepare(codes.data(), scales.data(), k, prepared.data() + 4 * r, 4 * tile);
  }
  Expect(SameBytes(straight, prepared), std::string("straight to the form ") + format.spec->name + " " +
                                            IsaName(isa) + " rows=" + std::to_string(rows) +
                                            " tile=" + std::to_string(tile) + " k=" + std::to_string(k));
}

void TestForms(const char* name, Isa isa) {
  const Format format = FormatOf(name);
  for (bool constant : {false, true}) {
    for (int64_t m : {1, 2, 4, 5, 7, 8, 9, 13, 16, 20, 500}) {
      const RowForm* const form = MatMulSet({isa, format, format, m, 1, 1, 1, 1, {0}, {0}, constant}).a_form;
      if (form == nullptr || form->quantize == nullptr) continue;
      const int64_t tile = form->tile == nullptr ? 1 : form->tile(m), last = m % tile == 0 ? tile : m % tile;
      for (int64_t k : {0, 1, 31, 32, 33, 64, 500, 511, 512, 513, 1100}) {
        for (const auto number : {RandomFinite, RandomFloat, RandomCoarse, RandomPositive, RandomNegative,
                                  AnyZero, RandomSubnormal})
          TestForm(format, *form, isa, last, tile, k, number);
      }
    }
  }
}

}  // namespace

void TestPairProducts(Isa isa) {
  TestLargestSums(isa);
  for (const char* name : {"amxfp4", "amxfp4_e4m3", "mxfp4", "mxfp4_even", "nvfp4"}) {
    TestSizes(name, isa);
    TestFewRows(name, isa);
    TestForms(name, isa);
    TestManyBatches(name, isa);
    if (!largest_too) continue;
    for (int64_t m : {1, 4, 9, 10, 12, 13, 16, 20, 600}) TestMatMul<float>({name, name, m, 65, 777, 1}, isa);
  }
}

}  // namespace mxcompile
