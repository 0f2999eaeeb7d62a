// AMXFP4 with synced scales x the same: 32 pairs of E2M1 codes, two scale bytes an operand, float32 accumulator.
//
// A byte has E5M2's fields without subnormals, (4 + t) * 2^(field - 17), field 0 to 30; 31 is NaN. Both bytes of a
// block have the same two mantissa bits t, so their ratio is a power of two: a product is moved instead of scaled, and
// one tree is enough. This unit reads t from the positive side's byte.
// Clock 1 registers the operands, clock 2 moves and sums the products, clock 3 multiplies the sum by both significands,
// clocks 4 and 5 accumulate.
//
// Window: a product whose two scales together are more than 7 binades below the greater ones' counts as zero; within
// that nothing is lost.
// LATENCY = 5
module amxfp4_synced (
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

  wire [4:0] a_exponent, b_exponent;
  wire signed [19:0] tree_0, tree_1;
  lib_power_of_two_lanes #(.D(5)) lanes (
      .a(a_codes), .b(b_codes), .a_positive(a_bytes[6:2]), .a_negative(a_bytes[14:10]), .b_positive(b_bytes[6:2]),
      .b_negative(b_bytes[14:10]), .a_exponent(a_exponent),
      .b_exponent(b_exponent), .sum_0(tree_0), .sum_1(tree_1)
  );

  reg s_first, s_nan, v_first, v_nan;
  reg signed [19:0] s_0, s_1;
  wire signed [20:0] s_sum = s_0 + s_1;
  reg [5:0] s_significand, s_exponent, v_exponent;
  reg signed [25:0] v_value;
  always @(posedge clk) begin
    s_first <= first;
    s_nan <= (&a_bytes[6:2]) | (&a_bytes[14:10]) | (&b_bytes[6:2]) | (&b_bytes[14:10]);
    s_0 <= tree_0;
    s_1 <= tree_1;
    s_significand <= {1'b1, a_bytes[1:0]} * {1'b1, b_bytes[1:0]};
    s_exponent <= {1'b0, a_exponent} + {1'b0, b_exponent};
    v_first <= s_first;
    v_nan <= s_nan;
    v_value <= s_sum * $signed({1'b0, s_significand});
    v_exponent <= s_exponent;
  end

  wire signed [9:0] exponent = {4'b0, v_exponent} - 10'd43;  // 2 * 17 of the significands, units of 2^-2, the window
  lib_accumulate_fp32 #(.W(26)) accumulate (
      .clk(clk), .clear(v_first), .nan(v_nan), .v(v_value), .exponent(exponent), .y(y)
  );
endmodule
