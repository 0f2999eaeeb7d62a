// mxfp4 rows times mxfp4 rows with AVX512 VNNI and VBMI. What is computed: mxfp4_blocks.h.
//
// Data layout: B as in fp4_tiles__avx512.h, behind 64 bytes that begin with the panel's flag: whether all of
// its scales are tame. A as in mxfp4_dot__avx512vnni.h, in tiles of up to 6 rows.
//
// Register plan and bound: fp4_dot_tiles__avx512vnni.h. A block ends, for 6 rows and 32 columns, with 12
// additions of exponents, 12 conversions and 12 multiply-adds.
#include "kernels/fp4_dot_tiles__avx512vnni.h"
#include "kernels/matmul_kernels.h"
#include "kernels/mxfp4_quantize__avx512vnni.h"

namespace mxcompile {
namespace {

using Layout = Tiles<1>;

constexpr int64_t kHeader = 64;

int64_t PackedBytes(const RowShape& row) { return kHeader + Layout::PackedBytes(row); }

void Pack(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed) {
  Layout::Pack(b, rows, row, packed + kHeader);
  const auto present = static_cast<__mmask64>((uint64_t{1} << rows) - 1);
  __mmask64 wild = 0;
  for (int64_t at = kHeader; at < PackedBytes(row); at += Layout::kRecord)
    wild |= Wild(LoadLine(packed + at));
  std::memset(packed, (wild & present) == 0 ? 1 : 0, kHeader);
}

template <bool kEven, const RowKernels& kPlain>
constexpr RowForm kForm = {RowBytes, TileRows, Prepare<kTileOrder>, nullptr,
                           QuantizeTile<PowerEncode<1, kEven>, kPlain, kTileOrder>};

template <bool kTame>
struct MxProduct {
  static constexpr int kParts = 1;
  static constexpr int64_t kEndUnits = mxcompile::kEndUnits;

  static inline __m512 Scales(__m128i bytes) { return mxcompile::Scales<kTame>(_mm512_cvtepu8_epi32(bytes)); }
  static inline __m512 Finish(__m512i sum, const uint8_t* end, int64_t tile, __m512 scales, __m512 y) {
    return mxcompile::Finish<kTame>(sum, end, tile, scales, y);
  }
};
static_assert(kRecord<MxProduct<true>> == Layout::kRecord && kRecordUnits<MxProduct<true>> == kBlockUnits);

void Gemm(const GemmArgs& args) {
  const uint8_t* records = args.packed + kHeader;
  if (args.packed[0] != 0 && AreTame(args)) return MultiplyRecords<MxProduct<true>>(args, records);
  MultiplyRecords<MxProduct<false>>(args, records);
}

template <bool kEven, const RowKernels& kPlain>
constexpr MatMulKernels kAny = {kTilePanel, PackedBytes,           Pack,     ScratchFloats<MxProduct<true>>,
                                Gemm,       &kForm<kEven, kPlain>, kMaxRows, 4,
                                kPiece};
constexpr const MatMulKernels& kFloor = kAny<false, mxfp4_rows__avx2>;
constexpr const MatMulKernels& kEven = kAny<true, mxfp4_even_rows__avx2>;

}  // namespace

const PairKernels mxfp4_mxfp4_matmul__avx512vnni = {&kFloor, &kFloor, &mxfp4_mxfp4_rows_matmul__avx512vnni};
const PairKernels mxfp4_even_mxfp4_even_matmul__avx512vnni = {&kEven, &kEven,
                                                              &mxfp4_even_mxfp4_even_rows_matmul__avx512vnni};

}  // namespace mxcompile
