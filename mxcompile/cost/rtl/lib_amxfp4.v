// What the AMXFP4 units with class sums share: the products of the lanes with their classes, and the way from the four
// class sums to the accumulator.

module lib_amxfp4_lanes (
    input [127:0] a,
    input [127:0] b,
    input a_swapped,
    input b_swapped,
    output [255:0] products,             // magnitudes, units of 1/4
    output [31:0] a_lesser,              // whether the lane's factor has the scale with the lesser exponent
    output [31:0] b_lesser
);
  genvar i;
  generate
    for (i = 0; i < 32; i = i + 1) begin : lane
      lib_e2m1_product product (.a(a[4*i+:3]), .b(b[4*i+:3]), .p(products[8*i+:8]));
      assign a_lesser[i] = a[4*i+3] ^ a_swapped;
      assign b_lesser[i] = b[4*i+3] ^ b_swapped;
    end
  endgenerate
endmodule

// Whether an operand has elements above and below zero.
module lib_e2m1_signs (
    input [127:0] codes,
    output has_positive,
    output has_negative
);
  wire [31:0] positive, negative;
  genvar i;
  generate
    for (i = 0; i < 32; i = i + 1) begin : lane
      assign positive[i] = |codes[4*i+:3] & ~codes[4*i+3];
      assign negative[i] = |codes[4*i+:3] & codes[4*i+3];
    end
  endgenerate
  assign has_positive = |positive;
  assign has_negative = |negative;
endmodule

// Scales the class sums: b's scales first, then a's, then the accumulator.
//   v = +-(aG (bG GG - bL GL) - aL (bG LG - bL LL)), G and L the side with the greater and the lesser exponent.
//
// Window: a side whose exponent is more than 7 below the other one's counts as zero; within that nothing is lost. Of
// the sum's bits the accumulator keeps the leading 26, rounded to odd.
module lib_amxfp4_combine #(
    parameter LATE = 0                   // 1: the class sums come a clock behind the codes and scales
) (
    input clk,
    input first,
    input [127:0] a_codes,
    input [127:0] b_codes,
    input [15:0] a_bytes,
    input [15:0] b_bytes,
    output a_swapped,
    output b_swapped,
    input [12:0] gg,                     // class sums: a's side, b's side
    input [12:0] gl,
    input [12:0] lg,
    input [12:0] ll,
    output [31:0] y
);
  localparam I = 23;                     // bits of an inner value: at most 4608 * 7 * 2^7
  localparam V = 33;                     // of the block's value: at most 4608 * 7 * 7 * 2^14

  wire a_positive, a_negative, b_positive, b_negative;
  lib_e2m1_signs a_signs (.codes(a_codes), .has_positive(a_positive), .has_negative(a_negative));
  lib_e2m1_signs b_signs (.codes(b_codes), .has_positive(b_positive), .has_negative(b_negative));
  wire [2:0] a_greater, a_lesser, b_greater, b_lesser;
  wire [4:0] a_exponent, a_distance, b_exponent, b_distance;
  wire a_nan, b_nan;
  lib_e5m2_sides a_sides (
      .scales(a_bytes), .has_positive(a_positive), .has_negative(a_negative), .swapped(a_swapped),
      .greater(a_greater), .lesser(a_lesser), .exponent(a_exponent), .distance(a_distance), .nan(a_nan)
  );
  lib_e5m2_sides b_sides (
      .scales(b_bytes), .has_positive(b_positive), .has_negative(b_negative), .swapped(b_swapped),
      .greater(b_greater), .lesser(b_lesser), .exponent(b_exponent), .distance(b_distance), .nan(b_nan)
  );

  reg s_first;
  reg [12:0] s_gg, s_gl, s_lg, s_ll;
  reg [29:0] s_scales;
  wire [29:0] scales = {
    a_nan | b_nan, a_swapped ^ b_swapped, a_greater, a_lesser, b_greater, b_lesser, a_distance, b_distance,
    {1'b0, a_exponent} + {1'b0, b_exponent}
  };
  wire [30:0] in_time;
  generate
    if (LATE) begin : late
      reg [30:0] waiting;
      always @(posedge clk) waiting <= {first, scales};
      assign in_time = waiting;
    end else assign in_time = {first, scales};
  endgenerate
  always @(posedge clk) begin
    {s_first, s_scales} <= in_time;
    s_gg <= gg;
    s_gl <= gl;
    s_lg <= lg;
    s_ll <= ll;
  end
  wire s_nan, s_negate;
  wire [2:0] s_a_greater, s_a_lesser, s_b_greater, s_b_lesser;
  wire [4:0] s_a_distance, s_b_distance;
  wire [5:0] s_exponent;
  assign {s_nan, s_negate, s_a_greater, s_a_lesser, s_b_greater, s_b_lesser, s_a_distance, s_b_distance, s_exponent} =
      s_scales;

  wire signed [I-1:0] inner_g, inner_l;
  lib_e5m2_meet #(.W(14), .V(I)) meet_g (
      .greater({1'b0, s_gg}), .lesser({1'b0, s_gl}), .greater_factor(s_b_greater), .lesser_factor(s_b_lesser),
      .distance(s_b_distance), .y(inner_g)
  );
  lib_e5m2_meet #(.W(14), .V(I)) meet_l (
      .greater({1'b0, s_lg}), .lesser({1'b0, s_ll}), .greater_factor(s_b_greater), .lesser_factor(s_b_lesser),
      .distance(s_b_distance), .y(inner_l)
  );
  wire signed [V-1:0] outer;
  lib_e5m2_meet #(.W(I), .V(V)) meet_a (
      .greater(inner_g), .lesser(inner_l), .greater_factor(s_a_greater), .lesser_factor(s_a_lesser),
      .distance(s_a_distance), .y(outer)
  );

  reg v_first, v_nan, v_negate;
  reg signed [V-1:0] v_value;
  reg [5:0] v_exponent;
  always @(posedge clk) begin
    v_first <= s_first;
    v_nan <= s_nan;
    v_negate <= s_negate;
    v_value <= outer;
    v_exponent <= s_exponent;
  end

  // 2 * 17 for the scales' significands, 2 for the products' units, 2 * 7 for the windows
  wire signed [9:0] exponent = {4'b0, v_exponent} - 10'd50;
  lib_accumulate_negated #(.W(V), .KEEP(26)) accumulate (
      .clk(clk), .clear(v_first), .nan(v_nan), .negate(v_negate), .v(v_value), .exponent(exponent), .y(y)
  );
endmodule

// The four class sums from tagged pairs. Two lanes hold at most two classes: where they have the same one, the first
// carries the sum of both products and the second nothing; else each carries its own. So 16 adders take the place of
// the first level of all four trees.
module lib_amxfp4_tagged_sums (
    input [255:0] products,
    input [31:0] a_lesser,
    input [31:0] b_lesser,
    output reg [12:0] gg,
    output reg [12:0] gl,
    output reg [12:0] lg,
    output reg [12:0] ll
);
  wire [143:0] first;                    // 16 of 9 bits
  wire [127:0] second;
  wire [63:0] first_class, second_class; // one-hot, 4 bits a pair: gg, gl, lg, ll
  genvar i;
  generate
    for (i = 0; i < 16; i = i + 1) begin : pair
      wire a_0 = a_lesser[2*i], a_1 = a_lesser[2*i+1], b_0 = b_lesser[2*i], b_1 = b_lesser[2*i+1];
      wire same = ~((a_0 ^ a_1) | (b_0 ^ b_1));
      assign second[8*i+:8] = products[16*i+8+:8];
      lib_ripple_add #(.W(8)) add (.a(products[16*i+:8]), .b(second[8*i+:8] & {8{same}}), .y(first[9*i+:9]));
      assign first_class[4*i+:4] = {~a_0 & ~b_0, ~a_0 & b_0, a_0 & ~b_0, a_0 & b_0};
      assign second_class[4*i+:4] = {~a_1 & ~b_1, ~a_1 & b_1, a_1 & ~b_1, a_1 & b_1} & {4{~same}};
    end
  endgenerate
  integer k;
  always @* begin
    gg = 0;
    gl = 0;
    lg = 0;
    ll = 0;
    for (k = 0; k < 16; k = k + 1) begin
      gg = gg + ((first[9*k+:9] & {9{first_class[4*k+3]}}) | (second[8*k+:8] & {8{second_class[4*k+3]}}));
      gl = gl + ((first[9*k+:9] & {9{first_class[4*k+2]}}) | (second[8*k+:8] & {8{second_class[4*k+2]}}));
      lg = lg + ((first[9*k+:9] & {9{first_class[4*k+1]}}) | (second[8*k+:8] & {8{second_class[4*k+1]}}));
      ll = ll + ((first[9*k+:9] & {9{first_class[4*k]}}) | (second[8*k+:8] & {8{second_class[4*k]}}));
    end
  end
endmodule

// A ripple-carry adder: where there is time, half the size of the one that synthesis takes for `+`.
module lib_ripple_add #(
    parameter W = 8
) (
    input [W-1:0] a,
    input [W-1:0] b,
    output [W:0] y
);
  wire [W:0] carry;
  assign carry[0] = 1'b0;
  assign carry[W:1] = (a & b) | (carry[W-1:0] & (a ^ b));
  assign y = {carry[W], a ^ b ^ carry[W-1:0]};
endmodule
