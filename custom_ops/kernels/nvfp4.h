// NVFP4's scales, for every instruction set; unnamed namespace: see elements.h.
//
// A row's scale bytes: the tensor scale, float32, then an E4M3 byte a block of 16.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/elements.h"

namespace mxcompile {
namespace {

struct NvScales {
  static constexpr int64_t kRowBytes = 4;
  static constexpr uint8_t kNaN = 0x7F;

  static float TensorScale(float tensor_amax) {
    const float scale = tensor_amax / (E4M3::kMaximum * E2M1::kMaximum);
    return scale == 0.0f ? 1.0f : scale;
  }

  // The byte of a finite block. Smaller scales than the smallest normal one are not used.
  static uint8_t Encode(float amax, float tensor_scale) {
    const float wanted = amax / E2M1::kMaximum / tensor_scale;
    return static_cast<uint8_t>(E4M3::EncodeToEven(std::clamp(wanted, E4M3::kMinNormal, E4M3::kMaximum)));
  }

  static float Decode(uint8_t byte, float tensor_scale) { return tensor_scale * E4M3::Decode(byte); }
};

}  // namespace
}  // namespace mxcompile
