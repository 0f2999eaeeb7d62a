// Data layout: a row kernel needs its elements side by side. Along the last axis they are (float16 is widened
// in pieces first); along another one a strip of 16 columns is transposed through a buffer on the stack, in
// pieces of 512 elements. 512 is a multiple of every block size, so a piece never splits a block.
#include "kernels/tensor_rows.h"

#include <algorithm>

#include "kernels/isa.h"

namespace mxcompile {
namespace {

constexpr int64_t kColumns = 16;
constexpr int64_t kPiece = 512;
constexpr int64_t kPieceCodes = kPiece / 2;
constexpr int64_t kMaxPieceScales = kPiece / 16 * 2;  // smallest block, most scales a block

void Widen(Isa, const float* x, int64_t size, float* y) { std::copy_n(x, size, y); }
void Widen(Isa isa, const Half* x, int64_t size, float* y) { HalfConvert(isa).half_to_float(x, size, y); }

// The columns [column, column + columns) of one [k, inner] slab, pieces [start, start + size) of the axis.
struct Strip {
  int64_t inner, column, columns;
};

template <typename T>
void GatherColumns(Isa isa, const Strip& strip, const T* x, int64_t size, float* rows) {
  float line[kColumns];
  for (int64_t i = 0; i < size; ++i) {
    Widen(isa, x + i * strip.inner + strip.column, strip.columns, line);
    for (int64_t c = 0; c < strip.columns; ++c) rows[c * kPiece + i] = line[c];
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

template <typename T>
void QuantizeStrip(const Format& format, Isa isa, const AxisView& view, const Strip& strip, const T* x,
                   uint8_t* codes, uint8_t* scales) {
  float rows[kColumns * kPiece];
  uint8_t row_codes[kColumns * kPieceCodes], row_scales[kColumns * kMaxPieceScales];
  const int64_t width = format.spec->scales_per_block;
  for (int64_t start = 0; start < view.k; start += kPiece) {
    const int64_t size = std::min(kPiece, view.k - start);
    GatherColumns(isa, strip, x + start * strip.inner, size, rows);
    for (int64_t c = 0; c < strip.columns; ++c) {
      format.Rows(isa).quantize(rows + c * kPiece, size, format.block, row_codes + c * kPieceCodes,
                                row_scales + c * kMaxPieceScales);
    }
    ScatterBytes(strip, CodeBytes(size), 1, row_codes, kPieceCodes, codes + start / 2 * strip.inner);
    ScatterBytes(strip, format.Blocks(size), width, row_scales, kMaxPieceScales,
                 scales + start / format.block * strip.inner * width);
  }
}

void DequantizeStrip(const Format& format, Isa isa, const AxisView& view, const Strip& strip,
                     const uint8_t* codes, const uint8_t* scales, float* x) {
  float rows[kColumns * kPiece];
  uint8_t row_codes[kColumns * kPieceCodes], row_scales[kColumns * kMaxPieceScales];
  const int64_t width = format.spec->scales_per_block;
  for (int64_t start = 0; start < view.k; start += kPiece) {
    const int64_t size = std::min(kPiece, view.k - start);
    GatherBytes(strip, CodeBytes(size), 1, codes + start / 2 * strip.inner, kPieceCodes, row_codes);
    GatherBytes(strip, format.Blocks(size), width, scales + start / format.block * strip.inner * width,
                kMaxPieceScales, row_scales);
    for (int64_t c = 0; c < strip.columns; ++c) {
      format.Rows(isa).dequantize(row_codes + c * kPieceCodes, row_scales + c * kMaxPieceScales, size,
                                  format.block, rows + c * kPiece);
    }
    for (int64_t i = 0; i < size; ++i) {
      float* line = x + (start + i) * strip.inner + strip.column;
      for (int64_t c = 0; c < strip.columns; ++c) line[c] = rows[c * kPiece + i];
    }
  }
}

void QuantizeOneRow(const Format& format, Isa isa, const float* x, int64_t k, uint8_t* codes,
                    uint8_t* scales) {
  format.Rows(isa).quantize(x, k, format.block, codes, scales);
}

void QuantizeOneRow(const Format& format, Isa isa, const Half* x, int64_t k, uint8_t* codes,
                    uint8_t* scales) {
  float piece[kPiece];
  for (int64_t start = 0; start < k; start += kPiece) {
    const int64_t size = std::min(kPiece, k - start);
    Widen(isa, x + start, size, piece);
    format.Rows(isa).quantize(piece, size, format.block, codes + start / 2,
                              scales + format.ScaleBytes(start));
  }
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
void QuantizeUnits(const Format& format, Isa isa, const AxisView& view, const T* x, int64_t begin,
                   int64_t end, uint8_t* codes, uint8_t* scales) {
  const int64_t slab_codes = CodeBytes(view.k) * view.inner,
                slab_scales = format.ScaleBytes(view.k) * view.inner;
  for (int64_t unit = begin; unit < end; ++unit) {
    int64_t slab = 0;
    const Strip strip = StripOf(view, unit, &slab);
    const T* from = x + slab * view.k * view.inner;
    uint8_t* to_codes = codes + slab * slab_codes;
    uint8_t* to_scales = scales + slab * slab_scales;
    if (view.inner == 1) {
      QuantizeOneRow(format, isa, from, view.k, to_codes, to_scales);
    } else {
      QuantizeStrip(format, isa, view, strip, from, to_codes, to_scales);
    }
  }
}

template void QuantizeUnits<float>(const Format&, Isa, const AxisView&, const float*, int64_t, int64_t,
                                   uint8_t*, uint8_t*);
template void QuantizeUnits<Half>(const Format&, Isa, const AxisView&, const Half*, int64_t, int64_t,
                                  uint8_t*, uint8_t*);

void DequantizeUnits(const Format& format, Isa isa, const AxisView& view, const uint8_t* codes,
                     const uint8_t* scales, int64_t begin, int64_t end, float* x) {
  const int64_t slab_codes = CodeBytes(view.k) * view.inner,
                slab_scales = format.ScaleBytes(view.k) * view.inner;
  for (int64_t unit = begin; unit < end; ++unit) {
    int64_t slab = 0;
    const Strip strip = StripOf(view, unit, &slab);
    const uint8_t* from_codes = codes + slab * slab_codes;
    const uint8_t* from_scales = scales + slab * slab_scales;
    float* to = x + slab * view.k * view.inner;
    if (view.inner == 1) {
      format.Rows(isa).dequantize(from_codes, from_scales, view.k, format.block, to);
    } else {
      DequantizeStrip(format, isa, view, strip, from_codes, from_scales, to);
    }
  }
}

}  // namespace mxcompile
