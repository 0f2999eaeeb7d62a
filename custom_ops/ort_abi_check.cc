// Compares ort_abi.h with onnxruntime's own headers, slot by slot; built only with
// -DONNXRUNTIME_INCLUDE_DIR=.
#include <cstddef>

#include "onnxruntime_c_api.h"
#include "ort_abi.h"

#define CHECK_SLOT(slot)                                                       \
  static_assert(offsetof(OrtApi, slot) == offsetof(mxcompile::abi::Api, slot), \
                #slot " differs from onnxruntime")
CHECK_SLOT(CreateStatus);
CHECK_SLOT(GetErrorMessage);
CHECK_SLOT(CreateCustomOpDomain);
CHECK_SLOT(CustomOpDomain_Add);
CHECK_SLOT(AddCustomOpDomain);
CHECK_SLOT(GetTensorMutableData);
CHECK_SLOT(FillStringTensor);
CHECK_SLOT(CreateTensorTypeAndShapeInfo);
CHECK_SLOT(SetTensorElementType);
CHECK_SLOT(SetDimensions);
CHECK_SLOT(GetTensorElementType);
CHECK_SLOT(GetDimensionsCount);
CHECK_SLOT(GetDimensions);
CHECK_SLOT(GetSymbolicDimensions);
CHECK_SLOT(GetTensorTypeAndShape);
CHECK_SLOT(KernelInfoGetAttribute_float);
CHECK_SLOT(KernelInfoGetAttribute_int64);
CHECK_SLOT(KernelInfoGetAttribute_string);
CHECK_SLOT(KernelContext_GetInputCount);
CHECK_SLOT(KernelContext_GetInput);
CHECK_SLOT(KernelContext_GetOutput);
CHECK_SLOT(ReleaseStatus);
CHECK_SLOT(ReleaseTensorTypeAndShapeInfo);
CHECK_SLOT(ReleaseCustomOpDomain);
CHECK_SLOT(KernelInfo_GetNodeName);
CHECK_SLOT(KernelInfoGetConstantInput_tensor);
CHECK_SLOT(ShapeInferContext_GetInputCount);
CHECK_SLOT(ShapeInferContext_GetInputTypeShape);
CHECK_SLOT(ShapeInferContext_GetAttribute);
CHECK_SLOT(ShapeInferContext_SetOutputTypeShape);
CHECK_SLOT(SetSymbolicDimensions);
CHECK_SLOT(ReadOpAttr);
CHECK_SLOT(KernelContext_ParallelFor);

#define CHECK_MEMBER(member)                                                                 \
  static_assert(offsetof(OrtCustomOp, member) == offsetof(mxcompile::abi::CustomOp, member), \
                #member " differs")
CHECK_MEMBER(version);
CHECK_MEMBER(CreateKernel);
CHECK_MEMBER(GetName);
CHECK_MEMBER(GetExecutionProviderType);
CHECK_MEMBER(GetInputType);
CHECK_MEMBER(GetInputTypeCount);
CHECK_MEMBER(GetOutputType);
CHECK_MEMBER(GetOutputTypeCount);
CHECK_MEMBER(KernelCompute);
CHECK_MEMBER(KernelDestroy);
CHECK_MEMBER(GetInputCharacteristic);
CHECK_MEMBER(GetOutputCharacteristic);
CHECK_MEMBER(GetInputMemoryType);
CHECK_MEMBER(GetVariadicInputMinArity);
CHECK_MEMBER(GetVariadicInputHomogeneity);
CHECK_MEMBER(GetVariadicOutputMinArity);
CHECK_MEMBER(GetVariadicOutputHomogeneity);
CHECK_MEMBER(CreateKernelV2);
CHECK_MEMBER(KernelComputeV2);
CHECK_MEMBER(InferOutputShapeFn);
CHECK_MEMBER(GetStartVersion);
CHECK_MEMBER(GetEndVersion);
#if ORT_API_VERSION >= 18
CHECK_MEMBER(GetMayInplace);
CHECK_MEMBER(ReleaseMayInplace);
CHECK_MEMBER(GetAliasMap);
CHECK_MEMBER(ReleaseAliasMap);
#endif

using mxcompile::abi::ErrorCode;
static_assert(int{mxcompile::abi::kFail} == ORT_FAIL &&
              int{mxcompile::abi::kInvalidArgument} == ORT_INVALID_ARGUMENT &&
              int{mxcompile::abi::kRuntimeException} == ORT_RUNTIME_EXCEPTION);
static_assert(int{mxcompile::abi::kUndefined} == ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED &&
              int{mxcompile::abi::kFloat} == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT &&
              int{mxcompile::abi::kUint8} == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 &&
              int{mxcompile::abi::kString} == ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING &&
              int{mxcompile::abi::kFloat16} == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16);
static_assert(int{mxcompile::abi::kRequired} == INPUT_OUTPUT_REQUIRED &&
              int{mxcompile::abi::kOptional} == INPUT_OUTPUT_OPTIONAL &&
              int{mxcompile::abi::kVariadic} == INPUT_OUTPUT_VARIADIC);
static_assert(int{mxcompile::abi::kAttrInt} == ORT_OP_ATTR_INT &&
              int{mxcompile::abi::kAttrString} == ORT_OP_ATTR_STRING &&
              int{mxcompile::abi::kMemTypeDefault} == OrtMemTypeDefault);
