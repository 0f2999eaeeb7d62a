// float16 -> MXFP4: lib_wide_quantize_mx for E2M1, emax 2.
// LATENCY = 3
module quantize_mxfp4 (
    input clk,
    input [511:0] x,                    // 32 float16
    output [32*4-1:0] codes,
    output [8*1-1:0] scales
);
  lib_wide_quantize_mx #(.BITS(4), .M(1), .TOP(3), .MAX(7), .SCALE(101)) quantize (
      .clk(clk), .x(x), .codes(codes), .scales(scales)
  );
endmodule
