// MXFP8 E5M2 x E5M2: 32 products of 3 x 3 bits, aligned to the largest exponent, one E8M0 scale a side, float32
// accumulator.
//
// A fixed-point sum of the whole range would take 64 bits a lane. The window keeps 24 fraction bits below the largest
// product's exponent (4 of a product and G = 20 more; lib_wide_aligned has the rule): exact where the block's products
// lie within 2^20. Subnormals count; an element that is NaN or infinite (0x7C to 0x7F) or a scale 0xFF makes y NaN.
// Clocks: operand registers; products and largest exponent; alignment and sums of 8 lanes; sum; two of the
// accumulator.
// LATENCY = 6
module mxfp8_e5m2 (
    input clk,
    input clear,
    input [32*8-1:0] a,
    input [32*8-1:0] b,
    input [7:0] a_scale,
    input [7:0] b_scale,
    output [31:0] y
);
  reg [32*8-1:0] a_now, b_now;
  reg [7:0] a_scale_now, b_scale_now;
  reg clear_0, clear_1, clear_2, clear_3, nan_1, nan_2, nan_3;
  reg signed [9:0] scale_1, scale_2, scale_3;
  wire [30:0] sum;
  wire below_zero;
  wire [5:0] top;
  wire special;
  lib_wide_aligned #(.M(2), .G(20)) products (
      .clk(clk), .a(a_now), .b(b_now), .sum(sum), .below_zero(below_zero), .top(top), .special(special)
  );
  wire signed [9:0] exponent = scale_3 + {4'b0, top};
  always @(posedge clk) begin
    {a_now, b_now, a_scale_now, b_scale_now, clear_0} <= {a, b, a_scale, b_scale, clear};
    {clear_1, clear_2, clear_3} <= {clear_0, clear_1, clear_2};
    {nan_1, nan_2, nan_3} <= {&a_scale_now | &b_scale_now, nan_1, nan_2};
    scale_1 <= {2'b0, a_scale_now} + {2'b0, b_scale_now} - 10'd306;     // 2 * 127, 2^-16 * 2^-16, 2^-G
    {scale_2, scale_3} <= {scale_1, scale_2};
  end
  lib_accumulate_negated #(.W(32), .KEEP(26)) accumulate (
      .clk(clk), .clear(clear_3), .negate(below_zero), .nan(special | nan_3), .v({1'b0, sum}),
      .exponent(exponent), .y(y)
  );
endmodule
