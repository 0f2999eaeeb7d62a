// float16 -> AMXFP4 with power-of-two scales: lib_wide_quantize_mx for E2M1, emax 2, largest exponents of both sides.
// LATENCY = 3
module quantize_amxfp4_pot (
    input clk,
    input [511:0] x,                    // 32 float16
    output [32*4-1:0] codes,
    output [8*2-1:0] scales
);
  lib_wide_quantize_mx #(.BITS(4), .M(1), .TOP(3), .MAX(7), .SCALE(101), .SIDES(2)) quantize (
      .clk(clk), .x(x), .codes(codes), .scales(scales)
  );
endmodule
