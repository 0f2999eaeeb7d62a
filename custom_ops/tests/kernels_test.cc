// Every instruction set of this machine against the scalar reference, bit for bit, at awkward sizes,
// unaligned, with all inputs and outputs ending at an unreadable page. Prints "N passed, 0 failed". With the
// name of an instruction set that one alone, without the largest sizes: what valgrind can do in a minute or
// two.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/crowding.h"
#include "kernels/isa.h"
#include "kernels/matmul.h"
#include "kernels/tensor_rows.h"
#include "tests/bf16_products.h"
#include "tests/harness.h"
#include "tests/mapped_pages.h"
#include "tests/matmul_case.h"
#include "tests/nvfp4_products.h"
#include "tests/pair_products.h"

namespace mxcompile {
namespace {

constexpr const char* kFormatNames[] = {
    "amxfp4",      "amxfp4_b16",      "amxfp4_b64", "amxfp4_pot",     "amxfp4_pot_b16", "amxfp4_pot_r",
    "amxfp4_e4m3", "amxfp4_e4m3_b64", "mxfp4",      "mxfp4_b16",      "mxfp4_b64",      "mxfp4_even",
    "mxfp6_e3m2",  "mxfp6_e3m2_b16",  "mxfp6_e2m3", "mxfp6_e2m3_b64", "mxfp8_e4m3",     "mxfp8_e4m3_b16",
    "mxfp8_e5m2",  "mxfp8_e5m2_b64",  "mxint8",     "mxint8_b16",     "nvfp4",          "amxint4",
    "amxint4_b16", "amxint4_b64",     "dint4",      "dint4_b128",     "dint3",          "dint3_b32",
    "int4",        "int4_b64",        "int8",       "int8_b128"};

std::vector<Isa> VectorIsas() {
  std::vector<Isa> isas;
  for (int i = 1; i < kIsaCount; ++i) {
    if (IsaAvailable(static_cast<Isa>(i))) isas.push_back(static_cast<Isa>(i));
  }
  return isas;
}

void TestRows(const char* name, Isa isa, int64_t k, float (*number)()) {
  const Format format = FormatOf(name);
  const RowShape row = format.Row(k);
  const RowKernels &kernels = format.Rows(isa), &reference = format.Rows(Isa::kScalar);
  const std::string what = std::string(name) + " " + IsaName(isa) + " k=" + std::to_string(k);
  const Guarded<float> x(k, number);
  const int64_t code_bytes = format.CodeBytes(k), scale_bytes = format.ScaleBytes(k);
  float amax = 0.0f;
  if (kernels.largest != nullptr) {
    amax = reference.largest(x.data(), row);
    Expect(kernels.largest(x.data(), row) == amax, "largest " + what);
  }
  Guarded<uint8_t> codes(code_bytes), scales(scale_bytes), codes_ref(code_bytes), scales_ref(scale_bytes);
  kernels.quantize(x.data(), row, amax, codes.data(), scales.data());
  reference.quantize(x.data(), row, amax, codes_ref.data(), scales_ref.data());
  Expect(SameBytes(codes, codes_ref) && SameBytes(scales, scales_ref), "quantize " + what);

  const Guarded<uint8_t> any_codes(code_bytes, RandomByte), any_scales(scale_bytes, RandomByte);
  for (int64_t begin : {int64_t{0}, std::min(k / kDecodeStep * kDecodeStep, kDecodeStep)}) {
    Guarded<float> y(k - begin), y_ref(k - begin);
    kernels.dequantize(any_codes.data(), any_scales.data(), row, begin, k, y.data());
    reference.dequantize(any_codes.data(), any_scales.data(), row, begin, k, y_ref.data());
    Expect(SameValues(y, y_ref), "dequantize " + what + " from " + std::to_string(begin));
  }
}

// Along an inner axis: equal to the rows of the transposed tensor.
void TestStrips(const char* name, Isa isa, int64_t k, int64_t inner) {
  const Format format = FormatOf(name);
  const RowShape shape = format.Row(k);
  const RowKernels& reference = format.Rows(Isa::kScalar);
  const std::string what = std::string(name) + " " + IsaName(isa) + " [2, " + std::to_string(k) + ", " +
                           std::to_string(inner) + "]";
  const AxisView view{2, k, inner};
  const int64_t kb = format.CodeBytes(k), sb = format.ScaleBytes(k), s = format.spec->scales_per_block,
                nb = sb / s;
  const Guarded<float> x(2 * k * inner, RandomFloat);
  const int64_t units = UnitCount(view);
  float amax = 0.0f;
  if (reference.largest != nullptr)
    amax = LargestInUnits(format, isa, view, x.data(), 0, units).value_or(-1.0f);
  Guarded<uint8_t> codes(2 * kb * inner), scales(2 * sb * inner);
  Guarded<float> y(2 * k * inner);
  bool same = QuantizeUnits(format, isa, view, x.data(), amax, 0, units, codes.data(), scales.data()) &&
              DequantizeUnits(format, isa, view, codes.data(), scales.data(), 0, units, y.data());

  float largest = 0.0f;
  std::vector<float> row(static_cast<size_t>(k)), decoded(static_cast<size_t>(k));
  std::vector<uint8_t> row_codes(static_cast<size_t>(kb)), row_scales(static_cast<size_t>(sb));
  for (int64_t o = 0; o < 2; ++o) {
    for (int64_t c = 0; c < inner; ++c) {
      for (int64_t i = 0; i < k; ++i) row[static_cast<size_t>(i)] = x.data()[(o * k + i) * inner + c];
      if (reference.largest != nullptr) largest = std::max(largest, reference.largest(row.data(), shape));
      reference.quantize(row.data(), shape, amax, row_codes.data(), row_scales.data());
      reference.dequantize(row_codes.data(), row_scales.data(), shape, 0, k, decoded.data());
      for (int64_t i = 0; i < kb; ++i)
        same &= codes.data()[(o * kb + i) * inner + c] == row_codes[static_cast<size_t>(i)];
      for (int64_t i = 0; i < sb; ++i) {
        same &=
            scales.data()[((o * nb + i / s) * inner + c) * s + i % s] == row_scales[static_cast<size_t>(i)];
      }
      for (int64_t i = 0; i < k; ++i)
        same &= Same(y.data()[(o * k + i) * inner + c], decoded[static_cast<size_t>(i)]);
    }
  }
  Expect(same && largest == amax, "strips " + what);
}

void TestHalves(Isa isa) {
  Guarded<Half> all(65536);
  for (int64_t i = 0; i < all.size(); ++i) all.data()[i].bits = static_cast<uint16_t>(i);
  Guarded<float> wide(65536), wide_ref(65536);
  HalfConvert(isa).half_to_float(all.data(), all.size(), wide.data());
  HalfConvert(Isa::kScalar).half_to_float(all.data(), all.size(), wide_ref.data());
  Expect(SameValues(wide, wide_ref), std::string("half_to_float ") + IsaName(isa));

  // Every half, the midpoints to its neighbour, and a step to both sides; then anything.
  Guarded<float> x(4 * 65536 + 100003);
  for (int64_t i = 0; i < 65536; ++i) {
    const uint32_t bits = BitsOf(wide.data()[i]);
    for (uint32_t j = 0; j < 4; ++j) x.data()[4 * i + j] = FloatOf(j == 0 ? bits : bits + 0xFFF + j - 1);
  }
  std::generate_n(x.data() + 4 * 65536, 100003, [] { return FloatOf(static_cast<uint32_t>(random_bits())); });
  Guarded<Half> y(x.size()), y_ref(x.size());
  HalfConvert(isa).float_to_half(x.data(), x.size(), y.data());
  HalfConvert(Isa::kScalar).float_to_half(x.data(), x.size(), y_ref.data());
  Expect(SameValues(y, y_ref), std::string("float_to_half ") + IsaName(isa));
}

void TestFormatNames() {
  Format format;
  std::string error;
  Expect(ParseFormat("mxfp4_b64", &format, &error) && format.block == 64, "mxfp4_b64 has blocks of 64");
  Expect(ParseFormat("amxfp4", &format, &error) && format.block == 32, "amxfp4 has blocks of 32");
  Expect(ParseFormat("dint3_b128", &format, &error) && format.block == 128, "dint3_b128 has blocks of 128");
  Expect(ParseFormat("int8", &format, &error) && format.Row(70).block == 70, "int8 has one block a row");
  for (const char* name : {"", "none", "AMXFP4", "amxfp4 ", "_b16", "amxfp4_b", "amxfp4_bx"}) {
    Expect(!ParseFormat(name, &format, &error) && error.find("amxfp4, amxfp4_pot") != std::string::npos,
           std::string("'") + name + "' is no format");
  }
  for (const char* name : {"amxfp4_b8", "amxfp4_b032", "amxfp4_b0", "amxfp4_pot_b128"}) {
    Expect(!ParseFormat(name, &format, &error) && error.find("has 16, 32, 64") != std::string::npos,
           std::string("'") + name + "' has no such blocks");
  }
  Expect(!ParseFormat("nvfp4_b32", &format, &error), "nvfp4 has blocks of 16 alone");
}

void TestIsaChoice() {
  Expect(ChooseIsa("scalar").isa == Isa::kScalar && ChooseIsa("scalar").error.empty(),
         "scalar can be forced");
  Expect(ChooseIsa(nullptr).error.empty() && ChooseIsa("").error.empty(), "nothing asked for is the best");
  Expect(ChooseIsa("avx9").error.find("scalar") != std::string::npos,
         "an unknown level lists the available ones");
}

// Buffers cut from shared memory are apart, aligned, and outlive each other.
void TestLargePages() {
  constexpr int64_t kBytes[] = {0, 1, 64, 100, int64_t{3} << 20, int64_t{65} << 20, 5};
  std::vector<Buffer> buffers;
  for (int64_t size : kBytes) buffers.push_back(Buffer::OnLargePages(size));
  bool good = true;
  for (size_t i = 0; i < buffers.size(); ++i) {
    good &= static_cast<bool>(buffers[i]) && reinterpret_cast<uintptr_t>(buffers[i].bytes()) % 64 == 0;
    std::fill_n(buffers[i].bytes(), kBytes[i], static_cast<uint8_t>(i));
  }
  for (size_t i = 0; i < buffers.size(); i += 2) buffers[i] = Buffer();
  for (size_t i = 1; i < buffers.size(); i += 2) {
    const uint8_t* bytes = buffers[i].bytes();
    good &= std::all_of(bytes, bytes + kBytes[i], [i](uint8_t byte) { return byte == i; });
  }
  Expect(good, "buffers on large pages are memory of their own");
  buffers.clear();
  Expect(static_cast<bool>(Buffer::OnLargePages(7)), "there are buffers after the last one is gone");
}

void TestCrowding() {
  constexpr int64_t kMillisecond = 1'000'000;
  Crowding crowding;
  Expect(!crowding.Alone(), "sections are shared at first");
  crowding.EndedShared(3 * kMillisecond, 2 * kMillisecond);
  Expect(!crowding.Alone(), "a millisecond lost is no crowding");
  crowding.EndedShared(9 * kMillisecond, 6 * kMillisecond);
  Expect(crowding.Alone(), "a time slice lost is crowding");
  crowding.EndedAlone(Crowding::kAlone - 1);
  Expect(crowding.Alone(), "crowding lasts for a time");
  crowding.EndedAlone(1);
  Expect(!crowding.Alone(), "and then sections are shared again");
  for (int i = 0; i < 1000; ++i) crowding.EndedShared(3 * kMillisecond, 6 * kMillisecond);
  crowding.EndedShared(7 * kMillisecond, 0);
  Expect(!crowding.Alone(), "a time slice lost among much time won is no crowding");
  for (int i = 0; i < 3; ++i) crowding.EndedShared(7 * kMillisecond, 0);
  Expect(crowding.Alone(), "time that was won is forgotten after a few time slices lost");
}

void TestIsa(Isa isa) {
  TestHalves(isa);
  for (const char* name : kFormatNames) {
    for (int64_t k : kSizes) {
      for (const auto number : {RandomFinite, RandomFloat, RandomCoarse}) TestRows(name, isa, k, number);
      TestStrips(name, isa, k, k % 19 + 1);
    }
    for (const auto number : {RandomFloat, RandomCoarse})
      TestRows(name, isa, largest_too ? 1 << 18 : 1 << 10, number);
    TestStrips(name, isa, 1030, 18);  // more than one piece
    const char* const a_format = name;
    for (int64_t k : {1, 2, 7, 33, 65, 129, 300}) {
      TestMatMul<float>({a_format, name, 7, 33, k, 2}, isa);
      TestMatMul<Half>({a_format, name, 5, 31, k, 2}, isa);
    }
  }
  for (int64_t m : kSizes) {
    for (int64_t n : kSizes) TestMatMul<float>({nullptr, "amxfp4", m, n, 47, 1}, isa);
    for (int64_t k : kSizes) {
      TestMatMul<float>({"amxfp4", "mxfp4", m, 35, k, 1}, isa);
      TestMatMul<float>({"amxfp4", "nvfp4", m, 35, k, 1}, isa);
      TestMatMul<float>({nullptr, "mxfp6_e2m3", m, 35, k, 1}, isa);
    }
  }
  for (const char* name : {"dint4", "dint3", "int4", "int8"}) {
    for (int64_t k : kSizes) {
      for (int64_t m : {1, 2, 5, 17}) TestMatMul<float>({"int8", name, m, 19, k, 1}, isa);
      TestMatMul<Half>({"int8", name, 3, 21, k, 2}, isa);
    }
    if (!largest_too) continue;
    TestMatMul<float>({"int8", name, 3, 5, 20001, 1}, isa);  // more than one piece of k
    TestMatMul<float>({"int8", name, 1, 3, 70001, 1}, isa);  // more than sums of 32 bits can hold
    TestMatMul<float>({"int8", name, 25, 35, 777, 1}, isa);
    TestMatMul<float>({"amxfp4", name, 3, 35, 129, 1}, isa);
  }
}

}  // namespace
}  // namespace mxcompile

int main(int count, char** arguments) {
  std::vector<mxcompile::Isa> isas = mxcompile::VectorIsas();
  if (count > 1) {
    const mxcompile::IsaChoice choice = mxcompile::ChooseIsa(arguments[1]);
    if (!choice.error.empty()) {
      std::fprintf(stderr, "%s\n", choice.error.c_str());
      return 2;
    }
    isas = {choice.isa};
    mxcompile::largest_too = false;
  }
  mxcompile::TestFormatNames();
  mxcompile::TestIsaChoice();
  mxcompile::TestLargePages();
  mxcompile::TestCrowding();
  mxcompile::TestMappedPages();
  for (mxcompile::Isa isa : isas) {
    mxcompile::TestIsa(isa);
    mxcompile::TestPairProducts(isa);
    mxcompile::TestBf16Products(isa);
    mxcompile::TestNvfp4Products(isa);
  }
  std::printf("%d passed, %d failed\n", mxcompile::passed, mxcompile::failed);
  return mxcompile::failed == 0 ? 0 : 1;
}
