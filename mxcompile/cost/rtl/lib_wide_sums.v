// Sums over lanes, written as one list of rows each so that synthesis can make one compressor tree of them.

// Unsigned products a * b of all lanes: every row of every partial product goes into the same tree, so that no product
// is ever finished on its own.
module lib_wide_products #(
    parameter WA = 8,
    parameter WB = 8
) (
    input [32*WA-1:0] a,
    input [32*WB-1:0] b,
    output reg [WA+WB+4:0] sum
);
  integer lane, j;
  always @* begin
    sum = 0;
    for (lane = 0; lane < 32; lane = lane + 1)
      for (j = 0; j < WB; j = j + 1)
        sum = sum + ({{(WB + 5) {1'b0}}, a[WA*lane+:WA] & {WA{b[WB*lane+j]}}} << j);
  end
endmodule

// Numbers given as magnitude and sign, N = 2^LOG of them. -m is ~m + 1, and the weight of a sign bit s is -s * 2^W =
// (1 - s) * 2^W - 2^W: so a number is one unsigned row {~s, m ^ s} and the bit s, and the N times -2^W are one
// constant. Two's complement by the rule alone would give each row LOG more bits.
module lib_wide_signed_sum #(
    parameter LOG = 5,
    parameter W = 12
) (
    input [(W<<LOG)-1:0] magnitude,
    input [(1<<LOG)-1:0] negative,
    output reg [W+LOG:0] sum
);
  integer i;
  always @* begin
    sum = {1'b1, {(W + LOG) {1'b0}}};   // -2^(W + LOG), the N constants
    for (i = 0; i < 1 << LOG; i = i + 1)
      sum = sum + {{LOG{1'b0}}, ~negative[i], magnitude[W*i+:W] ^ {W{negative[i]}}} + {{(W + LOG) {1'b0}}, negative[i]};
  end
endmodule

// N = 2^LOG numbers of W bits in two's complement: sign bits turned over, and the weight that this adds taken off again
// by one constant.
module lib_wide_twos_sum #(
    parameter LOG = 2,
    parameter W = 16
) (
    input [(W<<LOG)-1:0] x,
    output reg [W+LOG-1:0] sum
);
  integer i;
  always @* begin
    sum = {1'b1, {(W + LOG - 1) {1'b0}}};   // -2^(W - 1) * 2^LOG
    for (i = 0; i < 1 << LOG; i = i + 1) sum = sum + {{LOG{1'b0}}, ~x[W*i+W-1], x[W*i+:W-1]};
  end
endmodule

// The largest of 2^LOG unsigned numbers.
module lib_wide_maximum #(
    parameter LOG = 5,
    parameter W = 6
) (
    input [(W<<LOG)-1:0] x,
    output [W-1:0] y
);
  wire [W-1:0] node[1:(2<<LOG)-1];
  genvar i;
  generate
    for (i = 0; i < 1 << LOG; i = i + 1) begin : leaf
      assign node[(1<<LOG)+i] = x[W*i+:W];
    end
    for (i = 1; i < 1 << LOG; i = i + 1) begin : inner
      assign node[i] = node[2*i] > node[2*i+1] ? node[2*i] : node[2*i+1];
    end
  endgenerate
  assign y = node[1];
endmodule

// The int32 accumulator of the integer units: y = sum, or y + sum.
module lib_wide_accumulate_int32 #(
    parameter W = 21
) (
    input clk,
    input clear,
    input [W-1:0] sum,
    output reg [31:0] y
);
  always @(posedge clk) y <= (y & {32{~clear}}) + {{(32 - W) {1'b0}}, sum};
endmodule
