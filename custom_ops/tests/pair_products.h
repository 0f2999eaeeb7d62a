// Products of 4-bit floats with their own format: constant B and B from the graph, few rows and many.
#pragma once

#include "kernels/isa.h"

namespace mxcompile {

void TestPairProducts(Isa isa);

}  // namespace mxcompile
