// How the drivers in this folder reach threads, without knowing whose.
#pragma once

#include <cstdint>
#include <functional>

namespace mxcompile {

class Parallel {
 public:
  virtual ~Parallel() = default;
  // Calls body(0) ... body(count - 1), in any order, on any thread, and returns when all are done. `body`
  // must not throw.
  virtual void For(int64_t count, const std::function<void(int64_t)>& body) = 0;
};

}  // namespace mxcompile
