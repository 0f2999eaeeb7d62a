// Which instruction set is in use: the best of the machine, or the one that MXCOMPILE_ISA asks for.
#pragma once

#include <string>

#include "kernels/kernels.h"

namespace mxcompile {

const char* IsaName(Isa isa);

// Whether this build has kernels for it and this CPU runs them.
bool IsaAvailable(Isa isa);

struct IsaChoice {
  Isa isa;
  std::string error;  // empty if the choice is valid; else what was found and what is allowed
};

// `requested` is the value of MXCOMPILE_ISA; null or empty asks for the best available.
IsaChoice ChooseIsa(const char* requested);

const ConvertKernels& HalfConvert(Isa isa);

}  // namespace mxcompile
