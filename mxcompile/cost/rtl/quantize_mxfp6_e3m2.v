// float16 -> MXFP6 E3M2: lib_wide_quantize_mx, emax 4.
// LATENCY = 3
module quantize_mxfp6_e3m2 (
    input clk,
    input [511:0] x,                    // 32 float16
    output [32*6-1:0] codes,
    output [8*1-1:0] scales
);
  lib_wide_quantize_mx #(.BITS(6), .M(2), .TOP(7), .MAX(31), .SCALE(99)) quantize (
      .clk(clk), .x(x), .codes(codes), .scales(scales)
  );
endmodule
