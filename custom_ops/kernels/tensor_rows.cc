// Data layout: a row kernel needs its elements side by side, as float32. Along the last axis they are
// (float16 is widened first); along another one a strip of 16 columns is transposed through a buffer. Both go
// in pieces of 512 elements, which never split a block, or in whole rows if the format wants them.
#include "kernels/tensor_rows.h"

#include <algorithm>
#include <type_traits>

#include "kernels/buffer.h"
#include "kernels/isa.h"

namespace mxcompile {
namespace {

constexpr int64_t kColumns = 16;
constexpr int64_t kPiece = 512;

void Widen(Isa, const float* x, int64_t size, float* y) { std::copy_n(x, size, y); }
void Widen(Isa isa, const Half* x, int64_t size, float* y) { HalfConvert(isa).half_to_float(x, size, y); }

template <typename T>
constexpr bool kWiden = !std::is_same_v<T, float>;

// The columns [column, column + columns) of one [k, inner] slab.
struct Strip {
  int64_t inner, column, columns;
};

// Room for a piece of up to 16 rows, where the tensor's own rows do not do.
class Workspace {
 public:
  Workspace(const Format& format, const AxisView& view, bool needed)
      : piece(format.Divisible() ? std::min(kPiece, view.k) : view.k),
        code_bytes(format.CodeBytes(piece)),
        scale_bytes(format.ScaleBytes(piece)),
        columns_(needed ? std::min(kColumns, view.inner) : 0),
        buffer_(columns_ * (piece * kFloat + code_bytes + scale_bytes)) {}

  explicit operator bool() const { return static_cast<bool>(buffer_); }
  float* Row(int64_t c) const { return buffer_.As<float>() + c * piece; }
  uint8_t* Codes(int64_t c) const { return buffer_.bytes() + columns_ * piece * kFloat + c * code_bytes; }
  uint8_t* Scales(int64_t c) const { return Codes(columns_) + c * scale_bytes; }

  const int64_t piece, code_bytes, scale_bytes;

 private:
  static constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
  int64_t columns_;
  Buffer buffer_;
};

template <typename T>
void GatherColumns(Isa isa, const Strip& strip, const T* x, int64_t size, const Workspace& work) {
  if (strip.inner == 1) return Widen(isa, x, size, work.Row(0));
  float line[kColumns];
  for (int64_t i = 0; i < size; ++i) {
    Widen(isa, x + i * strip.inner + strip.column, strip.columns, line);
    for (int64_t c = 0; c < strip.columns; ++c) work.Row(c)[i] = line[c];
  }
}

// Moves `count` items of `width` bytes a column between rows, `row_bytes` apart, and the tensor.
void ScatterBytes(const Strip& strip, int64_t count, int64_t width, const uint8_t* rows, int64_t row_bytes,
                  uint8_t* tensor) {
  for (int64_t i = 0; i < count; ++i) {
    uint8_t* line = tensor + (i * strip.inner + strip.column) * width;
    for (int64_t c = 0; c < strip.columns; ++c)
      std::copy_n(rows + c * row_bytes + i * width, width, line + c * width);
  }
}

void GatherBytes(const Strip& strip, int64_t count, int64_t width, const uint8_t* tensor, int64_t row_bytes,
                 uint8_t* rows) {
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t* line = tensor + (i * strip.inner + strip.column) * width;
    for (int64_t c = 0; c < strip.columns; ++c)
      std::copy_n(line + c * width, width, rows + c * row_bytes + i * width);
  }
}

// Where the codes and the scales of element `start` begin in a row.
int64_t CodesBefore(const Format& format, int64_t start) { return format.CodeBytes(start); }
int64_t ScalesBefore(const Format& format, int64_t start) {
  return start == 0 ? 0 : format.ScaleBytes(start);
}

template <typename T>
void QuantizeStrip(const Format& format, Isa isa, const AxisView& view, const Strip& strip, const T* x,
                   float amax, const Workspace& work, uint8_t* codes, uint8_t* scales) {
  const int64_t width = format.spec->scales_per_block;
  int64_t start = 0;
  do {  // once at least: a row of no elements may have scales
    const int64_t size = std::min(work.piece, view.k - start);
    GatherColumns(isa, strip, x + start * strip.inner, size, work);
    for (int64_t c = 0; c < strip.columns; ++c)
      format.Rows(isa).quantize(work.Row(c), format.Row(size), amax, work.Codes(c), work.Scales(c));
    ScatterBytes(strip, format.CodeBytes(size), 1, work.Codes(0), work.code_bytes,
                 codes + CodesBefore(format, start) * strip.inner);
    ScatterBytes(strip, format.ScaleGroups(size), width, work.Scales(0), work.scale_bytes,
                 scales + ScalesBefore(format, start) * strip.inner);
    start += work.piece;
  } while (start < view.k);
}

void DequantizeStrip(const Format& format, Isa isa, const AxisView& view, const Strip& strip,
                     const uint8_t* codes, const uint8_t* scales, const Workspace& work, float* x) {
  const int64_t width = format.spec->scales_per_block;
  for (int64_t start = 0; start < view.k; start += work.piece) {
    const int64_t size = std::min(work.piece, view.k - start);
    GatherBytes(strip, format.CodeBytes(size), 1, codes + CodesBefore(format, start) * strip.inner,
                work.code_bytes, work.Codes(0));
    GatherBytes(strip, format.ScaleGroups(size), width, scales + ScalesBefore(format, start) * strip.inner,
                work.scale_bytes, work.Scales(0));
    for (int64_t c = 0; c < strip.columns; ++c)
      format.Rows(isa).dequantize(work.Codes(c), work.Scales(c), format.Row(size), 0, size, work.Row(c));
    for (int64_t i = 0; i < size; ++i) {
      float* line = x + (start + i) * strip.inner + strip.column;
      for (int64_t c = 0; c < strip.columns; ++c) line[c] = work.Row(c)[i];
    }
  }
}

void QuantizeOneRow(const Format& format, Isa isa, const float* x, int64_t k, float amax, const Workspace&,
                    uint8_t* codes, uint8_t* scales) {
  format.Rows(isa).quantize(x, format.Row(k), amax, codes, scales);
}

void QuantizeOneRow(const Format& format, Isa isa, const Half* x, int64_t k, float amax,
                    const Workspace& work, uint8_t* codes, uint8_t* scales) {
  int64_t start = 0;
  do {  // see QuantizeStrip
    const int64_t size = std::min(work.piece, k - start);
    Widen(isa, x + start, size, work.Row(0));
    format.Rows(isa).quantize(work.Row(0), format.Row(size), amax, codes + CodesBefore(format, start),
                              scales + ScalesBefore(format, start));
    start += work.piece;
  } while (start < k);
}

// The largest magnitude in the finite blocks of a piece of a strip.
template <typename T>
float LargestInPiece(const Format& format, Isa isa, const Strip& strip, const T* x, int64_t size,
                     const Workspace& work) {
  const auto largest = format.Rows(isa).largest;
  if constexpr (!kWiden<T>) {
    if (strip.inner == 1) return largest(x, format.Row(size));
  }
  GatherColumns(isa, strip, x, size, work);
  float result = 0.0f;
  for (int64_t c = 0; c < strip.columns; ++c)
    result = std::max(result, largest(work.Row(c), format.Row(size)));
  return result;
}

// The slab and the columns of a unit.
Strip StripOf(const AxisView& view, int64_t unit, int64_t* slab) {
  const int64_t strips = CeilDiv(view.inner, kColumns);
  *slab = unit / strips;
  const int64_t column = unit % strips * kColumns;
  return {view.inner, column, std::min(kColumns, view.inner - column)};
}

}  // namespace

int64_t UnitCount(const AxisView& view) { return view.outer * CeilDiv(view.inner, kColumns); }

template <typename T>
bool QuantizeUnits(const Format& format, Isa isa, const AxisView& view, const T* x, float amax, int64_t begin,
                   int64_t end, uint8_t* codes, uint8_t* scales) {
  const int64_t slab_codes = format.CodeBytes(view.k) * view.inner,
                slab_scales = format.ScaleBytes(view.k) * view.inner;
  const Workspace work(format, view, kWiden<T> || view.inner != 1);
  if (!work) return false;
  for (int64_t unit = begin; unit < end; ++unit) {
    int64_t slab = 0;
    const Strip strip = StripOf(view, unit, &slab);
    const T* from = x + slab * view.k * view.inner;
    uint8_t* to_codes = codes + slab * slab_codes;
    uint8_t* to_scales = scales + slab * slab_scales;
    if (view.inner == 1) {
      QuantizeOneRow(format, isa, from, view.k, amax, work, to_codes, to_scales);
    } else {
      QuantizeStrip(format, isa, view, strip, from, amax, work, to_codes, to_scales);
    }
  }
  return true;
}

template bool QuantizeUnits<float>(const Format&, Isa, const AxisView&, const float*, float, int64_t, int64_t,
                                   uint8_t*, uint8_t*);
template bool QuantizeUnits<Half>(const Format&, Isa, const AxisView&, const Half*, float, int64_t, int64_t,
                                  uint8_t*, uint8_t*);

template <typename T>
std::optional<float> LargestInUnits(const Format& format, Isa isa, const AxisView& view, const T* x,
                                    int64_t begin, int64_t end) {
  const Workspace work(format, view, kWiden<T> || view.inner != 1);
  if (!work) return std::nullopt;
  float largest = 0.0f;
  for (int64_t unit = begin; unit < end; ++unit) {
    int64_t slab = 0;
    const Strip strip = StripOf(view, unit, &slab);
    const T* from = x + slab * view.k * view.inner;
    for (int64_t start = 0; start < view.k; start += work.piece) {
      const int64_t size = std::min(work.piece, view.k - start);
      largest = std::max(largest, LargestInPiece(format, isa, strip, from + start * view.inner, size, work));
    }
  }
  return largest;
}

template std::optional<float> LargestInUnits<float>(const Format&, Isa, const AxisView&, const float*,
                                                    int64_t, int64_t);
template std::optional<float> LargestInUnits<Half>(const Format&, Isa, const AxisView&, const Half*, int64_t,
                                                   int64_t);

bool DequantizeUnits(const Format& format, Isa isa, const AxisView& view, const uint8_t* codes,
                     const uint8_t* scales, int64_t begin, int64_t end, float* x) {
  const int64_t slab_codes = format.CodeBytes(view.k) * view.inner,
                slab_scales = format.ScaleBytes(view.k) * view.inner;
  const Workspace work(format, view, view.inner != 1);
  if (!work) return false;
  for (int64_t unit = begin; unit < end; ++unit) {
    int64_t slab = 0;
    const Strip strip = StripOf(view, unit, &slab);
    const uint8_t* from_codes = codes + slab * slab_codes;
    const uint8_t* from_scales = scales + slab * slab_scales;
    float* to = x + slab * view.k * view.inner;
    if (view.inner == 1) {
      format.Rows(isa).dequantize(from_codes, from_scales, format.Row(view.k), 0, view.k, to);
    } else {
      DequantizeStrip(format, isa, view, strip, from_codes, from_scales, work, to);
    }
  }
  return true;
}

}  // namespace mxcompile
