// Memory of mapped files that nobody reads again.
#pragma once

#include <cstdint>

namespace mxcompile {

// Gives the system back the pages wholly inside [data, data + bytes) that it can bring again as they are:
// those of a mapped file, or of memory that is shared, that were never written to privately. All others stay,
// and so does every byte's value. Elsewhere than on Linux, and where the system does not say what a page is,
// nothing happens. Nobody may write to the range meanwhile.
void DropMappedPages(const void* data, int64_t bytes);

}  // namespace mxcompile
