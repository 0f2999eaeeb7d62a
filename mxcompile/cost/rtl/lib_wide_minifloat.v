// Exact sums of products of small floats in 32 lanes, one clock from registered operands.
//
// A lane is a product of two significands (hidden bit and E exponents' offset decoded), moved left by the sum of the
// two exponents, as wide as the largest product needs: sum = exact value in units of the product of the two smallest
// subnormals. Multiplying M + 1 bits and moving costs less than moving first and multiplying wide operands.
//
// Parameters: E, M = exponent and mantissa bits of both operands (codes: sign, exponent, mantissa); P = bits of the
// largest product, 2 M + 2 + its exponents; the clock ends with the sums of groups of 2^LOG lanes; the caller adds
// them. Registers after the products instead would be 13 or more a lane.
module lib_wide_minifloat #(
    parameter E = 2,
    parameter M = 3,
    parameter P = 12,
    parameter LOG = 3
) (
    input clk,
    input [32*(E+M+1)-1:0] a,
    input [32*(E+M+1)-1:0] b,
    output reg [((P+LOG+1)<<(5-LOG))-1:0] groups        // numbers in two's complement
);
  localparam W = E + M + 1;
  localparam S = 2 * M + 2;             // bits of a significand product
  reg [32*P-1:0] magnitude;
  reg [31:0] negative;
  localparam G = P + LOG + 1;           // bits of a group's sum
  wire [(G<<(5-LOG))-1:0] sums;
  reg [E-1:0] ea, eb;
  reg [M:0] sa, sb;
  reg [S-1:0] significand;
  reg [E:0] moves;
  integer lane;
  always @*
    for (lane = 0; lane < 32; lane = lane + 1) begin
      ea = a[W*lane+M+:E];
      eb = b[W*lane+M+:E];
      sa = {|ea, a[W*lane+:M]};
      sb = {|eb, b[W*lane+:M]};
      significand = sa * sb;
      // exponents 0 and 1 both stand for the smallest power: e - 1 above 0
      moves = {1'b0, ea} + {1'b0, eb} - {{E{1'b0}}, |ea} - {{E{1'b0}}, |eb};
      magnitude[P*lane+:P] = {{(P - S) {1'b0}}, significand} << moves;
      negative[lane] = a[W*lane+W-1] ^ b[W*lane+W-1];
    end
  genvar i;
  generate
    for (i = 0; i < 32 >> LOG; i = i + 1) begin : group
      lib_wide_signed_sum #(.LOG(LOG), .W(P)) add (
          .magnitude(magnitude[(P<<LOG)*i+:P<<LOG]), .negative(negative[(1<<LOG)*i+:1<<LOG]), .sum(sums[G*i+:G])
      );
    end
  endgenerate
  always @(posedge clk) groups <= sums;
endmodule

// A block of small floats with one E8M0 scale a side: everything but the test for elements that are NaN or infinite.
// The block's value is sum * 2^(a_scale + b_scale - 254 - 2 U), 2^-U the smallest subnormal; float32 accumulator.
// Clocks: operand registers; products, moved and added in groups; groups added; two of the accumulator.
// Latency 5.
module lib_wide_mx #(
    parameter E = 2,
    parameter M = 3,
    parameter P = 12,
    parameter U = 3,
    parameter LOG = 3,
    parameter NAN_FROM = 1 << (E + M)   // smallest code without sign that is not a number
) (
    input clk,
    input clear,
    input [32*(E+M+1)-1:0] a,
    input [32*(E+M+1)-1:0] b,
    input [7:0] a_scale,
    input [7:0] b_scale,
    output [31:0] y
);
  localparam W = E + M + 1;
  reg [32*W-1:0] a_now, b_now;
  reg [7:0] a_scale_now, b_scale_now;
  reg clear_0, clear_1, clear_2, nan_1, nan_2;
  reg signed [9:0] exponent_1, exponent_2;
  wire [((P+LOG+1)<<(5-LOG))-1:0] groups;
  wire [P+5:0] total;
  reg [P+4:0] sum;                      // without its sign, which leads: the accumulator's first clock is a long one
  reg negative;
  reg special;
  integer i;
  always @* begin
    special = &a_scale_now | &b_scale_now;
    for (i = 0; i < 32; i = i + 1)
      special = special | (a_now[W*i+:W-1] >= NAN_FROM) | (b_now[W*i+:W-1] >= NAN_FROM);
  end
  lib_wide_minifloat #(.E(E), .M(M), .P(P), .LOG(LOG)) products (.clk(clk), .a(a_now), .b(b_now), .groups(groups));
  lib_wide_twos_sum #(.LOG(5 - LOG), .W(P + LOG + 1)) add (.x(groups), .sum(total));
  always @(posedge clk) begin
    {a_now, b_now, a_scale_now, b_scale_now, clear_0} <= {a, b, a_scale, b_scale, clear};
    exponent_1 <= {2'b0, a_scale_now} + {2'b0, b_scale_now} - 10'd254 - 2 * U;
    {clear_1, clear_2} <= {clear_0, clear_1};
    {nan_1, nan_2} <= {special, nan_1};
    exponent_2 <= exponent_1;
    negative <= total[P+5];
    sum <= (total[P+4:0] ^ {P + 5{total[P+5]}}) + {{(P + 4) {1'b0}}, total[P+5]};
  end
  lib_accumulate_negated #(.W(P + 6), .KEEP(26)) accumulate (
      .clk(clk), .clear(clear_2), .negate(negative), .nan(nan_2), .v({1'b0, sum}), .exponent(exponent_2), .y(y)
  );
endmodule
