#include "tests/bf16_products.h"

#include <cmath>
#include <vector>

#include "kernels/matmul.h"
#include "tests/harness.h"

namespace mxcompile {
namespace {

constexpr const char* kFormats[] = {"amxfp4",     "amxfp4_pot",     "amxfp4_pot_r",   "amxfp4_e4m3",
                                    "mxfp4_b16",  "mxfp4_even_b64", "mxfp6_e3m2",     "mxfp6_e2m3_b64",
                                    "mxfp8_e4m3", "mxfp8_e5m2_b16", "mxint8",         "amxfp4_b64",
                                    "mxint8_b64", "mxfp8_e5m2",     "mxfp8_e4m3_b64", "mxfp6_e3m2_b16"};

// What A is like: its size, whether that is the last row's alone, and whether there are infinity and NaN.
// Products of small rows with B that is not large are subnormal in part; bfloat16 holds a part of the
// subnormal elements, but of the tiny ones few.
struct Rows {
  const char* name;
  int exponent;
  bool last_alone, not_finite;
};
constexpr Rows kRows[] = {{"usual", 0, false, false},       {"small", -100, false, false},
                          {"one small", -100, true, false}, {"not finite", 0, false, true},
                          {"subnormal", -126, true, false}, {"tiny", -138, true, false},
                          {"large", 60, false, false}};

// What B is like: scale bytes from a range, of which a few are something else, and codes.
struct Operand {
  const char* name;
  int scales, scale_count;  // first byte, and how many bytes
  int rare;                 // a scale byte
  bool zeros;               // all blocks with the rare byte are zeros
};
constexpr Operand kOperands[] = {{"usual", 96, 26, 100, false},    {"some zeros", 96, 26, 0, true},
                                 {"small", 0, 40, 100, false},     {"some small", 110, 10, 1, false},
                                 {"large", 215, 30, 254, false},   {"some large", 110, 10, 254, false},
                                 {"some NaN", 96, 26, 255, false}, {"some NaN of E5M2", 96, 26, 127, false}};

std::vector<float> MakeA(const Rows& kind, int64_t m, int64_t k) {
  std::vector<float> a(static_cast<size_t>(m * k));
  for (int64_t i = 0; i < m * k; ++i) {
    const float x = static_cast<float>(static_cast<int32_t>(random_bits())) * 0x1p-31f;
    const bool sized = !kind.last_alone || i / k == m - 1;
    float& to = a[static_cast<size_t>(i)];
    to = random_bits() % 16 == 0 ? 0.0f : std::ldexp(x, sized ? kind.exponent : 0);
    if (kind.not_finite && random_bits() % 64 == 0) to = x > 0 ? INFINITY : NAN;
  }
  return a;
}

// Random codes, some of them infinity or NaN if `kind` says so, with scales.
struct B {
  B(const Operand& kind, const Format& format, int64_t n, int64_t k, bool any_code)
      : codes(n * format.CodeBytes(k), RandomByte), scales(n * format.ScaleBytes(k)) {
    const int64_t block = format.block, sides = format.spec->scales_per_block;
    const int bits = format.spec->bits;
    // Codes of 8 bits without their highest exponent are numbers in every format.
    for (int64_t i = 0; bits == 8 && !any_code && i < codes.size(); ++i) codes.data()[i] &= 0xBB;
    for (int64_t i = 0; i < scales.size(); ++i) {
      const bool rare = random_bits() % 16 == 0;
      const auto usual = static_cast<int>(random_bits() % static_cast<uint32_t>(kind.scale_count));
      scales.data()[i] = static_cast<uint8_t>(rare ? kind.rare : std::min(255, kind.scales + usual));
      if (!rare || !kind.zeros) continue;
      const int64_t blocks = format.ScaleGroups(k), row = i / sides / blocks,
                    start = i / sides % blocks * block;
      const int64_t first = start / 8 * bits;
      const int64_t last = std::min(first + CodeBytes(block, bits), format.CodeBytes(k));
      std::fill(codes.data() + row * format.CodeBytes(k) + first,
                codes.data() + row * format.CodeBytes(k) + last, uint8_t{0});
    }
  }

  Guarded<uint8_t> codes, scales;
};

struct Product {
  const char* a_format;
  const char* b_format;
  int64_t m, n, k;
};

void TestProduct(const Product& c, const Rows& rows, const Operand& kind, bool any_code, Isa isa) {
  const Format format = FormatOf(c.b_format);
  const std::vector<float> values = MakeA(rows, c.m, c.k);
  Guarded<float> a(c.m * c.k), y(c.m * c.n), constant(c.m * c.n), expected(c.m * c.n);
  std::copy(values.begin(), values.end(), a.data());
  const B b(kind, format, c.n, c.k, any_code);
  MatMulProblem problem{isa, FormatOf(c.a_format), format, c.m, c.n, c.k, 1, 1, {0}, {0}, false};
  const auto run = [&](const uint8_t* packed, float* to) {
    const MatMulOperands<float> operands{a.data(), b.codes.data(), b.scales.data(), packed, nullptr, to};
    Serial serial;
    return RunMatMul<float>(problem, operands, serial);
  };
  bool done = run(nullptr, y.data());
  problem.isa = Isa::kScalar;
  done = done && run(nullptr, expected.data());
  const std::string what = std::string(c.a_format) + " x " + c.b_format + ", " + kind.name + ", A " +
                           rows.name + ", " + IsaName(isa) + " m=" + std::to_string(c.m) +
                           " n=" + std::to_string(c.n) + " k=" + std::to_string(c.k);
  Expect(done && SameValues(y, expected), "elements of any size: " + what + ", B from the graph");

  problem.constant_b = true;
  done = run(nullptr, expected.data());
  problem.isa = isa;
  const MatMulKernels& kernels = MatMulSet(problem);
  Buffer packed;
  if (kernels.pack != nullptr) packed = PackB(kernels, format, 1, c.n, c.k, b.codes.data(), b.scales.data());
  done = done && run(packed.bytes(), constant.data());
  Expect(done && SameValues(constant, expected), "elements of any size: " + what + ", constant B");
}

// A row with an element that bfloat16 does not hold is left to another set.
void TestLeftToAnother(Isa isa) {
  MatMulProblem problem{isa, FormatOf("mxfp8_e5m2"), FormatOf("mxint8"), 4, 1, 40, 1, 1, {0}, {0}, true};
  const MatMulKernels& kernels = MatMulSet(problem);
  if (kernels.otherwise == nullptr) return;
  std::vector<float> row(40, 0x1.FEp-126f);
  std::vector<uint8_t> prepared(static_cast<size_t>(kernels.a_form->bytes(40)));
  const auto held = [&](float last) {
    row.back() = last;
    return kernels.a_form->prepare_elements(row.data(), 40, prepared.data(), 4);
  };
  Expect(held(INFINITY) && held(NAN) && held(0x1.FEp127f) && held(0x1p-133f) && held(-0.0f),
         "bfloat16 holds 8 significant bits");
  Expect(!held(0x1p-134f) && !held(0x1.FFp0f), "bfloat16 does not hold more, nor smaller ones");
}

}  // namespace

void TestBf16Products(Isa isa) {
  TestLeftToAnother(isa);
  // Cut into chunks of rows of which the last is smaller than a tile.
  TestProduct({"mxint8", "mxfp6_e3m2", 20665, 2, 3}, kRows[0], kOperands[0], false, isa);
  constexpr int64_t kShapes[][3] = {{5, 33, 70}, {2, 65, 33}, {14, 34, 129}, {4, 64, 300}, {17, 97, 16}};
  size_t i = 0;
  for (const char* a_format : kFormats) {
    for (const char* b_format : kFormats) {
      // Every kind of A meets every kind of B, with all pairs together.
      for (size_t each = 0; each < std::size(kOperands); ++each, ++i) {
        const auto& [m, n, k] = kShapes[i / 3 % std::size(kShapes)];
        const Operand& kind = kOperands[i % std::size(kOperands)];
        TestProduct({a_format, b_format, m, n, k}, kRows[i % std::size(kRows)], kind, i % 7 == 0, isa);
      }
    }
  }
}

}  // namespace mxcompile
