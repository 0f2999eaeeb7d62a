// MXFP4 x MXFP4: 32 pairs of E2M1 codes, one E8M0 scale byte an operand, float32 accumulator.
//
// Clock 1 registers the operands, clock 2 sums the products exactly (units of 2^-2), clocks 3 and 4 accumulate.
// A scale byte of 0xFF is NaN. The block's value is exact: there is no window.
// LATENCY = 4
module mxfp4 (
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
  reg [7:0] a_exponent, b_exponent;
  always @(posedge clk) begin
    first <= clear;
    a_codes <= a;
    b_codes <= b;
    a_exponent <= a_scale;
    b_exponent <= b_scale;
  end

  wire signed [13:0] dot;
  lib_e2m1_dot lanes (.a(a_codes), .b(b_codes), .sum(dot));

  reg dot_first, dot_nan;
  reg signed [13:0] dot_value;
  reg signed [9:0] dot_exponent;
  always @(posedge clk) begin
    dot_first <= first;
    dot_nan <= (&a_exponent) | (&b_exponent);
    dot_value <= dot;
    dot_exponent <= {2'b0, a_exponent} + {2'b0, b_exponent} - 10'd256;  // biases 2 * 127, units of 2^-2
  end

  lib_accumulate_fp32 #(.W(14)) accumulate (
      .clk(clk), .clear(dot_first), .nan(dot_nan), .v(dot_value), .exponent(dot_exponent), .y(y)
  );
endmodule
