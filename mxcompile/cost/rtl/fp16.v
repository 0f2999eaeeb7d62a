// FP16 x FP16: 32 products of 11 x 11 bits, aligned to the largest exponent, float32 accumulator.
//
// As tensor cores do it: the window below the largest exponent keeps 24 fraction bits (20 of a product and G = 4 more;
// lib_wide_aligned has the rule), and the block's sum is rounded once, into the accumulator. Subnormals count; an
// operand that is NaN or infinite makes y NaN. Clocks: operand registers; products and largest exponent; alignment and
// sums of 4 lanes; sum; two of the accumulator.
// LATENCY = 6
module fp16 (
    input clk,
    input clear,
    input [32*16-1:0] a,
    input [32*16-1:0] b,
    output [31:0] y
);
  reg [32*16-1:0] a_now, b_now;
  reg clear_0, clear_1, clear_2, clear_3;
  wire [30:0] sum;
  wire below_zero;
  wire [5:0] top;
  wire special;
  lib_wide_aligned #(.M(10), .G(4), .LOG(2)) products (
      .clk(clk), .a(a_now), .b(b_now), .sum(sum), .below_zero(below_zero), .top(top), .special(special)
  );
  wire signed [9:0] exponent = {4'b0, top} - 10'd52;    // 2^-24 * 2^-24 * 2^-G
  always @(posedge clk) begin
    {a_now, b_now, clear_0} <= {a, b, clear};
    {clear_1, clear_2, clear_3} <= {clear_0, clear_1, clear_2};
  end
  lib_accumulate_negated #(.W(32), .KEEP(26)) accumulate (
      .clk(clk), .clear(clear_3), .negate(below_zero), .nan(special), .v({1'b0, sum}), .exponent(exponent), .y(y)
  );
endmodule
