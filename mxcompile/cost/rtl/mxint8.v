// MXINT8 x MXINT8: 32 products of two's complement bytes, one E8M0 scale a side, float32 accumulator.
//
// Baugh-Wooley rows: in a product of two's complement numbers the bits of weight -2^7 only turn over the row and the
// column that they make, and what this adds, 2^15 - 2^8 a product, is one constant for all 32 lanes. So no row is ever
// extended by its sign. Block value: v = sum * 2^(a_scale - 127 - 6 + b_scale - 127 - 6), exact.
// Clocks: operand registers; all 32 * 8 rows in one tree; two of the accumulator.
// LATENCY = 4
module mxint8 (
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
  reg clear_now, clear_sum, nan;
  reg [20:0] sum, products;
  reg signed [9:0] exponent;
  integer lane, j;
  always @* begin
    products = 21'h102000;              // 32 * (2^8 - 2^15) modulo 2^21
    for (lane = 0; lane < 32; lane = lane + 1)
      for (j = 0; j < 8; j = j + 1)
        products = products + ({13'b0, (a_now[8*lane+:8] & {8{b_now[8*lane+j]}}) ^ (j == 7 ? 8'h7f : 8'h80)} << j);
  end
  always @(posedge clk) begin
    {a_now, b_now, a_scale_now, b_scale_now, clear_now} <= {a, b, a_scale, b_scale, clear};
    {sum, clear_sum} <= {products, clear_now};
    nan <= &a_scale_now | &b_scale_now;
    exponent <= {2'b0, a_scale_now} + {2'b0, b_scale_now} - 10'd266;
  end
  lib_accumulate_fp32 #(.W(21)) accumulate (
      .clk(clk), .clear(clear_sum), .nan(nan), .v(sum), .exponent(exponent), .y(y)
  );
endmodule
