// int8 rows times rows of integers with AVX512 VNNI and VBMI. What is computed: int8_rows_form.h.
//
// Data layout: B as in fp4_tiles__avx512.h without scales in the records, behind a PanelHeader. A is rows of
// 32-bit units, interleaved in tiles of up to 12 rows: codes, 8 units for each 32 of them, in the order of a
// vector's nibbles, then RowEnd.
//
// vpdpbusd multiplies bytes without sign, A's codes, by bytes with sign, B's units: the sum of (qa - za) * u
// is that of qa * u less za times the sum of u, which the header has. A unit is a table entry by vpermb, less
// z; with half steps less 2z, except for the odd entries, which are the half steps. A zero point beyond
// kMaxZero, or k beyond kMaxSize, could leave 8 or 32 bits: such a panel is multiplied one element at a time.
//
// Codes of 3 bits are packed as if they had 4. Codes of 8 bits are packed as bytes, less 128, in the layout
// of scratch; what is missing, 128 - z times the sum of (qa - za), is added at the end. Sums may wrap on the
// way, the last one fits 32 bits.
//
// Register plan: 12 x 2 sums (12 rows, 32 columns), 2 vectors of B, a broadcast of A. One row has 4 x 2 sums,
// two and three rows 2 x 2 each, which cover the latency of vpdpbusd. Up to 6 rows decode B in registers;
// more of them take it from scratch, 512 k at a time (16 KB, L1). Bound: vpdpbusd, two a cycle; for one row
// reading B.
#include <array>

#include "kernels/int8_rows_form.h"
#include "kernels/integer_records__avx512vnni.h"
#include "kernels/matmul_kernels.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kAhead = 12288;
constexpr int kMaxTile = 12, kMaxDirect = 6;
constexpr int64_t kPiece = 512;  // elements of k
constexpr int kMaxZero = 63;
// 255 * 127 * 2^16 and 255 * 255 * 2^15 are less than 2^31.
template <typename Number>
constexpr int64_t kMaxSize = Number::kBits == 8 ? 1 << 15 : 1 << 16;

struct PanelHeader {
  int32_t plain;  // whether the panel may be multiplied fast
  int32_t unused[15];
  uint32_t zeros[kTilePanel];  // what is subtracted from a row's table entries, in four bytes
  float unit_scales[kTilePanel];
  int32_t unit_sums[kTilePanel];
  int32_t offsets[kTilePanel];  // what units lack
};
constexpr auto kPanelHeader = static_cast<int64_t>(sizeof(PanelHeader));
static_assert(kPanelHeader % 64 == 0, "records begin at a line");

struct RowEnd {
  int32_t z;
  float scale;
  int32_t sum;  // of code - z
};

template <typename Number>
inline __m512i UnitTable() {
  alignas(16) int8_t table[16];
  for (int code = 0; code < 16; ++code) table[code] = static_cast<int8_t>(Number::Units(code, 0));
  return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
}

// Asks for the line that has its turn kAhead bytes later.
inline void AskFor(const uint8_t* line) {
  _mm_prefetch(reinterpret_cast<const char*>(line + kAhead), _MM_HINT_T0);
}

// Where a tile finds B: decoded on the way from records, or in scratch, [blocks][8][32] words.
template <typename Number>
class Records {
 public:
  explicit Records(const uint8_t* packed)
      : record_(packed + kPanelHeader),
        table_(UnitTable<Number>()),
        zeros_{LoadLine(HeaderOf(packed).zeros), LoadLine(HeaderOf(packed).zeros + kTileGroup)} {
    for (int64_t line = 0; line < kPanelHeader; line += 64) AskFor(packed + line);
  }

  static const PanelHeader& HeaderOf(const uint8_t* packed) {
    return *reinterpret_cast<const PanelHeader*>(packed);
  }

  // One of the eight lines of the record.
  inline void Prefetch(int step) const { AskFor(record_ + 64 * step); }
  inline __m512i Words(int step, int group) const {
    const __m512i lanes = LoadLine(record_ + group * kGroupCodes + step / 2 * 64);
    const __m512i units =
        _mm512_permutexvar_epi8(step % 2 == 0 ? lanes : _mm512_srli_epi32(lanes, 4), table_);
    if constexpr (!Number::kHalfSteps) return _mm512_sub_epi8(units, zeros_[group]);
    const __mmask64 whole = _mm512_testn_epi8_mask(units, _mm512_set1_epi8(1));
    return _mm512_mask_sub_epi8(units, whole, units, zeros_[group]);
  }
  inline void Next(int64_t blocks = 1) { record_ += blocks * Layout::kRecord; }

 private:
  const uint8_t* record_;
  __m512i table_;
  __m512i zeros_[2];
};

// Of 8-bit codes: nothing to decode.
template <>
class Records<Int8> {
 public:
  explicit Records(const uint8_t* packed) : words_(packed + kPanelHeader) {}

  static const PanelHeader& HeaderOf(const uint8_t* packed) {
    return *reinterpret_cast<const PanelHeader*>(packed);
  }
  inline void Prefetch(int step) const {
    AskFor(words_ + 128 * step);
    AskFor(words_ + 128 * step + 64);
  }
  inline __m512i Words(int step, int group) const { return LoadLine(words_ + step * 128 + group * 64); }
  inline void Next() { words_ += kDecoded; }

 private:
  const uint8_t* words_;
};

class Decoded {
 public:
  explicit Decoded(const uint8_t* words) : words_(words) {}

  inline void Prefetch(int) const {}
  inline __m512i Words(int step, int group) const { return LoadLine(words_ + step * 128 + group * 64); }
  inline void Next() { words_ += kDecoded; }

 private:
  const uint8_t* words_;
};

template <typename Number>
int64_t PackedBytes(const RowShape& row) {
  const int64_t block_bytes = Number::kBits == 8 ? kDecoded : Layout::kRecord;
  return kPanelHeader + CeilDiv(row.k, kPairBlock) * block_bytes;
}

// The sums of units of a packed panel: products with ones. The codes that fill the last block are not units.
template <typename Number>
void AddUp(int64_t k, const uint8_t* packed, PanelHeader* header) {
  Records<Number> records(packed);
  __m512i sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  const int64_t blocks = CeilDiv(k, kPairBlock);
  for (int64_t b = 0; b < blocks; ++b, records.Next()) {
    for (int step = 0; step < 8; ++step) {
      for (int g = 0; g < 2; ++g)
        sums[g] = _mm512_dpbusd_epi32(sums[g], _mm512_set1_epi8(1), records.Words(step, g));
    }
  }
  for (int g = 0; g < 2; ++g) _mm512_storeu_si512(header->unit_sums + g * kTileGroup, sums[g]);
  const auto filled = static_cast<int32_t>(blocks * kPairBlock - k);
  for (int64_t r = 0; r < kTilePanel; ++r)
    header->unit_sums[r] += filled * static_cast<int32_t>(header->zeros[r] & 0xFF);
}

template <typename Number>
void Pack(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed) {
  PackRecords<Number>(b, rows, row, packed + kPanelHeader);
  auto* header = reinterpret_cast<PanelHeader*>(packed);
  *header = {};
  header->plain = row.k <= kMaxSize<Number> ? 1 : 0;
  if (row.k == 0) return;
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* scales = b.scales + r * b.scale_bytes;
    const int z = Number::Load(scales).z;
    if constexpr (Number::kBits == 8) {
      header->offsets[r] = 128 - z;
    } else {
      if (z > kMaxZero) header->plain = 0;
      header->zeros[r] = 0x01010101u * static_cast<uint8_t>(-Number::Units(0, z));
    }
    header->unit_scales[r] = UnitScale<Number>(scales);
  }
  AddUp<Number>(row.k, packed, header);
}

int64_t RowBytes(int64_t k) {
  return CeilDiv(k, kPairBlock) * kPairBlock + static_cast<int64_t>(sizeof(RowEnd));
}

// Tiles of nearly equal height.
int64_t TileRows(int64_t m) { return CeilDiv(m, CeilDiv(m, kMaxTile)); }

void Prepare(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t step) {
  __m256i sums = _mm256_setzero_si256();
  for (int64_t start = 0; start < k; start += kPairBlock) {
    const __m256i bytes = OrderedBytes(codes + start, CountFrom(k, start), 0);
    sums = _mm256_dpbusd_epi32(sums, bytes, _mm256_set1_epi8(1));
    alignas(32) uint8_t block[kPairBlock];
    _mm256_store_si256(reinterpret_cast<__m256i*>(block), bytes);
    for (int64_t i = 0; i < kBlockUnits; ++i, prepared += step) std::memcpy(prepared, block + 4 * i, 4);
  }
  RowEnd end{};
  if (k > 0) {
    alignas(32) uint32_t parts[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(parts), sums);
    uint32_t sum = 0;
    for (uint32_t part : parts) sum += part;
    end = {Int8::Load(scales).z, Int8::Load(scales).s, 0};
    end.sum = static_cast<int32_t>(sum - static_cast<uint32_t>(k) * static_cast<uint32_t>(end.z));
  }
  std::memcpy(prepared, &end.z, 4);
  std::memcpy(prepared + step, &end.scale, 4);
  std::memcpy(prepared + 2 * step, &end.sum, 4);
}

constexpr RowForm kForm = {RowBytes, TileRows, Prepare};

inline __m512i Unit(const uint8_t* a, int64_t unit) {
  int32_t value;
  std::memcpy(&value, a + 4 * unit, sizeof(value));
  return _mm512_set1_epi32(value);
}

// sums[kRows, 32] += a[kRows, blocks] * b[blocks, 32], rows of A in a tile of `tile`.
template <int kRows, typename Source>
[[gnu::flatten]] void MultiplyTile(const uint8_t* a, int64_t tile, Source b, int64_t blocks, float* c) {
  constexpr int kParts = kRows == 1 ? 4 : kRows <= 3 ? 2 : 1;
  __m512i sums[kRows][2][kParts];
  Unroll<kRows>([&](auto r) {
    Unroll<2>([&](auto g) {
      sums[r][g][0] = LoadLine(c + r * kTilePanel + g * kTileGroup);
      Unroll<kParts - 1>([&](auto part) { sums[r][g][part + 1] = _mm512_setzero_si512(); });
    });
  });
  for (int64_t i = 0; i < blocks; ++i, b.Next()) {
    Unroll<8>([&](auto step) {
      b.Prefetch(step);
      const __m512i first = b.Words(step, 0), second = b.Words(step, 1);
      constexpr int kPart = step % kParts;
      Unroll<kRows>([&](auto r) {
        const __m512i x = Unit(a, r);
        sums[r][0][kPart] = _mm512_dpbusd_epi32(sums[r][0][kPart], x, first);
        sums[r][1][kPart] = _mm512_dpbusd_epi32(sums[r][1][kPart], x, second);
      });
      a += 4 * tile;
    });
  }
  Unroll<kRows>([&](auto r) {
    Unroll<2>([&](auto g) {
      Unroll<kParts - 1>(
          [&](auto part) { sums[r][g][0] = _mm512_add_epi32(sums[r][g][0], sums[r][g][part + 1]); });
      _mm512_storeu_si512(c + r * kTilePanel + g * kTileGroup, sums[r][g][0]);
    });
  });
}

template <typename Source>
using Multiply = void (*)(const uint8_t*, int64_t, Source, int64_t, float*);

// By the number of rows, from one on.
template <typename Source, int... kRows>
constexpr std::array<Multiply<Source>, sizeof...(kRows)> TilesOf(std::integer_sequence<int, kRows...>) {
  return {MultiplyTile<kRows + 1, Source>...};
}

template <typename Source, int kCount>
constexpr auto kTiles = TilesOf<Source>(std::make_integer_sequence<int, kCount>());

template <typename Number>
void AddPieces(const GemmArgs& args, int64_t all) {
  auto* words = reinterpret_cast<uint8_t*>(args.scratch);
  const int64_t tile = args.a_tile;
  Records<Number> records(args.packed);
  for (int64_t first = 0; first < all; first += kPiece / kPairBlock) {
    const int64_t blocks = all - first < kPiece / kPairBlock ? all - first : kPiece / kPairBlock;
    for (int64_t b = 0; b < blocks; ++b, records.Next()) {
      Unroll<8>([&](auto step) {
        records.Prefetch(step);
        Unroll<2>([&](auto g) {
          _mm512_storeu_si512(words + b * kDecoded + step * 128 + g * 64, records.Words(step, g));
        });
      });
    }
    for (int64_t row = 0; row < args.m; row += tile) {
      const int64_t rows = args.m - row < tile ? args.m - row : tile;
      const uint8_t* a = args.a + row * args.a_stride + 4 * first * kBlockUnits * tile;
      kTiles<Decoded, kMaxTile>[static_cast<size_t>(rows - 1)](a, tile, Decoded(words), blocks,
                                                               args.c + row * kTilePanel);
    }
  }
}

RowEnd EndOf(const GemmArgs& args, int64_t row) {
  const int64_t lane = row % args.a_tile, units = CeilDiv(args.row.k, kPairBlock) * kBlockUnits;
  const uint8_t* at = args.a + (row - lane) * args.a_stride + 4 * (units * args.a_tile + lane);
  RowEnd end;
  std::memcpy(&end.z, at, 4);
  std::memcpy(&end.scale, at + 4 * args.a_tile, 4);
  std::memcpy(&end.sum, at + 8 * args.a_tile, 4);
  return end;
}

// c from sums to products.
void FinishRows(const GemmArgs& args, const PanelHeader& header) {
  for (int64_t row = 0; row < args.m; ++row) {
    const RowEnd end = EndOf(args, row);
    for (int64_t g = 0; g < kTilePanel; g += kTileGroup) {
      float* c = args.c + row * kTilePanel + g;
      const __m512i offset =
          _mm512_sub_epi32(_mm512_mullo_epi32(_mm512_set1_epi32(end.z), LoadLine(header.unit_sums + g)),
                           _mm512_mullo_epi32(_mm512_set1_epi32(end.sum), LoadLine(header.offsets + g)));
      const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(end.scale), _mm512_loadu_ps(header.unit_scales + g));
      _mm512_storeu_ps(c, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(_mm512_sub_epi32(LoadLine(c), offset))));
    }
  }
}

// Any zero points, any k.
template <typename Number>
void GemmSlowly(const GemmArgs& args, const PanelHeader& header) {
  constexpr int64_t kPlaces[8] = {2, 0, 6, 4, 3, 1, 7, 5};  // of elements 0 ... 7
  for (int64_t row = 0; row < args.m; ++row) {
    const RowEnd end = EndOf(args, row);
    const int64_t lane = row % args.a_tile;
    const uint8_t* a = args.a + (row - lane) * args.a_stride + 4 * lane;
    for (int64_t j = 0; j < args.b_rows; ++j) {
      const int z = Number::Load(args.b.scales + j * args.b.scale_bytes).z;
      int64_t sum = 0;
      for (int64_t k = 0; k < args.row.k; ++k) {
        const int64_t place = k / 8 * 8 + kPlaces[k % 8];
        const int code = a[place / 4 * 4 * args.a_tile + place % 4];
        sum += (code - end.z) *
               Number::Units(GetCode(args.b.codes + j * args.b.code_bytes, k, Number::kBits), z);
      }
      args.c[row * kTilePanel + j] = end.scale * header.unit_scales[j] * static_cast<float>(sum);
    }
  }
}

template <typename Number>
void Gemm(const GemmArgs& args) {
  const PanelHeader& header = Records<Number>::HeaderOf(args.packed);
  if (header.plain == 0) return GemmSlowly<Number>(args, header);
  std::memset(args.c, 0, static_cast<size_t>(args.m * kTilePanel) * sizeof(float));
  const int64_t blocks = CeilDiv(args.row.k, kPairBlock);
  // What has to be decoded is decoded once for many rows.
  constexpr int kDirect = Number::kBits == 8 ? kMaxTile : kMaxDirect;
  if (Number::kBits == 8 || (args.m <= kMaxDirect && args.a_tile >= args.m)) {
    for (int64_t row = 0; row < args.m; row += args.a_tile) {
      const int64_t rows = args.m - row < args.a_tile ? args.m - row : args.a_tile;
      kTiles<Records<Number>, kDirect>[static_cast<size_t>(rows - 1)](
          args.a + row * args.a_stride, args.a_tile, Records<Number>(args.packed), blocks,
          args.c + row * kTilePanel);
    }
  } else {
    AddPieces<Number>(args, blocks);
  }
  FinishRows(args, header);
}

int64_t ScratchFloats(const RowShape&) { return kPiece / kPairBlock * kDecoded / 4; }

constexpr int64_t kMaxRows = 504;

template <typename Number>
constexpr MatMulKernels Set() {
  return {kTilePanel, PackedBytes<Number>, Pack<Number>, ScratchFloats, Gemm<Number>, &kForm, kMaxRows, 4};
}

}  // namespace

const MatMulKernels int8_dint4_matmul__avx512vnni = Set<DInt4>();
const MatMulKernels int8_dint3_matmul__avx512vnni = Set<DInt3>();
const MatMulKernels int8_int8_matmul__avx512vnni = Set<Int8>();
const MatMulKernels int8_int4_matmul__avx512vnni = Set<Int4>();

}  // namespace mxcompile
