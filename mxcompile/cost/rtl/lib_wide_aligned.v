// Sums of products of wide floats in 32 lanes, aligned to the largest exponent; three clocks from registered operands.
//
// The definition. With 5 exponent bits e and significands of M + 1 bits, a lane has the product p of the significands,
// an integer, and the exponent x = max(ea, 1) - 1 + max(eb, 1) - 1; x = 0 where p = 0. X is the largest x of the
// block. A lane counts trunc(p * 2^(G - (X - x))), so the block is sum * 2^(X - G) in units of the smallest
// subnormals' product: exact where nothing is cut off, that is if X - x <= G for all lanes with p != 0 (or the bits
// below are 0). What is cut off is less than 2^(X - G) a lane. A fixed-point sum of the whole range would be 58 bits
// wider than a product.
//
// Clocks: products, exponents and their maximum; lanes moved, signed and added in groups; groups added, and the
// sign taken off, as the accumulator's first clock is a long one.
module lib_wide_aligned #(
    parameter M = 10,
    parameter G = 4,
    parameter LOG = 3                   // lanes of a group: 2^LOG
) (
    input clk,
    input [32*(M+6)-1:0] a,
    input [32*(M+6)-1:0] b,
    output reg [2*M+2+G+4:0] sum,       // without its sign
    output reg below_zero,
    output reg [5:0] top,               // X
    output reg special                  // an operand that is NaN or infinite
);
  localparam W = M + 6;
  localparam S = 2 * M + 2;
  localparam P = S + G;
  reg [32*S-1:0] product;
  reg [32*6-1:0] x;
  reg [31:0] negative;
  reg [5:0] largest, largest_groups;
  reg special_products, special_groups;
  localparam B = P + LOG + 1;           // bits of a group's sum
  reg [(B<<(5-LOG))-1:0] groups;
  reg [32*S-1:0] product_next;
  reg [32*6-1:0] x_next;
  reg [31:0] negative_next, odd;
  reg [32*P-1:0] magnitude;
  wire [(B<<(5-LOG))-1:0] groups_next;
  wire [P+5:0] total;
  wire [5:0] largest_next;
  reg [4:0] ea, eb;
  reg [M:0] sa, sb;
  reg [5:0] moves, behind;
  integer lane, moved;
  always @*
    for (lane = 0; lane < 32; lane = lane + 1) begin
      ea = a[W*lane+M+:5];
      eb = b[W*lane+M+:5];
      sa = {|ea, a[W*lane+:M]};
      sb = {|eb, b[W*lane+:M]};
      moves = {1'b0, ea} + {1'b0, eb} - {5'b0, |ea} - {5'b0, |eb};
      product_next[S*lane+:S] = sa * sb;
      x_next[6*lane+:6] = moves & {6{|sa & |sb}};
      negative_next[lane] = a[W*lane+W-1] ^ b[W*lane+W-1];
      odd[lane] = &ea | &eb;
    end
  always @*
    for (moved = 0; moved < 32; moved = moved + 1) begin
      behind = largest - x[6*moved+:6];
      magnitude[P*moved+:P] = {product[S*moved+:S], {G{1'b0}}} >> behind;
    end
  genvar i;
  generate
    for (i = 0; i < 32 >> LOG; i = i + 1) begin : group
      lib_wide_signed_sum #(.LOG(LOG), .W(P)) add (
          .magnitude(magnitude[(P<<LOG)*i+:P<<LOG]), .negative(negative[(1<<LOG)*i+:1<<LOG]), .sum(groups_next[B*i+:B])
      );
    end
  endgenerate
  lib_wide_maximum #(.LOG(5), .W(6)) maximum (.x(x_next), .y(largest_next));
  lib_wide_twos_sum #(.LOG(5 - LOG), .W(B)) add (.x(groups), .sum(total));
  always @(posedge clk) begin
    {product, x, negative, largest, special_products} <= {product_next, x_next, negative_next, largest_next, |odd};
    {groups, largest_groups, special_groups} <= {groups_next, largest, special_products};
    {top, special} <= {largest_groups, special_groups};
    below_zero <= total[P+5];
    sum <= (total[P+4:0] ^ {P + 5{total[P+5]}}) + {{(P + 4) {1'b0}}, total[P+5]};
  end
endmodule
