// Rows of B by their format's row kernel, which products of any format begin with; unnamed namespace: see
// elements.h.
#pragma once

#include <cstring>

#include "kernels/kernels.h"

namespace mxcompile {
namespace {

// The elements [start, end) of `rows` rows of B from `first` on to [rows][kDecodeStep]; what does not exist
// is zeros.
inline void DecodeRows(const GemmArgs& args, int64_t first, int64_t rows, int64_t start, int64_t end,
                       float* to) {
  for (int64_t row = first; row < first + rows; ++row, to += kDecodeStep) {
    const int64_t size = row < args.b_rows ? end - start : 0;
    if (size > 0) {
      args.rows->dequantize(args.b.codes + row * args.b.code_bytes, args.b.scales + row * args.b.scale_bytes,
                            args.row, start, end, to);
    }
    std::memset(to + size, 0, static_cast<size_t>(kDecodeStep - size) * sizeof(float));
  }
}

}  // namespace
}  // namespace mxcompile
