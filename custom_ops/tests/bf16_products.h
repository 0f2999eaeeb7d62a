// Products of all pairs of formats whose elements bfloat16 holds, with elements of any size.
#pragma once

#include "kernels/isa.h"

namespace mxcompile {

void TestBf16Products(Isa isa);

}  // namespace mxcompile
