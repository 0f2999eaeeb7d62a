// INT8 x INT8: the sum of code products of 32 lanes, int32.
//
// Codes are the format's: 0 to 255 around a zero point, so the product is unsigned and has no sign to handle. Zero
// points stay at the array's edge: sum (a - za)(b - zb) = sum ab - zb sum a - za sum b + k za zb, where sum a is taken
// once a row of the array for all of its columns (and sum b once a column, for weights even at compile time); the three
// terms are added once an output, where it is scaled.
// Clocks: operand registers; all 32 * 8 partial product rows in one tree; sum.
// LATENCY = 3
module int8_int8 (
    input clk,
    input clear,
    input [32*8-1:0] a,
    input [32*8-1:0] b,
    output [31:0] y
);
  reg [32*8-1:0] a_now;
  reg [32*8-1:0] b_now;
  reg clear_now, clear_sum;
  wire [8+8+4:0] products;
  reg [8+8+4:0] sum;
  lib_wide_products #(.WA(8), .WB(8)) multiply (.a(a_now), .b(b_now), .sum(products));
  always @(posedge clk) begin
    {a_now, b_now, clear_now} <= {a, b, clear};
    {sum, clear_sum} <= {products, clear_now};
  end
  lib_wide_accumulate_int32 #(.W(8+8+5)) accumulate (.clk(clk), .clear(clear_sum), .sum(sum), .y(y));
endmodule
