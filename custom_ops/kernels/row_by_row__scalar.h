// Products row by row, which the scalar sets share; unnamed namespace: see elements.h.
#pragma once

#include "kernels/kernels.h"

namespace mxcompile {
namespace {

// c[m, b_rows], each by kProduct(a, codes, scales, k), where A's rows are prepared blocks and B's are as they
// come. kPanel is the distance of rows of c.
template <typename Block, int64_t kPanel,
          float (*kProduct)(const Block*, const uint8_t*, const uint8_t*, int64_t)>
void MultiplyRowByRow(const GemmArgs& args) {
  for (int64_t i = 0; i < args.m; ++i) {
    const auto* a = reinterpret_cast<const Block*>(args.a + i * args.a_stride);
    for (int64_t j = 0; j < args.b_rows; ++j) {
      args.c[i * kPanel + j] = kProduct(a, args.b.codes + j * args.b.code_bytes,
                                        args.b.scales + j * args.b.scale_bytes, args.row.k);
    }
  }
}

inline int64_t NoScratch(const RowShape&) { return 0; }

}  // namespace
}  // namespace mxcompile
