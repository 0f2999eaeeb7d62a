// MXFP6 E3M2 x E3M2: 3 x 3 bit significands moved by 0 to 12, exact sum of 18-bit products, float32 accumulator.
// LATENCY = 5
module mxfp6_e3m2 (
    input clk,
    input clear,
    input [32*6-1:0] a,
    input [32*6-1:0] b,
    input [7:0] a_scale,
    input [7:0] b_scale,
    output [31:0] y
);
  lib_wide_mx #(.E(3), .M(2), .P(18), .U(4)) unit (
      .clk(clk), .clear(clear), .a(a), .b(b), .a_scale(a_scale), .b_scale(b_scale), .y(y)
  );
endmodule
