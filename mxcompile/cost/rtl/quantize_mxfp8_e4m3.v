// float16 -> MXFP8 E4M3: lib_wide_quantize_mx, emax 8; the largest code is 0x7E.
// LATENCY = 3
module quantize_mxfp8_e4m3 (
    input clk,
    input [511:0] x,                    // 32 float16
    output [32*8-1:0] codes,
    output [8*1-1:0] scales
);
  lib_wide_quantize_mx #(.BITS(8), .M(3), .TOP(15), .MAX(126), .SCALE(95)) quantize (
      .clk(clk), .x(x), .codes(codes), .scales(scales)
  );
endmodule
