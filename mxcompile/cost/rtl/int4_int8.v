// INT8 activations (a) x INT4 weights (b): the sum of code products of 32 lanes, int32.
//
// As int8_int8, with half of its partial product rows. Codes 0 to 255 and 0 to 15; zero points at the array's edge.
// LATENCY = 3
module int4_int8 (
    input clk,
    input clear,
    input [32*8-1:0] a,
    input [32*4-1:0] b,
    output [31:0] y
);
  reg [32*8-1:0] a_now;
  reg [32*4-1:0] b_now;
  reg clear_now, clear_sum;
  wire [8+4+4:0] products;
  reg [8+4+4:0] sum;
  lib_wide_products #(.WA(8), .WB(4)) multiply (.a(a_now), .b(b_now), .sum(products));
  always @(posedge clk) begin
    {a_now, b_now, clear_now} <= {a, b, clear};
    {sum, clear_sum} <= {products, clear_now};
  end
  lib_wide_accumulate_int32 #(.W(8+4+5)) accumulate (.clk(clk), .clear(clear_sum), .sum(sum), .y(y));
endmodule
