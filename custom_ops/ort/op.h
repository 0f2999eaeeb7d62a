// From a kernel class to onnxruntime's OrtCustomOp.
//
// A kernel class K has
//   static constexpr OpSignature kSignature;
//   explicit K(const NodeInfo&, Isa);          // reads attributes, checks, packs constants
//   void Compute(RunContext&);                 // one run
//   static void InferShapes(InferContext&);    // may do nothing
#pragma once

#include <initializer_list>

#include "kernels/isa.h"
#include "ort/context.h"

namespace mxcompile {

struct OpSignature {
  static constexpr size_t kMax = 4;
  const char* name;
  size_t input_count, output_count;
  abi::ElementType inputs[kMax];
  abi::ElementType outputs[kMax];
  size_t required_inputs;  // the others are optional
};

// What a registered op refers to; lives as long as the process.
struct OpHost {
  const abi::Api* api;
  Isa isa;
};

template <typename T>
constexpr abi::ElementType kElementType = abi::kUndefined;
template <>
inline constexpr abi::ElementType kElementType<float> = abi::kFloat;
template <>
inline constexpr abi::ElementType kElementType<Half> = abi::kFloat16;

template <typename K>
class Op : public abi::CustomOp {
 public:
  explicit Op(const OpHost& host) : abi::CustomOp(), host_(host) {
    version = abi::kApiVersion;
    DescribeSignature();
    CreateKernelV2 = [](const abi::CustomOp* op, const abi::Api* api, const abi::KernelInfo* info,
                        void** kernel) {
      return Guard(*api, [&] {
        *kernel = new Holder{K(NodeInfo(*api, info, K::kSignature.name), Self(op).host_.isa), api};
      });
    };
    KernelComputeV2 = [](void* kernel, abi::KernelContext* context) {
      auto& holder = *static_cast<Holder*>(kernel);
      return Guard(*holder.api, [&] {
        RunContext run(*holder.api, context);
        holder.kernel.Compute(run);
      });
    };
    KernelDestroy = [](void* kernel) { delete static_cast<Holder*>(kernel); };
    InferOutputShapeFn = [](const abi::CustomOp* op, abi::ShapeInferContext* context) -> abi::StatusPtr {
      const abi::Api& api = *Self(op).host_.api;
      // onnxruntime drops this status without releasing it.
      Succeeded(api, Guard(api, [&] {
                  InferContext infer(api, context);
                  K::InferShapes(infer);
                }));
      return nullptr;
    };
  }

 private:
  struct Holder {
    K kernel;
    const abi::Api* api;
  };

  static const Op& Self(const abi::CustomOp* op) { return *static_cast<const Op*>(op); }

  void DescribeSignature() {
    GetName = [](const abi::CustomOp*) { return K::kSignature.name; };
    GetExecutionProviderType = [](const abi::CustomOp*) -> const char* { return nullptr; };  // the CPU
    GetInputTypeCount = [](const abi::CustomOp*) { return K::kSignature.input_count; };
    GetOutputTypeCount = [](const abi::CustomOp*) { return K::kSignature.output_count; };
    GetInputType = [](const abi::CustomOp*, size_t index) { return K::kSignature.inputs[index]; };
    GetOutputType = [](const abi::CustomOp*, size_t index) { return K::kSignature.outputs[index]; };
    GetInputCharacteristic = [](const abi::CustomOp*, size_t index) {
      return index < K::kSignature.required_inputs ? abi::kRequired : abi::kOptional;
    };
    GetOutputCharacteristic = [](const abi::CustomOp*, size_t) { return abi::kRequired; };
    GetInputMemoryType = [](const abi::CustomOp*, size_t) { return abi::kMemTypeDefault; };
    GetVariadicInputMinArity = GetVariadicOutputMinArity = [](const abi::CustomOp*) { return 0; };
    GetVariadicInputHomogeneity = GetVariadicOutputHomogeneity = [](const abi::CustomOp*) { return 0; };
    GetStartVersion = [](const abi::CustomOp*) { return 1; };
    GetEndVersion = [](const abi::CustomOp*) { return 1; };
  }

  OpHost host_;
};

}  // namespace mxcompile
