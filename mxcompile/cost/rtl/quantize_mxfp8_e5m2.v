// float16 -> MXFP8 E5M2: lib_wide_quantize_mx, emax 15; the largest code is 0x7B.
// LATENCY = 3
module quantize_mxfp8_e5m2 (
    input clk,
    input [511:0] x,                    // 32 float16
    output [32*8-1:0] codes,
    output [8*1-1:0] scales
);
  lib_wide_quantize_mx #(.BITS(8), .M(2), .TOP(30), .MAX(123), .SCALE(88)) quantize (
      .clk(clk), .x(x), .codes(codes), .scales(scales)
  );
endmodule
