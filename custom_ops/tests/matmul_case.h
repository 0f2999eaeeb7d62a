// A product of random operands on one instruction set against the scalar reference, bit for bit: B from the
// graph, and constant B.
#pragma once

#include <string>
#include <type_traits>

#include "kernels/isa.h"
#include "kernels/matmul.h"
#include "tests/harness.h"

namespace mxcompile {

struct MatMulCase {
  const char* a_format;  // null: none
  const char* b_format;
  int64_t m, n, k, batches;
};

// Operands of a product: numbers and scales of one size as in a model; the smallest scales, subnormals and
// zero among them; or of very different sizes, scales of NaN and infinity among them.
enum class Operands { kMild, kSmallScales, kAny };

inline uint8_t ScaleByte(Operands kind) {
  if (kind == Operands::kMild) return static_cast<uint8_t>(random_bits() % 16 + 100);
  if (kind == Operands::kSmallScales) return static_cast<uint8_t>(random_bits() % 8);
  return random_bits() % 64 == 0 ? RandomByte() : static_cast<uint8_t>(random_bits() % 64 + 90);
}

template <typename T>
T Number(bool mild) {
  const float x = mild ? static_cast<float>(static_cast<int32_t>(random_bits())) * 0x1p-31f : RandomFinite();
  if constexpr (std::is_same_v<T, float>)
    return x;
  else
    return HalfOf(x * 0x1p-8f);
}

inline MatMulProblem ProblemOf(const MatMulCase& c) {
  MatMulProblem problem{
      Isa::kScalar, std::nullopt, FormatOf(c.b_format), c.m, c.n, c.k, c.batches, c.batches, {}, {}, false};
  if (c.a_format != nullptr) problem.a_format = FormatOf(c.a_format);
  for (int64_t i = 0; i < c.batches; ++i) {
    problem.a_batch.push_back(i);
    problem.b_batch.push_back(c.batches - 1 - i);
  }
  return problem;
}

inline std::string NameOf(const MatMulCase& c, Isa isa, Operands kind) {
  const char* const kinds[] = {" mild", " small", ""};
  return std::string("matmul ") + (c.a_format == nullptr ? "none" : c.a_format) + " x " + c.b_format + " " +
         IsaName(isa) + " m=" + std::to_string(c.m) + " n=" + std::to_string(c.n) +
         " k=" + std::to_string(c.k) + kinds[static_cast<int>(kind)];
}

template <typename T>
void TestMatMulOf(const MatMulCase& c, Isa isa, Operands kind) {
  const bool mild = kind != Operands::kAny;
  MatMulProblem problem = ProblemOf(c);
  const Format& format = problem.b_format;
  const auto value = [mild] { return Number<T>(mild); };
  const Guarded<T> a(c.batches * c.m * c.k, value), bias(c.n, value);
  Guarded<uint8_t> codes(c.batches * c.n * format.CodeBytes(c.k), RandomByte),
      scales(c.batches * c.n * format.ScaleBytes(c.k));
  std::generate_n(scales.data(), scales.size(), [kind] { return ScaleByte(kind); });
  // A zero point behind each float32 scale: mild ones are those of the quantizer.
  const int64_t width = format.spec->scales_per_block;
  for (int64_t i = 4; width == 5 && mild && i < scales.size(); i += width) scales.data()[i] &= 15;

  const int64_t size = c.batches * c.m * c.n;
  // Of B from the graph, and of constant B, which may add up differently.
  Guarded<T> graph_ref(size), graph(size), constant_ref(size), constant(size);
  const auto run = [&](Isa on, const uint8_t* b_packed, const Guarded<T>& y, bool backwards) {
    problem.isa = on;
    Serial serial(backwards);
    const MatMulOperands<T> operands{
        a.data(), codes.data(), scales.data(), b_packed, mild ? bias.data() : nullptr, y.data()};
    return RunMatMul<T>(problem, operands, serial);
  };
  bool done = run(Isa::kScalar, nullptr, graph_ref, false) && run(isa, nullptr, graph, true);
  problem.constant_b = true;
  done = done && run(Isa::kScalar, nullptr, constant_ref, false);
  problem.isa = isa;
  const MatMulKernels& kernels = MatMulSet(problem);
  Buffer packed;
  if (kernels.pack != nullptr) {
    packed = PackB(kernels, format, c.batches, c.n, c.k, codes.data(), scales.data());
    done = done && packed;
  }
  done = done && run(isa, packed.bytes(), constant, false);
  const std::string what = NameOf(c, isa, kind);
  Expect(done && SameValues(graph, graph_ref), what + ", B from the graph");
  Expect(done && SameValues(constant, constant_ref), what + ", constant B");
}

template <typename T>
void TestMatMul(const MatMulCase& c, Isa isa) {
  for (Operands kind : {Operands::kMild, Operands::kAny}) TestMatMulOf<T>(c, isa, kind);
}

}  // namespace mxcompile
