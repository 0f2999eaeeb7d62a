// MXFP6 E2M3 x E2M3: 4 x 4 bit significands moved by 0 to 4, exact sum of 12-bit products, float32 accumulator.
// LATENCY = 5
module mxfp6_e2m3 (
    input clk,
    input clear,
    input [32*6-1:0] a,
    input [32*6-1:0] b,
    input [7:0] a_scale,
    input [7:0] b_scale,
    output [31:0] y
);
  lib_wide_mx #(.E(2), .M(3), .P(12), .U(3)) unit (
      .clk(clk), .clear(clear), .a(a), .b(b), .a_scale(a_scale), .b_scale(b_scale), .y(y)
  );
endmodule
