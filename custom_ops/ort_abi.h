// The part of onnxruntime's C ABI that this library uses.
//
// onnxruntime's function table is versioned and append-only: a slot keeps its index for ever. Only the slots
// in use have a type here; the others are counted filler. The indices are asserted below, and
// ort_abi_check.cc compares them with real headers when CMake is given -DONNXRUNTIME_INCLUDE_DIR=. Names are
// onnxruntime's own.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mxcompile::abi {

// Newest table version asked for: 17 brought shape inference and ParallelFor, 18 the current OrtCustomOp
// layout.
constexpr uint32_t kApiVersion = 18;

struct Status;
struct Value;
struct TensorTypeAndShapeInfo;
struct SessionOptions;
struct CustomOpDomain;
struct KernelInfo;
struct KernelContext;
struct ShapeInferContext;
struct OpAttr;
struct CustomOp;

using StatusPtr = Status*;

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2, kRuntimeException = 6 };
enum ElementType : int { kUndefined = 0, kFloat = 1, kUint8 = 2, kString = 8, kFloat16 = 10 };
enum Characteristic : int { kRequired = 0, kOptional = 1, kVariadic = 2 };
enum MemType : int { kMemTypeDefault = 0 };
enum AttrType : int { kAttrInt = 1, kAttrString = 5 };

struct Api {
  StatusPtr (*CreateStatus)(ErrorCode code, const char* message);  // 0
  void* slot_1[1];
  const char* (*GetErrorMessage)(const Status* status);  // 2
  void* slot_3[23];
  StatusPtr (*CreateCustomOpDomain)(const char* domain, CustomOpDomain** out);                // 26
  StatusPtr (*CustomOpDomain_Add)(CustomOpDomain* domain, const CustomOp* op);                // 27
  StatusPtr (*AddCustomOpDomain)(SessionOptions* options, CustomOpDomain* custom_op_domain);  // 28
  void* slot_29[22];
  StatusPtr (*GetTensorMutableData)(Value* value, void** out);                             // 51
  StatusPtr (*FillStringTensor)(Value* value, const char* const* strings, size_t length);  // 52
  void* slot_53[4];
  StatusPtr (*CreateTensorTypeAndShapeInfo)(TensorTypeAndShapeInfo** out);                               // 57
  StatusPtr (*SetTensorElementType)(TensorTypeAndShapeInfo* info, ElementType type);                     // 58
  StatusPtr (*SetDimensions)(TensorTypeAndShapeInfo* info, const int64_t* values, size_t count);         // 59
  StatusPtr (*GetTensorElementType)(const TensorTypeAndShapeInfo* info, ElementType* out);               // 60
  StatusPtr (*GetDimensionsCount)(const TensorTypeAndShapeInfo* info, size_t* out);                      // 61
  StatusPtr (*GetDimensions)(const TensorTypeAndShapeInfo* info, int64_t* values, size_t count);         // 62
  StatusPtr (*GetSymbolicDimensions)(const TensorTypeAndShapeInfo* info, const char** names, size_t n);  // 63
  void* slot_64[1];
  StatusPtr (*GetTensorTypeAndShape)(const Value* value, TensorTypeAndShapeInfo** out);  // 65
  void* slot_66[19];
  StatusPtr (*KernelInfoGetAttribute_float)(const KernelInfo* info, const char* name, float* out);    // 85
  StatusPtr (*KernelInfoGetAttribute_int64)(const KernelInfo* info, const char* name, int64_t* out);  // 86
  StatusPtr (*KernelInfoGetAttribute_string)(const KernelInfo* info, const char* name, char* out,
                                             size_t* size);                             // 87
  StatusPtr (*KernelContext_GetInputCount)(const KernelContext* context, size_t* out);  // 88
  void* slot_89[1];
  StatusPtr (*KernelContext_GetInput)(const KernelContext* context, size_t index, const Value** out);  // 90
  StatusPtr (*KernelContext_GetOutput)(KernelContext* context, size_t index, const int64_t* dims, size_t rank,
                                       Value** out);  // 91
  void* slot_92[1];
  void (*ReleaseStatus)(Status* status);  // 93
  void* slot_94[5];
  void (*ReleaseTensorTypeAndShapeInfo)(TensorTypeAndShapeInfo* info);  // 99
  void* slot_100[1];
  void (*ReleaseCustomOpDomain)(CustomOpDomain* domain);  // 101
  void* slot_102[142];
  StatusPtr (*KernelInfo_GetNodeName)(const KernelInfo* info, char* out, size_t* size);  // 244
  void* slot_245[4];
  StatusPtr (*KernelInfoGetConstantInput_tensor)(const KernelInfo* info, size_t index, int* is_constant,
                                                 const Value** out);  // 249
  void* slot_250[17];
  StatusPtr (*ShapeInferContext_GetInputCount)(const ShapeInferContext* context, size_t* out);  // 267
  StatusPtr (*ShapeInferContext_GetInputTypeShape)(const ShapeInferContext* context, size_t index,
                                                   TensorTypeAndShapeInfo** info);  // 268
  StatusPtr (*ShapeInferContext_GetAttribute)(const ShapeInferContext* context, const char* name,
                                              const OpAttr** attr);  // 269
  StatusPtr (*ShapeInferContext_SetOutputTypeShape)(const ShapeInferContext* context, size_t index,
                                                    const TensorTypeAndShapeInfo* info);               // 270
  StatusPtr (*SetSymbolicDimensions)(TensorTypeAndShapeInfo* info, const char** names, size_t count);  // 271
  StatusPtr (*ReadOpAttr)(const OpAttr* attr, AttrType type, void* data, size_t length, size_t* out);  // 272
  void* slot_273[1];
  StatusPtr (*KernelContext_ParallelFor)(const KernelContext* context, void (*fn)(void*, size_t),
                                         size_t total, size_t num_batch, void* user_data);  // 274
};

struct ApiBase {
  const Api* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

// An op's description: onnxruntime calls back through these. Version 18; a null pointer where one is allowed.
struct CustomOp {
  uint32_t version;
  void* (*CreateKernel)(const CustomOp* op, const Api* api, const KernelInfo* info);
  const char* (*GetName)(const CustomOp* op);
  const char* (*GetExecutionProviderType)(const CustomOp* op);
  ElementType (*GetInputType)(const CustomOp* op, size_t index);
  size_t (*GetInputTypeCount)(const CustomOp* op);
  ElementType (*GetOutputType)(const CustomOp* op, size_t index);
  size_t (*GetOutputTypeCount)(const CustomOp* op);
  void (*KernelCompute)(void* kernel, KernelContext* context);
  void (*KernelDestroy)(void* kernel);
  Characteristic (*GetInputCharacteristic)(const CustomOp* op, size_t index);
  Characteristic (*GetOutputCharacteristic)(const CustomOp* op, size_t index);
  MemType (*GetInputMemoryType)(const CustomOp* op, size_t index);
  int (*GetVariadicInputMinArity)(const CustomOp* op);
  int (*GetVariadicInputHomogeneity)(const CustomOp* op);
  int (*GetVariadicOutputMinArity)(const CustomOp* op);
  int (*GetVariadicOutputHomogeneity)(const CustomOp* op);
  StatusPtr (*CreateKernelV2)(const CustomOp* op, const Api* api, const KernelInfo* info, void** kernel);
  StatusPtr (*KernelComputeV2)(void* kernel, KernelContext* context);
  StatusPtr (*InferOutputShapeFn)(const CustomOp* op, ShapeInferContext* context);
  int (*GetStartVersion)(const CustomOp* op);
  int (*GetEndVersion)(const CustomOp* op);
  size_t (*GetMayInplace)(int** input_index, int** output_index);
  void (*ReleaseMayInplace)(int* input_index, int* output_index);
  size_t (*GetAliasMap)(int** input_index, int** output_index);
  void (*ReleaseAliasMap)(int* input_index, int* output_index);
};

#define MXC_ASSERT_SLOT(slot, index) \
  static_assert(offsetof(Api, slot) == (index) * sizeof(void*), #slot " is not in its slot")
MXC_ASSERT_SLOT(GetErrorMessage, 2);
MXC_ASSERT_SLOT(CreateCustomOpDomain, 26);
MXC_ASSERT_SLOT(GetTensorMutableData, 51);
MXC_ASSERT_SLOT(CreateTensorTypeAndShapeInfo, 57);
MXC_ASSERT_SLOT(GetTensorTypeAndShape, 65);
MXC_ASSERT_SLOT(KernelInfoGetAttribute_float, 85);
MXC_ASSERT_SLOT(KernelContext_GetInput, 90);
MXC_ASSERT_SLOT(ReleaseStatus, 93);
MXC_ASSERT_SLOT(ReleaseTensorTypeAndShapeInfo, 99);
MXC_ASSERT_SLOT(ReleaseCustomOpDomain, 101);
MXC_ASSERT_SLOT(KernelInfo_GetNodeName, 244);
MXC_ASSERT_SLOT(KernelInfoGetConstantInput_tensor, 249);
MXC_ASSERT_SLOT(ShapeInferContext_GetInputCount, 267);
MXC_ASSERT_SLOT(KernelContext_ParallelFor, 274);
#undef MXC_ASSERT_SLOT
static_assert(sizeof(CustomOp) == 26 * sizeof(void*), "OrtCustomOp of version 18 has 26 members");

}  // namespace mxcompile::abi
