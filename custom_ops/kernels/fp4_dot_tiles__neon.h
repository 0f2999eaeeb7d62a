// Tiles of products of E2M1 rows in blocks with one scale each with NEON. `Sums` adds up products of bytes:
// WideningSums or DotSums. Unnamed namespace: see elements.h.
//
// Data layout: B as in fp4_tiles__neon.h, [blocks][16 rows] scale bytes in a record; it is decoded in
// registers, for Sums::kRows rows of A at a time.
//
// What a Product says: kParts, the blocks of a record; kRowScales, the bytes before a row's block scales;
// AScale and BScales, float32 from a byte of A and from 4 of B; Finish, the result after a block.
#pragma once

#include "kernels/fp4_tiles__neon.h"
#include "kernels/matmul_kernels.h"
#include "kernels/mxfp4_blocks.h"

namespace mxcompile {
namespace {

template <typename Product>
constexpr int64_t kBlockElements = kPairBlock / Product::kParts;
template <typename Product>
constexpr int64_t kRecordScales = Product::kParts * kTilePanel;
template <typename Product>
constexpr int64_t kRecord = kRecordScales<Product> + kPairBlock / 8 * kGroupBytes;

template <typename Product>
struct Block {
  int8_t elements[kBlockElements<Product>];  // doubled, in the order of steps
  float scale;
};

template <typename Product>
int64_t RowBytes(int64_t k) {
  return CeilDiv(k, kPairBlock) * Product::kParts * static_cast<int64_t>(sizeof(Block<Product>));
}

// Whole records: what is missing from the last one are zeros.
template <typename Product>
void Prepare(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t) {
  auto* block = reinterpret_cast<Block<Product>*>(prepared);
  const int8x16_t table = vld1q_s8(kDoubledSigned);
  scales += Product::kRowScales;
  for (int64_t start = 0; start < k; start += kPairBlock) {
    const int64_t count = k - start < kPairBlock ? k - start : kPairBlock;
    const Ordered ordered = InSteps(BlockCodes(codes + start / 2, count));
    int8_t elements[kPairBlock];
    vst1q_s8(elements, vqtbl1q_s8(table, ordered.first));
    vst1q_s8(elements + 16, vqtbl1q_s8(table, ordered.last));
    for (int64_t first = 0; first < kPairBlock; first += kBlockElements<Product>, ++block) {
      std::memcpy(block->elements, elements + first, sizeof(block->elements));
      block->scale = first < count ? Product::AScale(*scales++) : 0.0f;
    }
  }
}

template <typename Product>
constexpr RowForm kForm = {RowBytes<Product>, nullptr, Prepare<Product>};

template <typename Product>
int64_t PackedBytes(const RowShape& row) {
  return CeilDiv(row.k, kPairBlock) * kRecord<Product>;
}

template <typename Product>
void Pack(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed) {
  const uint8_t* scales = b.scales + Product::kRowScales;
  for (int64_t start = 0; start < row.k; start += kPairBlock, packed += kRecord<Product>) {
    std::memset(packed, 0, kRecordScales<Product>);
    for (int64_t part = 0; part < Product::kParts; ++part, ++scales) {
      if (start + part * kBlockElements<Product> >= row.k) break;
      for (int64_t r = 0; r < rows; ++r) packed[part * kTilePanel + r] = scales[r * b.scale_bytes];
    }
    PackCodes(b, rows, row.k, start, packed + kRecordScales<Product>);
  }
}

// The sums of a block of kRows rows with 16 rows of B; the block begins at step kFirst of a record, the codes
// of which stand at `words`.
template <typename Product, typename Sums, int kFirst, int kRows>
inline void MultiplyBlock(const Block<Product>* const (&a)[kRows], const uint8_t* words,
                          Sums (&sums)[kRows][kTileVectors]) {
  const int8x16_t table = vld1q_s8(kDoubledSigned);
  Unroll<kRows>([&](auto r) { Unroll<kTileVectors>([&](auto v) { sums[r][v] = Sums::Zero(); }); });
  Unroll<kSteps / Product::kParts>([&](auto step) {
    int8x16_t b[kTileVectors];
    Unroll<kTileVectors>([&](auto v) {
      const uint8x16_t both = vld1q_u8(words + (kFirst + step) / 2 * kGroupBytes + 16 * v);
      b[v] = vqtbl1q_s8(table, StepCodes<step>(both));
    });
    Unroll<kRows>([&](auto r) {
      const int8x16_t x = vld1q_s8(a[r]->elements + step / 4 * 16);
      Unroll<kTileVectors>([&](auto v) { sums[r][v].template Add<step % 4>(b[v], x); });
    });
  });
}

template <typename Product, typename Sums, int kRows>
[[gnu::flatten]] void MultiplyTile(const GemmArgs& args, int64_t row) {
  const int64_t records = CeilDiv(args.row.k, kPairBlock);
  const uint8_t* record = args.packed;
  const Block<Product>* a[kRows];
  float32x4_t y[kRows][kTileVectors];
  Unroll<kRows>([&](auto r) {
    a[r] = reinterpret_cast<const Block<Product>*>(args.a + (row + r) * args.a_stride);
    Unroll<kTileVectors>([&](auto v) { y[r][v] = vdupq_n_f32(0.0f); });
  });
  for (int64_t i = 0; i < records; ++i, record += kRecord<Product>) {
    Unroll<Product::kParts>([&](auto part) {
      constexpr int kFirst = part * (kSteps / Product::kParts);
      Sums sums[kRows][kTileVectors];
      MultiplyBlock<Product, Sums, kFirst>(a, record + kRecordScales<Product>, sums);
      Unroll<kTileVectors>([&](auto v) {
        const float32x4_t scales = Product::BScales(record + part * kTilePanel + 4 * v);
        Unroll<kRows>([&](auto r) {
          y[r][v] = Product::Finish(vcvtq_f32_s32(sums[r][v].Total()), a[r]->scale, scales, y[r][v]);
        });
      });
      Unroll<kRows>([&](auto r) { ++a[r]; });
    });
  }
  Unroll<kRows>([&](auto r) {
    Unroll<kTileVectors>([&](auto v) { vst1q_f32(args.c + (row + r) * kTilePanel + 4 * v, y[r][v]); });
  });
}

template <typename Product, typename Sums>
void Gemm(const GemmArgs& args) {
  int64_t row = 0;
  for (; row + Sums::kRows <= args.m; row += Sums::kRows) MultiplyTile<Product, Sums, Sums::kRows>(args, row);
  for (; row < args.m; ++row) MultiplyTile<Product, Sums, 1>(args, row);
}

int64_t NoScratch(const RowShape&) { return 0; }

template <typename Product, typename Sums>
constexpr MatMulKernels Set() {
  return {kTilePanel, PackedBytes<Product>, Pack<Product>, NoScratch, Gemm<Product, Sums>, &kForm<Product>};
}

}  // namespace
}  // namespace mxcompile
