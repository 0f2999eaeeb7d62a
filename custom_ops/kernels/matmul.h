// The whole matrix product Y = A . B^T + bias over batches: prepares A, walks the tiles, finishes Y.
#pragma once

#include <optional>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/formats.h"
#include "kernels/parallel.h"

namespace mxcompile {

struct MatMulProblem {
  Isa isa;
  std::optional<Format> a_format;  // none: A as it is
  Format b_format;
  int64_t m, n, k;
  int64_t a_batches, b_batches;
  // For each batch of Y, the batch of A and of B.
  std::vector<int64_t> a_batch, b_batch;
  bool constant_b = false;  // B is known before A: see PairKernels
};

template <typename T>
struct MatMulOperands {
  const T* a;               // [a_batches, m, k]
  const uint8_t* b_codes;   // [b_batches, n, code bytes]
  const uint8_t* b_scales;  // [b_batches, n, groups, s]
  const uint8_t* b_packed;  // by PackB, or null: packed on the way, if the set packs
  const T* bias;            // [n] or null
  T* y;                     // [batches, m, n]
};

// The kernel set for a pair of formats. For constant B all sets have one layout of B, whatever m.
const MatMulKernels& MatMulSet(const MatMulProblem& problem);

// B in the layout of a set that packs, [b_batches, panels, packed_bytes]. A null buffer: out of memory.
Buffer PackB(const MatMulKernels& kernels, const Format& format, int64_t b_batches, int64_t n, int64_t k,
             const uint8_t* codes, const uint8_t* scales);

// False: out of memory. T is float or Half. Bits do not depend on `parallel`.
template <typename T>
[[nodiscard]] bool RunMatMul(const MatMulProblem& problem, const MatMulOperands<T>& operands,
                             Parallel& parallel);

}  // namespace mxcompile
