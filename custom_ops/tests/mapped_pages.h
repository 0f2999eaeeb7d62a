// Giving back mapped memory: which pages go, and that nothing is lost.
#pragma once

namespace mxcompile {

void TestMappedPages();

}  // namespace mxcompile
