// INT8 activations (a) x dINT4 weights (b): the sum of code products of 32 lanes in half steps, int32.
//
// Codes of b: 0 to 13; 14 is +1/2 and 15 is -1/2, which must not receive the zero point z (port b_scale, 0 to 13). Each
// code becomes an unsigned number d of 5 bits, so that the weight is (d - offset) / 2 for every code alike:
//   code c        d = 2 c                {c, 0}
//   +1/2          d = 2 z + 1            {z, 1}
//   -1/2          d = 2 (z - 1) + 1      {z - 1, 1}      offset = 2 z
// so a half step costs one more partial product row, mostly idle, and one 4-bit selection, but no sign. For z = 0 all
// is one more: c {c, 1}, +1/2 {1, 0}, -1/2 {0, 0}, offset = 1. The zero points of both sides stay at the array's edge,
// with the same sum over a that int4_int8 needs: sum (a - za) w = (sum a d - offset sum a - za sum (d - offset)) / 2.
// Clocks: operand registers; selection and all 32 * 5 partial product rows in one tree; sum.
// LATENCY = 3
module dint4_int8 (
    input clk,
    input clear,
    input [32*8-1:0] a,
    input [32*4-1:0] b,
    input [3:0] b_scale,
    output [31:0] y
);
  reg [32*8-1:0] a_now;
  reg [32*4-1:0] b_now;
  reg [3:0] plus, minus;                // upper bits of d for the two half steps, off the critical path
  reg from_zero;                        // z = 0
  reg clear_now, clear_sum;
  reg [32*5-1:0] d;
  reg [3:0] code;
  reg half;
  integer lane;
  always @*
    for (lane = 0; lane < 32; lane = lane + 1) begin
      code = b_now[4*lane+:4];
      half = &code[3:1];
      d[5*lane+:5] = {half ? (code[0] ? minus : plus) : code, half ^ from_zero};
    end
  wire [17:0] products;
  reg [17:0] sum;
  lib_wide_products #(.WA(8), .WB(5)) multiply (.a(a_now), .b(d), .sum(products));
  always @(posedge clk) begin
    {a_now, b_now, clear_now} <= {a, b, clear};
    from_zero <= ~|b_scale;
    plus <= |b_scale ? b_scale : 4'd1;
    minus <= |b_scale ? b_scale - 4'd1 : 4'd0;
    {sum, clear_sum} <= {products, clear_now};
  end
  lib_wide_accumulate_int32 #(.W(18)) accumulate (.clk(clk), .clear(clear_sum), .sum(sum), .y(y));
endmodule
