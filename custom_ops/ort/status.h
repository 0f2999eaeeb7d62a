// From C++ errors to onnxruntime statuses and back. Exceptions live inside this library only.
#pragma once

#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "ort_abi.h"

namespace mxcompile {

// An error of the caller: where, what was found, what is allowed. Becomes a status INVALID_ARGUMENT.
class OpError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A status that onnxruntime itself gave; handed back as it is.
class OrtError : public std::exception {
 public:
  explicit OrtError(abi::StatusPtr given) : status(given) {}
  const char* what() const noexcept override { return "onnxruntime returned an error"; }
  abi::StatusPtr status;
};

inline void Check(abi::StatusPtr status) {
  if (status != nullptr) throw OrtError(status);
}

// Runs `body` at the C boundary: whatever it throws leaves as a status.
template <typename Body>
abi::StatusPtr Guard(const abi::Api& api, Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const OrtError& error) {
    return error.status;
  } catch (const OpError& error) {
    return api.CreateStatus(abi::kInvalidArgument, error.what());
  } catch (const std::bad_alloc&) {
    return api.CreateStatus(abi::kRuntimeException, "mxcompile: out of memory");
  } catch (const std::exception& error) {
    return api.CreateStatus(abi::kFail, error.what());
  } catch (...) {
    return api.CreateStatus(abi::kFail, "mxcompile: unknown error");
  }
}

// True if the call succeeded; its status is released otherwise.
inline bool Succeeded(const abi::Api& api, abi::StatusPtr status) {
  if (status == nullptr) return true;
  api.ReleaseStatus(status);
  return false;
}

}  // namespace mxcompile
