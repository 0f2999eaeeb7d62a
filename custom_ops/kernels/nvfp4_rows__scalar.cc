// NVFP4 rows, one element at a time: the reference. Data layout: see kernels.h and nvfp4.h.
#include "kernels/nvfp4.h"

#include <cmath>
#include <cstring>

#include "kernels/row_kernels.h"

namespace mxcompile {
namespace {

float BlockAmax(const float* x, int64_t size) {
  float amax = 0.0f;
  for (int64_t i = 0; i < size; ++i) amax = std::max(amax, std::fabs(x[i]));
  return amax;
}

float Largest(const float* x, const RowShape& row) {
  float largest = 0.0f;
  for (int64_t start = 0; start < row.k; start += row.block) {
    const int64_t size = std::min(row.block, row.k - start);
    if (AllFinite(x + start, size)) largest = std::max(largest, BlockAmax(x + start, size));
  }
  return largest;
}

int EncodeElement(float x, float scale) {
  if (x == 0.0f) return 0;  // the scale of a tiny tensor may be 0
  const int code = E2M1::EncodeToEven(std::fabs(x) / scale);
  return x < 0.0f && code > 0 ? E2M1::Negative(code) : code;
}

void Quantize(const float* x, const RowShape& row, float amax, uint8_t* codes, uint8_t* scales) {
  std::memset(codes, 0, static_cast<size_t>(CodeBytes(row.k, E2M1::kBits)));
  const float tensor_scale = NvScales::TensorScale(amax);
  StoreFloat(tensor_scale, scales);
  scales += NvScales::kRowBytes;
  for (int64_t start = 0; start < row.k; start += row.block, ++scales) {
    const int64_t end = std::min(row.k, start + row.block);
    if (!AllFinite(x + start, end - start)) {
      *scales = NvScales::kNaN;
      continue;
    }
    *scales = NvScales::Encode(BlockAmax(x + start, end - start), tensor_scale);
    const float scale = NvScales::Decode(*scales, tensor_scale);
    for (int64_t i = start; i < end; ++i) PutCode(codes, i, E2M1::kBits, EncodeElement(x[i], scale));
  }
}

void Dequantize(const uint8_t* codes, const uint8_t* scales, const RowShape& row, int64_t begin, int64_t end,
                float* x) {
  const float tensor_scale = LoadFloat(scales);
  for (int64_t i = begin; i < end; ++i) {
    const uint8_t byte = scales[NvScales::kRowBytes + i / row.block];
    x[i - begin] = E2M1::Decode(GetCode(codes, i, E2M1::kBits)) * NvScales::Decode(byte, tensor_scale);
  }
}

}  // namespace

const RowKernels nvfp4_rows__scalar = {Quantize, Dequantize, Largest};

}  // namespace mxcompile
