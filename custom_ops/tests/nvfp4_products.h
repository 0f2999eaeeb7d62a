// Products of nvfp4 with itself: tensor scales of any size, of each row its own.
#pragma once

#include "kernels/isa.h"

namespace mxcompile {

void TestNvfp4Products(Isa isa);

}  // namespace mxcompile
