// AMXFP4 x AMXFP4, every product scaled by itself: 32 pairs of E2M1 codes, two E5M2 scale bytes an operand, float32
// accumulator.
//
// The four products of scale significands are formed once a block; each lane picks the one of its class, multiplies,
// and moves the result; one tree sums the lanes.
// Clock 1 registers the operands, clock 2 forms the scales' products, clock 3 scales, moves and
// sums the products, clocks 4 and 5 accumulate.
//
// Window: a product whose two scales together are more than 7 binades below the greater ones' counts as zero; within
// that nothing is lost.
// LATENCY = 5
module amxfp4_per_product (
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

  wire a_has_positive, a_has_negative, b_has_positive, b_has_negative;
  lib_e2m1_signs a_signs (.codes(a_codes), .has_positive(a_has_positive), .has_negative(a_has_negative));
  lib_e2m1_signs b_signs (.codes(b_codes), .has_positive(b_has_positive), .has_negative(b_has_negative));
  wire [2:0] a_p, a_n, b_p, b_n;
  wire [4:0] a_p_exponent, a_n_exponent, b_p_exponent, b_n_exponent;
  wire [3:0] nans;
  lib_e5m2_scale scale_a_p (.byte_in(a_bytes[7:0]), .significand(a_p), .exponent(a_p_exponent), .nan(nans[0]));
  lib_e5m2_scale scale_a_n (.byte_in(a_bytes[15:8]), .significand(a_n), .exponent(a_n_exponent), .nan(nans[1]));
  lib_e5m2_scale scale_b_p (.byte_in(b_bytes[7:0]), .significand(b_p), .exponent(b_p_exponent), .nan(nans[2]));
  lib_e5m2_scale scale_b_n (.byte_in(b_bytes[15:8]), .significand(b_n), .exponent(b_n_exponent), .nan(nans[3]));
  wire [4:0] a_exponent, b_exponent;
  wire [11:0] moves;
  wire [3:0] keeps;
  lib_class_moves classes (
      .a_positive(a_p_exponent), .a_negative(a_n_exponent), .b_positive(b_p_exponent), .b_negative(b_n_exponent),
      .a_has_positive(a_has_positive), .a_has_negative(a_has_negative),
      .b_has_positive(b_has_positive), .b_has_negative(b_has_negative),
      .a_exponent(a_exponent), .b_exponent(b_exponent), .moves(moves), .keeps(keeps)
  );

  reg s_first, s_nan;
  reg [127:0] s_a, s_b;
  reg [23:0] s_scales;                   // ++, +-, -+, -- from the lowest bits, 6 each
  reg [11:0] s_moves;
  reg [3:0] s_keeps;
  reg [5:0] s_exponent;
  always @(posedge clk) begin
    s_first <= first;
    s_nan <= |nans;
    s_a <= a_codes;
    s_b <= b_codes;
    s_scales[5:0] <= a_p * b_p;
    s_scales[11:6] <= a_p * b_n;
    s_scales[17:12] <= a_n * b_p;
    s_scales[23:18] <= a_n * b_n;
    s_moves <= moves;
    s_keeps <= keeps;
    s_exponent <= {1'b0, a_exponent} + {1'b0, b_exponent};
  end

  // the significands and the scale first, the elements' exponents behind: 4 x 6 bits instead of 8 x 6
  wire [31:0] a_negative, b_negative;
  wire [13*32-1:0] scaled;
  genvar i;
  generate
    for (i = 0; i < 32; i = i + 1) begin : lane
      wire [2:0] x = s_a[4*i+:3], z = s_b[4*i+:3];
      assign a_negative[i] = s_a[4*i+3];
      assign b_negative[i] = s_b[4*i+3];
      wire [1:0] signs = {a_negative[i], b_negative[i]};
      wire [5:0] scale = s_scales[6*signs+:6];
      wire [3:0] significand = {x[2] | x[1], x[0]} * {z[2] | z[1], z[0]};
      wire [8:0] product = significand * scale;  // at most 9 * 49 = 441
      wire [10:0] by_a = x[2] ? (x[1] ? {product, 2'b0} : {1'b0, product, 1'b0}) : {2'b0, product};
      assign scaled[13*i+:13] = z[2] ? (z[1] ? {by_a, 2'b0} : {1'b0, by_a, 1'b0}) : {2'b0, by_a};
    end
  endgenerate
  wire signed [24:0] tree_0, tree_1;
  lib_shifting_tree #(.T(13), .W(25)) sum (
      .magnitudes(scaled), .a_negative(a_negative), .b_negative(b_negative), .moves(s_moves), .keeps(s_keeps),
      .sum_0(tree_0), .sum_1(tree_1)
  );

  reg v_first, v_nan;
  reg signed [24:0] v_0, v_1;
  wire signed [25:0] v_value = v_0 + v_1;
  reg [5:0] v_exponent;
  always @(posedge clk) begin
    v_first <= s_first;
    v_nan <= s_nan;
    v_0 <= tree_0;
    v_1 <= tree_1;
    v_exponent <= s_exponent;
  end

  wire signed [9:0] exponent = {4'b0, v_exponent} - 10'd43;  // 2 * 17 of the significands, units of 2^-2, the window
  lib_accumulate_fp32 #(.W(26)) accumulate (
      .clk(clk), .clear(v_first), .nan(v_nan), .v(v_value), .exponent(exponent), .y(y)
  );
endmodule
