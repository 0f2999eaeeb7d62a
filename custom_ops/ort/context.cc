#include "ort/context.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>

#include "kernels/crowding.h"

namespace mxcompile {
namespace {

std::string NodeName(const abi::Api& api, const abi::KernelInfo* info) {
  size_t size = 0;
  if (!Succeeded(api, api.KernelInfo_GetNodeName(info, nullptr, &size)) || size < 2) return "";
  std::string name(size, '\0');
  if (!Succeeded(api, api.KernelInfo_GetNodeName(info, name.data(), &size))) return "";
  name.resize(size - 1);
  return name;
}

using InfoPtr = std::unique_ptr<abi::TensorTypeAndShapeInfo, void (*)(abi::TensorTypeAndShapeInfo*)>;

Shape Dimensions(const abi::Api& api, const abi::TensorTypeAndShapeInfo* info) {
  size_t rank = 0;
  Check(api.GetDimensionsCount(info, &rank));
  Shape shape(rank);
  Check(api.GetDimensions(info, shape.data(), rank));
  return shape;
}

int64_t Nanoseconds() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Tasks that threads share, and how fast the calling thread is at them.
struct Section {
  const std::function<void(int64_t)>& body;
  int64_t count;
  std::thread::id caller;
  int64_t last;                 // when the calling thread ended a task, or the section began
  int64_t own = 0;              // its tasks
  int64_t fastest = INT64_MAX;  // of them, without the last one of all, which may be smaller
};

void RunTask(void* data, size_t index) {
  auto* const section = static_cast<Section*>(data);
  section->body(static_cast<int64_t>(index));
  if (std::this_thread::get_id() != section->caller) return;
  const int64_t now = Nanoseconds(), time = now - section->last;
  if (static_cast<int64_t>(index) < section->count - 1) section->fastest = std::min(section->fastest, time);
  section->last = now;
  ++section->own;
}

}  // namespace

NodeInfo::NodeInfo(const abi::Api& api, const abi::KernelInfo* info, const char* op)
    : api_(api), info_(info), where_(op) {
  const std::string name = NodeName(api, info);
  if (!name.empty()) where_ += " '" + name + "'";
}

bool NodeInfo::ReadString(const char* name, std::string* out) const {
  size_t size = 0;
  if (!Succeeded(api_, api_.KernelInfoGetAttribute_string(info_, name, nullptr, &size))) return false;
  out->assign(size, '\0');
  Check(api_.KernelInfoGetAttribute_string(info_, name, out->data(), &size));
  out->resize(size - 1);  // without the terminator
  return true;
}

std::string NodeInfo::String(const char* name) const {
  std::string text;
  if (!ReadString(name, &text)) throw OpError(where_ + ": needs the attribute " + name + ", a string");
  return text;
}

int64_t NodeInfo::Int(const char* name, std::optional<int64_t> missing) const {
  int64_t value = 0;
  if (Succeeded(api_, api_.KernelInfoGetAttribute_int64(info_, name, &value))) return value;
  // onnxruntime has one error for "missing" and "of another type": another type can be read as what it is.
  float number = 0;
  std::string text;
  const bool other_type =
      Succeeded(api_, api_.KernelInfoGetAttribute_float(info_, name, &number)) || ReadString(name, &text);
  if (missing && !other_type) return *missing;
  throw OpError(where_ + ": needs the attribute " + name + ", an integer" +
                (other_type ? "; found one of another type" : ""));
}

Format NodeInfo::FormatOf(const char* name) const { return ParseFormatOf(name, String(name)); }

Format NodeInfo::ParseFormatOf(const char* name, const std::string& value) const {
  Format format;
  std::string error;
  if (!ParseFormat(value, &format, &error)) throw OpError(where_ + ": attribute " + name + ": " + error);
  return format;
}

const abi::Value* NodeInfo::ConstantInput(size_t index) const {
  int is_constant = 0;
  const abi::Value* value = nullptr;
  if (!Succeeded(api_, api_.KernelInfoGetConstantInput_tensor(info_, index, &is_constant, &value)))
    return nullptr;
  return is_constant != 0 ? value : nullptr;
}

bool Tensor::Empty() const { return std::find(shape.begin(), shape.end(), 0) != shape.end(); }

Tensor TensorOf(const abi::Api& api, const abi::Value* value) {
  abi::TensorTypeAndShapeInfo* info = nullptr;
  Check(api.GetTensorTypeAndShape(value, &info));
  const InfoPtr owner(info, api.ReleaseTensorTypeAndShapeInfo);
  Tensor tensor;
  tensor.shape = Dimensions(api, info);
  // The C API has one accessor, for writing; inputs are only read.
  Check(api.GetTensorMutableData(const_cast<abi::Value*>(value), &tensor.data));
  return tensor;
}

Tensor RunContext::Input(size_t index) const {
  const abi::Value* value = nullptr;
  Check(api_.KernelContext_GetInput(context_, index, &value));
  if (value == nullptr) throw OpError("mxcompile: input " + std::to_string(index) + " is missing");
  return TensorOf(api_, value);
}

std::optional<Tensor> RunContext::OptionalInput(size_t index) const {
  size_t count = 0;
  Check(api_.KernelContext_GetInputCount(context_, &count));
  if (index >= count) return std::nullopt;
  const abi::Value* value = nullptr;
  Check(api_.KernelContext_GetInput(context_, index, &value));
  if (value == nullptr) return std::nullopt;
  return TensorOf(api_, value);
}

Tensor RunContext::Output(size_t index, const Shape& shape) const {
  abi::Value* value = nullptr;
  Check(api_.KernelContext_GetOutput(context_, index, shape.data(), shape.size(), &value));
  Tensor tensor;
  tensor.shape = shape;
  Check(api_.GetTensorMutableData(value, &tensor.data));
  return tensor;
}

void RunContext::StringOutput(size_t index, const std::string& text) const {
  abi::Value* value = nullptr;
  Check(api_.KernelContext_GetOutput(context_, index, nullptr, 0, &value));
  const char* pointer = text.c_str();
  Check(api_.FillStringTensor(value, &pointer, 1));
}

void RunContext::For(int64_t count, const std::function<void(int64_t)>& body) {
  static Crowding crowding;
  if (count <= 0) return;
  if (count == 1) return body(0);
  const int64_t start = Nanoseconds();
  if (crowding.Alone()) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return crowding.EndedAlone(Nanoseconds() - start);
  }
  Section section{body, count, std::this_thread::get_id(), start};
  const auto total = static_cast<size_t>(count);
  // num_batch = total: one batch a task. 0 would mean "no batches", which is far slower on small work.
  Check(api_.KernelContext_ParallelFor(context_, RunTask, total, total, &section));
  const bool shared = section.own < count, measured = section.fastest != INT64_MAX;
  if (shared && measured) crowding.EndedShared(Nanoseconds() - start, count * section.fastest);
}

abi::TensorTypeAndShapeInfo* InferContext::Info(size_t index) const {
  size_t count = 0;
  abi::TensorTypeAndShapeInfo* info = nullptr;
  Check(api_.ShapeInferContext_GetInputCount(context_, &count));
  if (index >= count) return nullptr;
  return Succeeded(api_, api_.ShapeInferContext_GetInputTypeShape(context_, index, &info)) ? info : nullptr;
}

abi::ElementType InferContext::InputType(size_t index) const {
  abi::ElementType type = abi::kUndefined;
  const abi::TensorTypeAndShapeInfo* const info = Info(index);
  if (info != nullptr) Check(api_.GetTensorElementType(info, &type));
  return type;
}

std::optional<GraphShape> InferContext::Input(size_t index) const {
  const abi::TensorTypeAndShapeInfo* const info = Info(index);
  if (info == nullptr) return std::nullopt;
  const Shape values = Dimensions(api_, info);
  if (values.empty()) return std::nullopt;
  std::vector<const char*> names(values.size(), nullptr);
  Check(api_.GetSymbolicDimensions(info, names.data(), names.size()));
  GraphShape shape(values.size());
  for (size_t i = 0; i < shape.size(); ++i) {
    const bool named = names[i] != nullptr && names[i][0] != '\0';
    shape[i] = named ? Dim{-1, names[i]} : Dim{std::max<int64_t>(values[i], -1), ""};
  }
  return shape;
}

std::optional<int64_t> InferContext::Int(const char* name, std::optional<int64_t> missing) const {
  const abi::OpAttr* attr = nullptr;
  if (!Succeeded(api_, api_.ShapeInferContext_GetAttribute(context_, name, &attr))) return missing;
  int64_t value = 0;
  size_t size = 0;
  if (!Succeeded(api_, api_.ReadOpAttr(attr, abi::kAttrInt, &value, sizeof(value), &size)))
    return std::nullopt;
  return value;
}

std::optional<Format> InferContext::FormatOf(const char* name) const {
  const abi::OpAttr* attr = nullptr;
  // Longer than any format's name. Newer versions write and count no terminator: the zeros are one.
  char text[64] = {};
  size_t size = 0;
  if (!Succeeded(api_, api_.ShapeInferContext_GetAttribute(context_, name, &attr))) return std::nullopt;
  if (!Succeeded(api_, api_.ReadOpAttr(attr, abi::kAttrString, text, sizeof(text) - 1, &size)))
    return std::nullopt;
  Format format;
  std::string error;
  if (!ParseFormat(text, &format, &error)) return std::nullopt;
  return format;
}

void InferContext::SetOutput(size_t index, abi::ElementType type, const GraphShape& shape) const {
  // onnxruntime would write an unknown dimension without a name as the number -1, and it takes equal names
  // for equal values when it plans memory: so each gets a name of its own.
  static std::atomic<uint64_t> counter{0};
  Shape values;
  std::vector<std::string> names;
  for (const Dim& dim : shape) {
    values.push_back(dim.known() ? dim.value : -1);
    names.push_back(dim.known() || !dim.name.empty() ? dim.name
                                                     : "mxcompile_dim_" + std::to_string(counter++));
  }
  std::vector<const char*> pointers;
  for (const std::string& name : names) pointers.push_back(name.c_str());

  abi::TensorTypeAndShapeInfo* info = nullptr;
  Check(api_.CreateTensorTypeAndShapeInfo(&info));
  const InfoPtr owner(info, api_.ReleaseTensorTypeAndShapeInfo);
  Check(api_.SetTensorElementType(info, type));
  Check(api_.SetDimensions(info, values.data(), values.size()));
  Check(api_.SetSymbolicDimensions(info, pointers.data(), pointers.size()));
  Check(api_.ShapeInferContext_SetOutputTypeShape(context_, index, info));
}

}  // namespace mxcompile
