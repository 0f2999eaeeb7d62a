// NVFP4 x NVFP4: 32 pairs of E2M1 codes, two E4M3 scale bytes an operand (one a block of 16, the first in the low
// byte), float32 accumulator. The tensors' float32 scales multiply the finished sum outside of the unit, once an
// output.
//
// Clock 1 registers the operands, clock 2 forms two exact sums of 16 products (units of 2^-2) and the products of the
// scales' significands, clock 3 multiplies them, clock 4 aligns and adds the two values, clocks 5 and 6 accumulate.
// A scale byte of 0x7F is NaN; the sign bit is not read.
//
// Window: a half whose exponent is more than 15 below the other one's counts as zero, unless the other's sum is zero;
// within that nothing is lost. Of the sum's bits the accumulator keeps the leading 26, rounded to odd.
// LATENCY = 6
module nvfp4 (
    input clk,
    input clear,
    input [127:0] a,
    input [127:0] b,
    input [15:0] a_scale,
    input [15:0] b_scale,
    output [31:0] y
);
  localparam WINDOW = 15;
  localparam V = 21 + WINDOW;            // 13 + 8 bits, the window, the sum

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

  wire nan_0, nan_1;
  wire [5:0] exponent_0, exponent_1;
  wire signed [19:0] scaled_0, scaled_1;
  lib_nvfp4_half half_0 (
      .clk(clk), .a(a_codes[63:0]), .b(b_codes[63:0]), .a_byte(a_bytes[6:0]), .b_byte(b_bytes[6:0]),
      .scaled(scaled_0), .exponent(exponent_0), .nan(nan_0)
  );
  lib_nvfp4_half half_1 (
      .clk(clk), .a(a_codes[127:64]), .b(b_codes[127:64]), .a_byte(a_bytes[14:8]), .b_byte(b_bytes[14:8]),
      .scaled(scaled_1), .exponent(exponent_1), .nan(nan_1)
  );

  reg s_first, v_first, sum_first;
  reg v_nan, sum_nan;
  reg v_swapped;
  reg signed [19:0] v_0, v_1;
  reg [5:0] v_exponent, v_distance, sum_exponent;
  wire [6:0] below = {1'b0, exponent_0} - {1'b0, exponent_1};
  wire [5:0] above = exponent_1 - exponent_0;
  wire swapped = |scaled_1 & (below[6] | ~|scaled_0);
  wire signed [19:0] greater = v_swapped ? v_1 : v_0;
  wire signed [19:0] lesser = v_swapped ? v_0 : v_1;
  wire signed [19:0] near = lesser & {20{~|v_distance[5:4]}};
  wire signed [19+WINDOW:0] wide = near;
  wire signed [19+WINDOW:0] moved = wide << ~v_distance[3:0];
  wire signed [19+WINDOW:0] base = {greater, {WINDOW{1'b0}}};
  reg signed [V-1:0] sum;
  always @(posedge clk) begin
    s_first <= first;
    v_first <= s_first;
    v_nan <= nan_0 | nan_1;
    v_0 <= scaled_0;
    v_1 <= scaled_1;
    v_swapped <= swapped;
    v_exponent <= swapped ? exponent_1 : exponent_0;
    v_distance <= swapped ? above : below[5:0];
    sum_first <= v_first;
    sum_nan <= v_nan;
    sum <= base + moved;
    sum_exponent <= v_exponent;
  end

  // 2 * 10 of the scales' significands, units of 2^-2, the window
  wire signed [9:0] exponent = {4'b0, sum_exponent} - 10'd22 - WINDOW;
  lib_accumulate_negated #(.W(V), .KEEP(26)) accumulate (
      .clk(clk), .clear(sum_first), .nan(sum_nan), .negate(1'b0), .v(sum), .exponent(exponent), .y(y)
  );
endmodule

// One block of 16: its exact sum times both scales' significands, registered once on the way.
module lib_nvfp4_half (
    input clk,
    input [63:0] a,
    input [63:0] b,
    input [6:0] a_byte,
    input [6:0] b_byte,
    output signed [19:0] scaled,         // 2304 * 15 * 15 = 518400
    output reg [5:0] exponent,           // significand * 2^(exponent - 20)
    output reg nan
);
  wire signed [12:0] dot;
  lib_e2m1_dot #(.LANES(16), .W(13)) lanes (.a(a), .b(b), .sum(dot));
  wire a_normal = |a_byte[6:3];
  wire b_normal = |b_byte[6:3];
  reg signed [12:0] dot_value;
  reg [7:0] significand;
  always @(posedge clk) begin
    dot_value <= dot;
    significand <= {a_normal, a_byte[2:0]} * {b_normal, b_byte[2:0]};
    exponent <= {2'b0, a_byte[6:4], a_byte[3] | ~a_normal} + {2'b0, b_byte[6:4], b_byte[3] | ~b_normal};
    nan <= (&a_byte) | (&b_byte);
  end
  assign scaled = dot_value * $signed({1'b0, significand});
endmodule
