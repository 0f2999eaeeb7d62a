// MXFP8 E4M3 x E4M3: 4 x 4 bit significands moved by 0 to 28, exact sum of 36-bit products, float32 accumulator.
//
// A fixed-point sum as wide as the format (Kulisch), so no maximum of the exponents is searched, no bit is lost and the
// result does not depend on an order. An element that is NaN (0x7F) or a scale 0xFF makes y NaN.
// LATENCY = 5
module mxfp8_e4m3 (
    input clk,
    input clear,
    input [32*8-1:0] a,
    input [32*8-1:0] b,
    input [7:0] a_scale,
    input [7:0] b_scale,
    output [31:0] y
);
  lib_wide_mx #(.E(4), .M(3), .P(36), .U(9), .LOG(2), .NAN_FROM(127)) unit (
      .clk(clk), .clear(clear), .a(a), .b(b), .a_scale(a_scale), .b_scale(b_scale), .y(y)
  );
endmodule
