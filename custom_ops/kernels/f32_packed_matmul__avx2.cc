// float32 rows times rows of block-scaled elements with AVX2 and FMA.
//
// Data layout: a panel is 32 rows of B. Each block of a panel is a record: its scales for 32 rows, then
// groups of 8 elements of 4 bits or of 4 wider ones, [32 rows] of 32-bit words with k ascending from the
// lowest bits. So 8 rows' words are one vector, and one shift by 4 or 8 brings the next k of 32 rows into
// place. Elements of 6 bits take a byte here: spreading them out costs once what it would cost in every run.
// Rows and elements that do not exist are zero bytes.
//
// One row of A (`MultiplyRow`): weights are decoded in registers. Plan: 4 accumulators (32 columns), 4
// vectors of words, the table, a broadcast; the factors of the block come from a small array in the L1 cache.
// Decoding takes six operations a vector or more, which outweigh the latency of four chained multiply-adds,
// so four accumulators are enough. (The same for 2 to 4 rows was measured slower than the way below: too few
// registers.)
//
// More rows: see f32_tile__avx2.h; pieces of k are decoded to scratch.
#include <immintrin.h>

#include <cstring>

#include "kernels/elements__avx2.h"
#include "kernels/f32_tile__avx2.h"
#include "kernels/matmul_kernels.h"
#include "kernels/nvfp4.h"
#include "kernels/packed_words.h"

namespace mxcompile {
namespace {

constexpr int64_t kVectors = kPanel / 8;
constexpr int64_t kGroupBytes = kPanel * 4;
constexpr int64_t kMaxRows = 504;  // sums of a panel: 63 KB, in the L2 cache

// The factors of a block for 32 rows.
struct Sides {
  alignas(32) float positive[kPanel];
  alignas(32) float minus_negative[kPanel];
};

// How the scales of a block stand in a record. As they come, [s][32 rows] bytes:
template <typename Decode>
struct ByteScales {
  static constexpr int64_t kScaleBytes = Decode::kCount;  // a row

  static void PackScales(const uint8_t* row_scales, int64_t index, int64_t r, uint8_t* record) {
    for (int64_t s = 0; s < kScaleBytes; ++s) record[s * kPanel + r] = row_scales[index * kScaleBytes + s];
  }

  static inline void LoadSides(const uint8_t* record, Sides* sides) {
    for (int64_t j = 0; j < kPanel; j += 8) {
      const __m128i first = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(record + j));
      const uint8_t* second = record + (kScaleBytes - 1) * kPanel + j;
      const __m128i last = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(second));
      _mm256_store_ps(sides->positive + j, Decode::Decode(first));
      _mm256_store_ps(sides->minus_negative + j, Negate(Decode::Decode(last)));
    }
  }
};

// nvfp4: the product of block and tensor scale, float32 [32 rows].
struct NvProducts {
  static constexpr int64_t kScaleBytes = 4;

  static void PackScales(const uint8_t* row_scales, int64_t index, int64_t r, uint8_t* record) {
    const uint8_t byte = row_scales[NvScales::kRowBytes + index];
    StoreFloat(NvScales::Decode(byte, LoadFloat(row_scales)), record + kScaleBytes * r);
  }

  static inline void LoadSides(const uint8_t* record, Sides* sides) {
    for (int64_t j = 0; j < kPanel; j += 8) {
      const __m256 scale = _mm256_loadu_ps(reinterpret_cast<const float*>(record) + j);
      _mm256_store_ps(sides->positive + j, scale);
      _mm256_store_ps(sides->minus_negative + j, Negate(scale));
    }
  }
};

// nvfp4 without tensor scales: the bytes behind the row's. For nvfp4_nvfp4_matmul__avx2.cc.
struct NvBytes {
  static constexpr int64_t kScaleBytes = 1;

  static void PackScales(const uint8_t* row_scales, int64_t index, int64_t r, uint8_t* record) {
    record[r] = row_scales[NvScales::kRowBytes + index];
  }
};

// How elements stand in words.
struct Fp4Words {
  static constexpr int kBits = 4, kShift = 4;
  static constexpr int64_t kGroup = 8;

  static inline uint32_t Word(uint32_t codes) { return codes; }

  static inline __m256 Decode(__m256i words, __m256 positive, __m256 minus_negative) {
    return DecodeE2M1(E2M1Table(), words, positive, minus_negative);
  }
};

template <typename Element>
struct ByteWords {
  static constexpr int kBits = Element::kBits, kShift = 8;
  static constexpr int64_t kGroup = 4;

  static inline uint32_t Word(uint32_t codes) {
    if constexpr (kBits == 8) return codes;
    return (codes & 0x3F) | (codes & 0xFC0) << 2 | (codes & 0x3F000) << 4 | (codes & 0xFC0000) << 6;
  }

  static inline __m256 Decode(__m256i words, __m256 scale, __m256) {
    return _mm256_mul_ps(DecodeCodes<Element>(words), scale);
  }
};

template <typename Scales, typename Words>
struct LayoutOf : Scales, Words {};

template <typename Layout>
int64_t RecordBytes(int64_t block) {
  return Layout::kScaleBytes * kPanel + CeilDiv(block, Layout::kGroup) * kGroupBytes;
}

// The last record is a whole one too: the products of pairs take it so.
template <typename Layout>
int64_t PackedBytes(const RowShape& row) {
  return CeilDiv(row.k, row.block) * RecordBytes<Layout>(row.block);
}

template <typename Layout>
void Pack(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed) {
  const int64_t k = row.k, block = row.block;
  std::memset(packed, 0, static_cast<size_t>(PackedBytes<Layout>(row)));
  for (int64_t start = 0; start < k; start += block) {
    uint8_t* record = packed + start / block * RecordBytes<Layout>(block);
    const int64_t end = k - start < block ? k : start + block;
    for (int64_t r = 0; r < rows; ++r)
      Layout::PackScales(b.scales + r * b.scale_bytes, start / block, r, record);
    uint8_t* words = record + Layout::kScaleBytes * kPanel;
    for (int64_t i = start; i < end; i += Layout::kGroup, words += kGroupBytes) {
      const int64_t count = end - i < Layout::kGroup ? end - i : Layout::kGroup;
      const auto bytes = static_cast<size_t>(CodeBytes(count, Layout::kBits));
      for (int64_t r = 0; r < rows; ++r)
        PackWord<Layout>(b.codes + r * b.code_bytes, i, bytes, words + 4 * r);
    }
  }
}

int64_t ScratchFloats(const RowShape&) { return kDecodeStep * kPanel; }

inline __m256i LoadWords(const uint8_t* words) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
}

// Calls use(i, count, words, sides) for each group of the elements [start, end): count elements from i on.
// `start` is the beginning of a block. The count of a full group is a constant, so that the compiler unrolls
// it.
template <typename Layout, typename Use>
inline void ForGroups(const GemmArgs& args, int64_t start, int64_t end, const Use& use) {
  const uint8_t* record = args.packed + start / args.row.block * RecordBytes<Layout>(args.row.block);
  Sides sides;
  for (int64_t first = start; first < end;
       first += args.row.block, record += RecordBytes<Layout>(args.row.block)) {
    PrefetchAhead(record, RecordBytes<Layout>(args.row.block));
    Layout::LoadSides(record, &sides);
    const uint8_t* words = record + Layout::kScaleBytes * kPanel;
    const int64_t last = end - first < args.row.block ? end : first + args.row.block;
    int64_t i = first;
    for (; i + Layout::kGroup <= last; i += Layout::kGroup, words += kGroupBytes)
      use(i, Layout::kGroup, words, sides);
    if (i < last) use(i, last - i, words, sides);
  }
}

template <typename Layout>
void MultiplyRow(const GemmArgs& args) {
  const float* a = reinterpret_cast<const float*>(args.a);
  __m256 sums[kVectors];
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  const auto multiply = [&](int64_t k, int64_t count, const uint8_t* words, const Sides& sides) {
    __m256i w[kVectors];
    for (int64_t j = 0; j < kVectors; ++j) w[j] = LoadWords(words + 32 * j);
    for (int64_t t = 0; t < count; ++t) {
      const __m256 x = _mm256_broadcast_ss(a + k + t);
      for (int64_t j = 0; j < kVectors; ++j) {
        const __m256 b = Layout::Decode(w[j], _mm256_load_ps(sides.positive + 8 * j),
                                        _mm256_load_ps(sides.minus_negative + 8 * j));
        sums[j] = _mm256_fmadd_ps(x, b, sums[j]);
        w[j] = _mm256_srli_epi32(w[j], Layout::kShift);
      }
    }
  };
  ForGroups<Layout>(args, 0, args.row.k, multiply);
  for (int64_t j = 0; j < kVectors; ++j) _mm256_storeu_ps(args.c + 8 * j, sums[j]);
}

// Elements [start, end) of the panel to [k][32] float32.
template <typename Layout>
void DecodePiece(const GemmArgs& args, int64_t start, int64_t end, float* decoded) {
  const auto decode = [&](int64_t k, int64_t count, const uint8_t* words, const Sides& sides) {
    for (int64_t j = 0; j < kVectors; ++j) {
      const __m256 positive = _mm256_load_ps(sides.positive + 8 * j);
      const __m256 minus_negative = _mm256_load_ps(sides.minus_negative + 8 * j);
      __m256i w = LoadWords(words + 32 * j);
      for (int64_t t = 0; t < count; ++t, w = _mm256_srli_epi32(w, Layout::kShift)) {
        _mm256_store_ps(decoded + (k - start + t) * kPanel + 8 * j,
                        Layout::Decode(w, positive, minus_negative));
      }
    }
  };
  ForGroups<Layout>(args, start, end, decode);
}

template <typename Layout>
void Gemm(const GemmArgs& args) {
  if (args.m == 1) return MultiplyRow<Layout>(args);
  ForPieces(args, args.scratch,
            [&](int64_t start, int64_t end) { DecodePiece<Layout>(args, start, end, args.scratch); });
}

template <typename Scales, typename Words>
constexpr MatMulKernels Set() {
  using Layout = LayoutOf<Scales, Words>;
  return {kPanel, PackedBytes<Layout>, Pack<Layout>, ScratchFloats, Gemm<Layout>, nullptr, kMaxRows};
}

template <typename Element>
constexpr MatMulKernels MxSet() {
  return Set<ByteScales<PowerDecode<1>>, ByteWords<Element>>();
}

}  // namespace

using Mxfp4Layout = LayoutOf<ByteScales<PowerDecode<1>>, Fp4Words>;

int64_t PackedMxfp4Bytes__avx2(const RowShape& row) { return PackedBytes<Mxfp4Layout>(row); }

void PackMxfp4__avx2(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed) {
  Pack<Mxfp4Layout>(b, rows, row, packed);
}

using Nvfp4Layout = LayoutOf<NvBytes, Fp4Words>;

int64_t PackedNvfp4Bytes__avx2(const RowShape& row) { return PackedBytes<Nvfp4Layout>(row); }

void PackNvfp4__avx2(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed) {
  Pack<Nvfp4Layout>(b, rows, row, packed);
}

const MatMulKernels f32_amxfp4_matmul__avx2 = Set<ByteScales<AmxDecode>, Fp4Words>();
const MatMulKernels f32_amxfp4_pot_matmul__avx2 = Set<ByteScales<PowerDecode<2>>, Fp4Words>();
const MatMulKernels f32_amxfp4_e4m3_matmul__avx2 = Set<ByteScales<AmxE4M3Decode>, Fp4Words>();
const MatMulKernels f32_mxfp4_matmul__avx2 = Set<ByteScales<PowerDecode<1>>, Fp4Words>();
const MatMulKernels f32_nvfp4_matmul__avx2 = Set<NvProducts, Fp4Words>();
const MatMulKernels f32_mxfp6_e3m2_matmul__avx2 = MxSet<E3M2>();
const MatMulKernels f32_mxfp6_e2m3_matmul__avx2 = MxSet<E2M3>();
const MatMulKernels f32_mxfp8_e4m3_matmul__avx2 = MxSet<E4M3>();
const MatMulKernels f32_mxfp8_e5m2_matmul__avx2 = MxSet<E5M2>();
const MatMulKernels f32_mxint8_matmul__avx2 = MxSet<MxInt8>();

}  // namespace mxcompile
