// Format names, and what a format is made of.
#pragma once

#include <string>
#include <string_view>

#include "kernels/kernels.h"

namespace mxcompile {

// A format of the table with a block size: "amxfp4", "amxfp4_b16".
struct Format {
  const FormatSpec* spec = nullptr;
  int64_t block = 0;  // 0: the whole row

  RowShape Row(int64_t k) const { return {k, block != 0 ? block : k > 0 ? k : 1}; }
  int64_t CodeBytes(int64_t k) const { return mxcompile::CodeBytes(k, spec->bits); }
  int64_t ScaleGroups(int64_t k) const { return spec->row_groups + CeilDiv(k, Row(k).block); }
  int64_t ScaleBytes(int64_t k) const { return ScaleGroups(k) * spec->scales_per_block; }
  // Whether a piece of a row, a whole number of blocks, can be quantized by itself.
  bool Divisible() const { return block != 0 && !spec->row_bound; }
  const RowKernels& Rows(Isa isa) const { return *BestUpTo(spec->rows, isa); }
};

// Reads a name. On failure gives false and an error that says what was found and what is allowed.
bool ParseFormat(std::string_view name, Format* format, std::string* error);

}  // namespace mxcompile
