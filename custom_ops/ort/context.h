// Typed access to what onnxruntime hands to an op: attributes, tensors, threads, graph shapes.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "kernels/formats.h"
#include "kernels/parallel.h"
#include "ort/shape.h"
#include "ort/status.h"

namespace mxcompile {

// Attributes of a node at kernel creation. Errors name the op and the node.
class NodeInfo {
 public:
  NodeInfo(const abi::Api& api, const abi::KernelInfo* info, const char* op);

  const abi::Api& api() const { return api_; }
  // "MatMulBlock 'node name'": the beginning of every message.
  const std::string& where() const { return where_; }

  // Missing or of another type: OpError.
  std::string String(const char* name) const;
  // Missing without a default, or of another type: OpError.
  int64_t Int(const char* name, std::optional<int64_t> missing = std::nullopt) const;
  // A string attribute that names a format.
  Format FormatOf(const char* name) const;
  Format ParseFormatOf(const char* name, const std::string& value) const;

  // The tensor of a constant input, or null.
  const abi::Value* ConstantInput(size_t index) const;

 private:
  bool ReadString(const char* name, std::string* out) const;

  const abi::Api& api_;
  const abi::KernelInfo* info_;
  std::string where_;
};

// A tensor's shape, bytes and type.
struct Tensor {
  Shape shape;
  void* data = nullptr;

  template <typename T>
  T* As() const {
    return static_cast<T*>(data);
  }
  bool Empty() const;
};

Tensor TensorOf(const abi::Api& api, const abi::Value* value);

// Inputs, outputs and threads of one run.
class RunContext final : public Parallel {
 public:
  RunContext(const abi::Api& api, abi::KernelContext* context) : api_(api), context_(context) {}

  Tensor Input(size_t index) const;
  // Nothing if the optional input is not there.
  std::optional<Tensor> OptionalInput(size_t index) const;
  Tensor Output(size_t index, const Shape& shape) const;
  void StringOutput(size_t index, const std::string& text) const;

  // onnxruntime's thread pool, or where that loses time (kernels/crowding.h) the calling thread alone. A
  // single task always runs there.
  void For(int64_t count, const std::function<void(int64_t)>& body) override;

 private:
  const abi::Api& api_;
  abi::KernelContext* context_;
};

// A node during shape inference. Nothing here is an error: what is wrong is reported at kernel creation or in
// a run, where onnxruntime shows the message.
class InferContext {
 public:
  InferContext(const abi::Api& api, abi::ShapeInferContext* context) : api_(api), context_(context) {}

  // Nothing if the rank is unknown; onnxruntime shows that as rank 0.
  std::optional<GraphShape> Input(size_t index) const;
  abi::ElementType InputType(size_t index) const;
  std::optional<int64_t> Int(const char* name, std::optional<int64_t> missing = std::nullopt) const;
  std::optional<Format> FormatOf(const char* name) const;
  void SetOutput(size_t index, abi::ElementType type, const GraphShape& shape) const;

 private:
  // The input's type and shape, which belong to the context; null if there is no such input.
  abi::TensorTypeAndShapeInfo* Info(size_t index) const;

  const abi::Api& api_;
  abi::ShapeInferContext* context_;
};

}  // namespace mxcompile
