// The one exported function: registers the ops of the domain "mxcompile" with a session's options.
#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/isa.h"
#include "ort/dequantize_block.h"
#include "ort/library_info.h"
#include "ort/matmul_block.h"
#include "ort/quantize_block.h"

namespace mxcompile {
namespace {

// The ops and their domain, as one onnxruntime sees them. Sessions keep pointers into this: it is never
// freed.
struct Library {
  explicit Library(const OpHost& host)
      : api(host.api),
        quantize_float(host),
        quantize_half(host),
        dequantize(host),
        matmul_float(host),
        matmul_half(host),
        info(host) {}

  abi::CustomOpDomain* CreateDomain() const {
    abi::CustomOpDomain* created = nullptr;
    Check(api->CreateCustomOpDomain("mxcompile", &created));
    const std::initializer_list<const abi::CustomOp*> ops = {&quantize_float, &quantize_half, &dequantize,
                                                             &matmul_float,   &matmul_half,   &info};
    for (const abi::CustomOp* op : ops) Check(api->CustomOpDomain_Add(created, op));
    return created;
  }

  const abi::Api* api;
  Op<QuantizeBlock<float>> quantize_float;
  Op<QuantizeBlock<Half>> quantize_half;
  Op<DequantizeBlock> dequantize;
  Op<MatMulBlock<float>> matmul_float;
  Op<MatMulBlock<Half>> matmul_half;
  Op<LibraryInfo> info;
  abi::CustomOpDomain* domain = nullptr;
};

// The same library for every session: a domain per session would leak one each.
abi::CustomOpDomain* DomainFor(const abi::Api& api) {
  static const IsaChoice choice = ChooseIsa(std::getenv("MXCOMPILE_ISA"));
  if (!choice.error.empty()) throw OpError("mxcompile: " + choice.error);

  static std::mutex mutex;
  static auto* const libraries = new std::vector<std::unique_ptr<Library>>();  // outlives every session
  const std::lock_guard<std::mutex> lock(mutex);
  for (const auto& library : *libraries) {
    if (library->api == &api) return library->domain;
  }
  auto library = std::make_unique<Library>(OpHost{&api, choice.isa});
  library->domain = library->CreateDomain();
  libraries->push_back(std::move(library));
  return libraries->back()->domain;
}

}  // namespace
}  // namespace mxcompile

extern "C" __attribute__((visibility("default"))) mxcompile::abi::StatusPtr RegisterCustomOps(
    mxcompile::abi::SessionOptions* options, const mxcompile::abi::ApiBase* base) {
  using mxcompile::abi::Api;
  const Api* api = base->GetApi(mxcompile::abi::kApiVersion);
  if (api == nullptr) {
    // Too old for this library. An old onnxruntime still has the slot for its errors: the table is
    // append-only.
    const Api* oldest = base->GetApi(1);
    return oldest->CreateStatus(mxcompile::abi::kFail, "mxcompile needs onnxruntime 1.18 or newer");
  }
  return mxcompile::Guard(
      *api, [&] { mxcompile::Check(api->AddCustomOpDomain(options, mxcompile::DomainFor(*api))); });
}
