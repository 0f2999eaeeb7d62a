// Loops over arrays of vectors that the compiler shall keep in registers: with a plain loop it may leave the
// array in memory, because it takes arrays apart before it unrolls loops. The function around must be
// [[gnu::flatten]], else a large one may call a body as a function. Unnamed namespace: see elements.h.
#pragma once

#include <type_traits>
#include <utility>

namespace mxcompile {
namespace {

template <typename Body, int... kIndices>
inline void UnrollOver(const Body& body, std::integer_sequence<int, kIndices...>) {
  (body(std::integral_constant<int, kIndices>()), ...);
}

// body(0) ... body(kCount - 1), with constants.
template <int kCount, typename Body>
inline void Unroll(const Body& body) {
  UnrollOver(body, std::make_integer_sequence<int, kCount>());
}

// Computes x here. GCC likes to move the additions of a long sum to its end, and to spill what they add.
template <typename Vector>
inline void KeepInOrder(Vector& x) {
#ifdef __x86_64__
  asm("" : "+x"(x));
#else
  asm("" : "+w"(x));
#endif
}

}  // namespace
}  // namespace mxcompile
