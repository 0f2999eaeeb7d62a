// Format names, and what a format is made of.
#pragma once

#include <string>
#include <string_view>

#include "kernels/kernels.h"

namespace mxcompile {

// A format of the table with a block size: "amxfp4", "amxfp4_b16".
struct Format {
  const FormatSpec* spec = nullptr;
  int64_t block = 0;

  int64_t Blocks(int64_t k) const { return CeilDiv(k, block); }
  int64_t ScaleBytes(int64_t k) const { return Blocks(k) * spec->scales_per_block; }
  const RowKernels& Rows(Isa isa) const { return *spec->rows[static_cast<int>(isa)]; }
  const MatMulKernels& MatMul(Isa isa) const { return *spec->matmul[static_cast<int>(isa)]; }
};

// The bytes of a row's codes: two elements each.
static constexpr int64_t CodeBytes(int64_t k) { return CeilDiv(k, 2); }

// Reads a name. On failure gives false and an error that says what was found and what is allowed.
bool ParseFormat(std::string_view name, Format* format, std::string* error);

}  // namespace mxcompile
