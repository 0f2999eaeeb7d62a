// FP4 with one E5M2 scale: 32 pairs of E2M1 codes, one E5M2 scale byte an operand, float32 accumulator. The symmetric
// twin of AMXFP4.
//
// Clock 1 registers the operands, clock 2 sums the products exactly (units of 2^-2) and multiplies the two scales'
// significands, clock 3 multiplies both, clocks 4 and 5 accumulate. The block's value is exact: there is no window.
// LATENCY = 5
module fp4_e5m2 (
    input clk,
    input clear,
    input [127:0] a,
    input [127:0] b,
    input [7:0] a_scale,
    input [7:0] b_scale,
    output [31:0] y
);
  reg first;
  reg [127:0] a_codes, b_codes;
  reg [7:0] a_byte, b_byte;
  always @(posedge clk) begin
    first <= clear;
    a_codes <= a;
    b_codes <= b;
    a_byte <= a_scale;
    b_byte <= b_scale;
  end

  wire signed [13:0] dot;
  lib_e2m1_dot lanes (.a(a_codes), .b(b_codes), .sum(dot));
  wire [2:0] a_significand, b_significand;
  wire [4:0] a_exponent, b_exponent;
  wire a_nan, b_nan;
  lib_e5m2_scale a_side (.byte_in(a_byte), .significand(a_significand), .exponent(a_exponent), .nan(a_nan));
  lib_e5m2_scale b_side (.byte_in(b_byte), .significand(b_significand), .exponent(b_exponent), .nan(b_nan));

  reg dot_first, dot_nan, v_first, v_nan;
  reg signed [13:0] dot_value;
  reg [5:0] significand;
  reg [5:0] dot_exponent, v_exponent;
  reg signed [19:0] v_value;
  always @(posedge clk) begin
    dot_first <= first;
    dot_nan <= a_nan | b_nan;
    dot_value <= dot;
    significand <= a_significand * b_significand;
    dot_exponent <= {1'b0, a_exponent} + {1'b0, b_exponent};
    v_first <= dot_first;
    v_nan <= dot_nan;
    v_value <= dot_value * $signed({1'b0, significand});
    v_exponent <= dot_exponent;
  end

  wire signed [9:0] exponent = {4'b0, v_exponent} - 10'd36;  // 2 * 17 of the scales' significands, units of 2^-2
  lib_accumulate_fp32 #(.W(20)) accumulate (
      .clk(clk), .clear(v_first), .nan(v_nan), .v(v_value), .exponent(exponent), .y(y)
  );
endmodule
