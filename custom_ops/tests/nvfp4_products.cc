#include "tests/nvfp4_products.h"

#include <cmath>
#include <string>
#include <vector>

#include "kernels/matmul.h"
#include "kernels/nvfp4.h"
#include "tests/harness.h"

namespace mxcompile {
namespace {

// What A is like: its size, and whether blocks have infinity or NaN, or all elements are 0.
struct Rows {
  const char* name;
  int exponent;
  bool not_finite, zeros;
};
constexpr Rows kRows[] = {{"usual", 0, false, false},   {"not finite", 0, true, false},
                          {"zeros", 0, false, true},    {"huge", 126, false, false},
                          {"tiny", -120, false, false}, {"subnormal", -135, false, false}};

// What B is like: its tensor scales, one a row in turn, and its block scales, from a range of bytes of which
// a few are something else.
struct Weights {
  const char* name;
  std::vector<float> tensor_scales;
  int scales, scale_count, rare;
};

std::vector<Weights> AllWeights() {
  return {
      {"usual", {0x1.8p-8f}, 8, 119, 8},
      {"rows of all sizes", {1.0f, 0x1.23456p-100f, 0x1.FEDCBAp100f, -3.0f, 0x1p-149f, 0x1p-20f}, 8, 119, 1},
      {"small blocks", {0x1.2p-3f, 0x1.2p3f}, 0, 8, 7},
      {"some NaN", {0x1.2p-3f}, 8, 119, 0x7F},
      {"some below zero", {0x1.2p-3f}, 8, 119, 0x9A},
      {"zero, infinity, NaN", {0.0f, 1.0f, INFINITY, -0.0f, NAN, -INFINITY}, 8, 119, 8},
      {"any bytes", {1.0f, 0x1.5p10f}, 0, 256, 0xFF}};
}

struct Shape {
  int64_t m, n, k;
};

// Operands, and their product as nvfp4_blocks.h has it.
struct Case {
  Case(const Shape& s, const Rows& rows, const Weights& weights)
      : shape(s),
        format(FormatOf("nvfp4")),
        a(s.m * s.k),
        codes(s.n * format.CodeBytes(s.k), RandomByte),
        scales(s.n * format.ScaleBytes(s.k)),
        expected(s.m * s.n) {
    for (int64_t i = 0; i < a.size(); ++i) {
      const float x = static_cast<float>(static_cast<int32_t>(random_bits())) * 0x1p-31f;
      a.data()[i] = rows.zeros ? 0.0f : std::ldexp(x, rows.exponent);
      if (rows.not_finite && random_bits() % 128 == 0) a.data()[i] = x > 0 ? INFINITY : NAN;
    }
    for (int64_t j = 0; j < s.n; ++j) {
      uint8_t* const row = scales.data() + j * format.ScaleBytes(s.k);
      const auto scale = static_cast<size_t>(j) % weights.tensor_scales.size();
      StoreFloat(weights.tensor_scales[scale], row);
      for (int64_t b = NvScales::kRowBytes; b < format.ScaleBytes(s.k); ++b) {
        const auto usual = static_cast<int>(random_bits() % static_cast<uint32_t>(weights.scale_count));
        row[b] = static_cast<uint8_t>(random_bits() % 32 == 0 ? weights.rare : weights.scales + usual);
      }
    }
    Define();
  }

  Shape shape;
  Format format;
  Guarded<float> a;
  Guarded<uint8_t> codes, scales;
  Guarded<float> expected;

 private:
  // A block's sum of products, then its end, as nvfp4_blocks.h has it.
  float Total(const uint8_t* a_codes, const uint8_t* a_scales, const uint8_t* b_codes,
              const uint8_t* b_scales) const {
    float total = 0.0f;
    for (int64_t start = 0; start < shape.k; start += 16) {
      float sum = 0.0f;  // exact
      for (int64_t i = start; i < std::min(shape.k, start + 16); ++i)
        sum += 4 * E2M1::Decode(GetCode(a_codes, i, E2M1::kBits)) *
               E2M1::Decode(GetCode(b_codes, i, E2M1::kBits));
      const int64_t scale = NvScales::kRowBytes + start / 16;
      total = std::fma(E4M3::Decode(a_scales[scale]) / 4 * E4M3::Decode(b_scales[scale]), sum, total);
    }
    return total;
  }

  void Define() {
    const RowKernels& kernels = format.Rows(Isa::kScalar);
    const RowShape row = format.Row(shape.k);
    float amax = 0.0f;
    for (int64_t i = 0; i < shape.m; ++i) amax = std::max(amax, kernels.largest(a.data() + i * shape.k, row));
    std::vector<uint8_t> a_codes(static_cast<size_t>(format.CodeBytes(shape.k)));
    std::vector<uint8_t> a_scales(static_cast<size_t>(format.ScaleBytes(shape.k)));
    for (int64_t i = 0; i < shape.m; ++i) {
      kernels.quantize(a.data() + i * shape.k, row, amax, a_codes.data(), a_scales.data());
      for (int64_t j = 0; j < shape.n; ++j) {
        const uint8_t* const b_codes = codes.data() + j * format.CodeBytes(shape.k);
        const uint8_t* const b_scales = scales.data() + j * format.ScaleBytes(shape.k);
        const float total = Total(a_codes.data(), a_scales.data(), b_codes, b_scales);
        const double scale = double{LoadFloat(a_scales.data())} * double{LoadFloat(b_scales)};
        expected.data()[i * shape.n + j] = static_cast<float>(total * scale);
      }
    }
  }
};

void TestProduct(const Shape& shape, const Rows& rows, const Weights& weights, Isa isa) {
  const Case c(shape, rows, weights);
  const std::string what = std::string("nvfp4 x nvfp4, A ") + rows.name + ", B " + weights.name + ", " +
                           IsaName(isa) + " m=" + std::to_string(shape.m) + " n=" + std::to_string(shape.n) +
                           " k=" + std::to_string(shape.k);
  MatMulProblem problem{isa, c.format, c.format, shape.m, shape.n, shape.k, 1, 1, {0}, {0}, false};
  for (const bool constant : {false, true}) {
    problem.constant_b = constant;
    const MatMulKernels& kernels = MatMulSet(problem);
    Buffer packed;
    if (constant && kernels.pack != nullptr)
      packed = PackB(kernels, c.format, 1, shape.n, shape.k, c.codes.data(), c.scales.data());
    const Guarded<uint8_t> unread(c.scales.size());
    const Guarded<float> y(shape.m * shape.n);
    Serial serial;
    const bool done = RunMatMul<float>(problem,
                                       {c.a.data(), c.codes.data(), packed ? unread.data() : c.scales.data(),
                                        packed.bytes(), nullptr, y.data()},
                                       serial);
    Expect(done && SameValues(y, c.expected), what + (constant ? ", constant B" : ", B from the graph"));
  }
}

// Sums times the tensor scale of A alone are infinite in float32.
void TestScalesThatCancel(Isa isa) {
  const Format format = FormatOf("nvfp4");
  constexpr float kLarge = 0x1.8p126f, kFull = 6 * 448;
  const Guarded<float> a(16, [] { return kLarge; });
  const Guarded<uint8_t> codes(8, [] { return uint8_t{0x77}; }), scales(5, [] { return uint8_t{0x7E}; });
  StoreFloat(0x1p-120f, scales.data());
  const Guarded<float> y(1);
  Serial serial;
  const MatMulProblem problem{isa, format, format, 1, 1, 16, 1, 1, {0}, {0}, false};
  const bool done =
      RunMatMul<float>(problem, {a.data(), codes.data(), scales.data(), nullptr, nullptr, y.data()}, serial);
  Expect(done && y.data()[0] == 16 * kFull * kFull * (kLarge / kFull * 0x1p-120f),
         std::string("tensor scales that cancel ") + IsaName(isa));
}

}  // namespace

void TestNvfp4Products(Isa isa) {
  TestScalesThatCancel(isa);
  constexpr Shape kShapes[] = {{5, 33, 70},  {2, 65, 33},  {14, 34, 129},
                               {4, 64, 300}, {17, 97, 16}, {1, 130, 272}};
  size_t i = 0;
  for (const Rows& rows : kRows) {
    for (const Weights& weights : AllWeights()) {
      for (int each = 0; each < 2; ++each, ++i)
        TestProduct(kShapes[i % std::size(kShapes)], rows, weights, isa);
    }
  }
}

}  // namespace mxcompile
