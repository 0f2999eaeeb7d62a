// AMXFP4 with power-of-two scales x the same: 32 pairs of E2M1 codes, two E8M0 bytes an operand, float32 accumulator.
//
// The ratio of two scales is a power of two: a product is moved instead of scaled, and one tree is enough.
// Clock 1 registers the operands, clock 2 moves and sums the products (two halves), clocks 3 and 4
// accumulate. 0xFF is NaN.
//
// Window: a product whose two scales together are more than 7 binades below the greater ones' counts as zero; within
// that nothing is lost.
// LATENCY = 4
module amxfp4_pot (
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

  wire [7:0] a_exponent, b_exponent;
  wire signed [19:0] tree_0, tree_1;
  lib_power_of_two_lanes #(.D(8)) lanes (
      .a(a_codes), .b(b_codes), .a_positive(a_bytes[7:0]), .a_negative(a_bytes[15:8]), .b_positive(b_bytes[7:0]),
      .b_negative(b_bytes[15:8]), .a_exponent(a_exponent),
      .b_exponent(b_exponent), .sum_0(tree_0), .sum_1(tree_1)
  );

  reg s_first, s_nan;
  reg signed [19:0] s_0, s_1;
  reg signed [9:0] s_exponent;
  always @(posedge clk) begin
    s_first <= first;
    s_nan <= (&a_bytes[7:0]) | (&a_bytes[15:8]) | (&b_bytes[7:0]) | (&b_bytes[15:8]);
    s_0 <= tree_0;
    s_1 <= tree_1;
    s_exponent <= {2'b0, a_exponent} + {2'b0, b_exponent} - 10'd263;  // biases 2 * 127, units of 2^-2, the window
  end

  wire signed [20:0] s_sum = s_0 + s_1;
  lib_accumulate_fp32 #(.W(21)) accumulate (
      .clk(clk), .clear(s_first), .nan(s_nan), .v(s_sum), .exponent(s_exponent), .y(y)
  );
endmodule
