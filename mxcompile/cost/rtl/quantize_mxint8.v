// float16 -> MXINT8: lib_wide_quantize_mx, emax 0: every element but the largest exponents' moves like a subnormal one.
// LATENCY = 3
module quantize_mxint8 (
    input clk,
    input [511:0] x,                    // 32 float16
    output [32*8-1:0] codes,
    output [8*1-1:0] scales
);
  lib_wide_quantize_mx #(.BITS(8), .M(6), .TOP(1), .MAX(127), .SCALE(103), .TWOS(1)) quantize (
      .clk(clk), .x(x), .codes(codes), .scales(scales)
  );
endmodule
