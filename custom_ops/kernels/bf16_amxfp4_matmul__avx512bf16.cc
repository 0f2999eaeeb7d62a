// amxfp4 rows times amxfp4 rows, in bfloat16 with AVX512 BF16: exact operands of 5 significant bits, sums as
// kernels.h has them.
//
// No product of two amxfp4 elements is below 2^-34, nor is a sum of them: so the bits of vdpbf16ps are those
// of std::fma.
//
// Data layout: B as in fp4_tiles__avx512.h, A as in bf16_tiles__avx512bf16.h. Pieces of 256 k of a panel are
// decoded to [128 pairs][32 rows] words in scratch (16 KB, L1).
//
// Up to 16 rows decode in registers, so that decoding fills the cycles between two vdpbf16ps: 32 columns at a
// time for up to 9 rows, else 16. More rows take B from scratch.
//
// Decoding: bf16_fp4__avx512bf16.h; register plan and bound: bf16_tiles__avx512bf16.h.
#include "kernels/bf16_fp4__avx512bf16.h"
#include "kernels/matmul_kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kRecord = Tiles<2>::kRecord, kScales = Tiles<2>::kScales;
constexpr int64_t kMaxDirect = 16, kMaxWide = 9;  // rows
constexpr int64_t kPiece = 256;                   // elements of k

// Word r of a half register to both words of lane r.
inline __m512i InBothWords(__m512i words, int half) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i index = _mm512_mullo_epi32(lane, _mm512_set1_epi32(0x00010001));
  return _mm512_permutexvar_epi16(_mm512_add_epi16(index, _mm512_set1_epi16(static_cast<int16_t>(16 * half))),
                                  words);
}

// Two elements of 16 rows: the low nibbles of words after a shift by 4 * kPair.
template <int kPair>
inline __m512i DecodePair(__m512i lanes, __m512i above, __m512i below) {
  const __m512i shifted = kPair == 0 ? lanes : _mm512_srli_epi16(lanes, 4 * kPair);
  const __mmask32 negative =
      _mm512_test_epi16_mask(lanes, _mm512_set1_epi16(static_cast<int16_t>(8 << 4 * kPair)));
  return DecodeSides(shifted, negative, above, below);
}

void DecodeGroup(const uint8_t* codes, __m512i above, __m512i below, uint8_t* to) {
  for (int j = 0; j < 4; ++j) {
    const __m512i lanes = LoadLine(codes + 64 * j);
    Unroll<4>([&](auto pair) {
      _mm512_storeu_si512(to, DecodePair<pair>(lanes, above, below));
      to += kPairBytes;
    });
  }
}

void DecodeGroupSlowly(const uint8_t* codes, __m512 above, __m512 below, uint8_t* to) {
  for (int pair = 0; pair < kPairBlock / 2; ++pair, to += kPairBytes) {
    const __m512i lanes = _mm512_srl_epi32(LoadLine(codes + pair / 4 * 64), _mm_cvtsi32_si128(pair % 4 * 4));
    _mm512_storeu_si512(to, DecodeAny(_mm512_srli_epi32(lanes, 16), lanes, above, below));
  }
}

// The scales of a group as float32.
inline __m512 GroupScales(const uint8_t* record, int group, int side) {
  const uint8_t* bytes = record + 32 * side + 8 * group;  // rows 0-7; rows 8-15 are 16 bytes further
  const auto eight = [](const uint8_t* from) {
    return AmxDecode::Decode(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  };
  return _mm512_insertf32x8(_mm512_castps256_ps512(eight(bytes)), eight(bytes + 16), 1);
}

// Asks for the record that stands where this one does in the next piece.
inline void PrefetchNext(const uint8_t* record) {
  for (int64_t line = 0; line < kRecord; line += 64)
    _mm_prefetch(reinterpret_cast<const char*>(record + kPiece / kPairBlock * kRecord + line), _MM_HINT_T0);
}

// The scales of a group as words that are E5M2 in the upper byte: above in the lower half, below in the
// upper.
inline __m512i GroupHalves(const uint8_t* record, int group) {
  const __m512i bytes = LoadLine(record), zero = _mm512_setzero_si512();
  return group == 0 ? _mm512_unpacklo_epi8(zero, bytes) : _mm512_unpackhi_epi8(zero, bytes);
}

void DecodeRecord(const uint8_t* record, uint8_t* to) {
  PrefetchNext(record);
  const bool fast = AreFinite(LoadLine(record));
  for (int g = 0; g < 2; ++g) {
    const uint8_t* codes = record + kScales + g * kGroupCodes;
    if (fast) {
      const __m512i words = ScaleWords(GroupHalves(record, g));
      DecodeGroup(codes, InBothWords(words, 0), InBothWords(words, 1), to + 64 * g);
    } else {
      DecodeGroupSlowly(codes, GroupScales(record, g, 0), GroupScales(record, g, 1), to + 64 * g);
    }
  }
}

// The elements [start, end) of a panel. What stands behind the row is 0 even if its scale is not finite.
void DecodePiece(const GemmArgs& args, int64_t start, int64_t end, uint8_t* decoded) {
  for (int64_t i = start; i < end; i += kPairBlock)
    DecodeRecord(args.packed + i / kPairBlock * kRecord, decoded + (i - start) / 2 * kPairBytes);
  if ((end - start) % 2 == 0) return;
  uint8_t* last = decoded + (end - start) / 2 * kPairBytes;
  for (int g = 0; g < 2; ++g) {
    const __m512i upper = _mm512_and_si512(LoadLine(last + 64 * g), _mm512_set1_epi32(-65536));
    _mm512_storeu_si512(last + 64 * g, upper);
  }
}

// kGroups groups of c, from `group` on, += a[kRows, ...] * so many records, all of them with finite scales.
template <int kRows, int kGroups>
[[gnu::flatten]] void MultiplyRecords(const uint8_t* a, int64_t step, const uint8_t* record, int64_t records,
                                      int group, const SumRows& c) {
  __m512 sums[kRows][kGroups];
  Unroll<kRows>([&](auto r) { Unroll<kGroups>([&](auto g) { sums[r][g] = c.Load(r, group + g); }); });
  for (int64_t i = 0; i < records; ++i, record += kRecord) {
    if (group == 0) PrefetchNext(record);
    __m512i above[kGroups], below[kGroups];
    Unroll<kGroups>([&](auto g) {
      const __m512i words = ScaleWords(GroupHalves(record, group + g));
      above[g] = InBothWords(words, 0);
      below[g] = InBothWords(words, 1);
    });
    const uint8_t* codes = record + kScales + group * kGroupCodes;
    for (int j = 0; j < 4; ++j, codes += 64) {
      __m512i lanes[kGroups];
      Unroll<kGroups>([&](auto g) { lanes[g] = LoadLine(codes + g * kGroupCodes); });
      Unroll<4>([&](auto pair) {
        __m512i b[kGroups];
        Unroll<kGroups>([&](auto g) { b[g] = DecodePair<pair>(lanes[g], above[g], below[g]); });
        Unroll<kRows>([&](auto r) {
          const __m512i x = PairOf(a, r);
          Unroll<kGroups>([&](auto g) { sums[r][g] = AddProducts(sums[r][g], x, b[g]); });
        });
        a += step;
      });
    }
  }
  Unroll<kRows>([&](auto r) { Unroll<kGroups>([&](auto g) { c.Store(r, group + g, sums[r][g]); }); });
}

template <int kRows>
void MultiplyDirectly(const uint8_t* a, int64_t step, const uint8_t* record, int64_t records,
                      const SumRows& c) {
  if constexpr (kRows <= kMaxWide) {
    MultiplyRecords<kRows, 2>(a, step, record, records, 0, c);
  } else {
    MultiplyRecords<kRows, 1>(a, step, record, records, 0, c);
    MultiplyRecords<kRows, 1>(a, step, record, records, 1, c);
  }
}

using Direct = void (*)(const uint8_t*, int64_t, const uint8_t*, int64_t, const SumRows&);
constexpr Direct kDirect[kMaxDirect] = {
    MultiplyDirectly<1>,  MultiplyDirectly<2>,  MultiplyDirectly<3>,  MultiplyDirectly<4>,
    MultiplyDirectly<5>,  MultiplyDirectly<6>,  MultiplyDirectly<7>,  MultiplyDirectly<8>,
    MultiplyDirectly<9>,  MultiplyDirectly<10>, MultiplyDirectly<11>, MultiplyDirectly<12>,
    MultiplyDirectly<13>, MultiplyDirectly<14>, MultiplyDirectly<15>, MultiplyDirectly<16>};

bool HaveFiniteScales(const uint8_t* record, int64_t records) {
  bool finite = true;
  for (int64_t i = 0; i < records; ++i, record += kRecord) finite = finite && AreFinite(LoadLine(record));
  return finite;
}

void Gemm(const GemmArgs& args) {
  auto* decoded = reinterpret_cast<uint8_t*>(args.scratch);
  const int64_t step = 4 * args.a_tile, tile_bytes = args.a_tile * args.a_stride;
  if (args.row.k == 0) SumRows{args.c, args.c_stride, true}.Clear(args.m);
  for (int64_t start = 0, size; start < args.row.k; start += size) {
    size = args.row.k - start < kPiece ? args.row.k - start : kPiece;
    const uint8_t* a = args.a + start / 2 * step;
    const SumRows c{args.c, args.c_stride, start == 0};
    const uint8_t* record = args.packed + start / kPairBlock * kRecord;
    const int64_t records = size / kPairBlock;
    if (args.m <= kMaxDirect && records > 0 && HaveFiniteScales(record, records)) {
      kDirect[args.m - 1](a, step, record, records, c);
      size = records * kPairBlock;
      continue;
    }
    DecodePiece(args, start, start + size, decoded);
    for (int64_t row = 0; row < args.m; row += args.a_tile, a += tile_bytes) {
      const int64_t rows = args.m - row < args.a_tile ? args.m - row : args.a_tile;
      const uint8_t* next = rows < args.m - row ? a + tile_bytes : args.a + (start + kPiece) / 2 * step;
      MultiplyRowsOfTile(a, next, rows, step, decoded, CeilDiv(size, 2), c.From(row));
    }
  }
}

int64_t ScratchFloats(const RowShape&) { return kPiece / 2 * kPairBytes / 4; }

// One tile for what is multiplied directly.
int64_t TileRows(int64_t m) { return m <= kMaxDirect ? m : EvenTiles(m); }

constexpr int64_t kMaxRows = 504;  // sums of a panel: 63 KB, in the L2 cache

constexpr RowForm kForm = {PairRowBytes, TileRows, PrepareRow, nullptr, QuantizePairs__avx512bf16};

}  // namespace

const MatMulKernels bf16_amxfp4_matmul__avx512bf16 = {
    kTilePanel, Tiles<2>::PackedBytes, Tiles<2>::Pack, ScratchFloats, Gemm, &kForm, kMaxRows, 8, kPiece};

const PairKernels amxfp4_amxfp4_matmul__avx512bf16 = {
    &amxfp4_few_matmul__avx512vnni, &bf16_amxfp4_matmul__avx512bf16, &bf16_amxfp4_rows_matmul__avx512bf16};

}  // namespace mxcompile
