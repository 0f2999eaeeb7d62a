// AMXFP4 x AMXFP4, mean and difference: 32 pairs of E2M1 codes, two E5M2 scale bytes an operand, float32 accumulator.
//
// With m the mean and d half the difference of an operand's scales an element is worth m e + d |e|, so four sums of the
// same products with different signs are all that is needed: of e e', e |e'|, |e| e' and |e| |e'|. Means of scales
// are wide where the scales are far apart; so the four sums are turned back into the sums of the four classes (a
// butterfly), and those meet the scales as in amxfp4_four_trees, with the same window.
// LATENCY = 6
module amxfp4_mean_difference (
    input clk,
    input clear,
    input [127:0] a,
    input [127:0] b,
    input [15:0] a_scale,
    input [15:0] b_scale,
    output [31:0] y
);
  reg first;
  reg [127:0] a_codes, b_codes;
  reg [15:0] a_bytes, b_bytes;
  always @(posedge clk) begin
    first <= clear;
    a_codes <= a;
    b_codes <= b;
    a_bytes <= a_scale;
    b_bytes <= b_scale;
  end

  wire a_swapped, b_swapped;
  wire [255:0] products;
  wire [31:0] a_lesser, b_lesser;
  lib_amxfp4_lanes lanes (
      .a(a_codes), .b(b_codes), .a_swapped(a_swapped), .b_swapped(b_swapped),
      .products(products), .a_lesser(a_lesser), .b_lesser(b_lesser)
  );
  // sums with the sign of neither, a, b, and both; "negative" is the lesser side
  wire signed [13:0] sum, sum_a, sum_b, sum_ab;
  lib_signed_sum neither (.terms(products), .negative(32'b0), .sum(sum));
  lib_signed_sum only_a (.terms(products), .negative(a_lesser), .sum(sum_a));
  lib_signed_sum only_b (.terms(products), .negative(b_lesser), .sum(sum_b));
  lib_signed_sum both (.terms(products), .negative(a_lesser ^ b_lesser), .sum(sum_ab));

  reg signed [13:0] s, s_a, s_b, s_ab;
  always @(posedge clk) begin
    s <= sum;
    s_a <= sum_a;
    s_b <= sum_b;
    s_ab <= sum_ab;
  end

  // twice the sums over a's greater and lesser side, without and with b's sign; then four times the class sums
  wire signed [14:0] a_greater = s + s_a;
  wire signed [14:0] a_greater_b = s_b + s_ab;
  wire signed [14:0] a_less = s - s_a;
  wire signed [14:0] a_less_b = s_b - s_ab;
  wire [15:0] gg = a_greater + a_greater_b;
  wire [15:0] gl = a_greater - a_greater_b;
  wire [15:0] lg = a_less + a_less_b;
  wire [15:0] ll = a_less - a_less_b;

  lib_amxfp4_combine #(.LATE(1)) combine (
      .clk(clk), .first(first), .a_codes(a_codes), .b_codes(b_codes), .a_bytes(a_bytes), .b_bytes(b_bytes),
      .a_swapped(a_swapped), .b_swapped(b_swapped),
      .gg(gg[14:2]), .gl(gl[14:2]), .lg(lg[14:2]), .ll(ll[14:2]), .y(y)
  );
endmodule
