// What the AMXFP4 units with one tree share: each product is moved by how far its two scales are below the greater
// ones, then all are summed.

// How far each side's scale is below the greater one of its operand, and with that how far each class of products is to
// be moved, one for a block: 7 minus the sum of both distances, or dropped. Sides are those of lib_e5m2_sides; but here
// nothing is reordered, the lanes go by their sign bits.
module lib_class_moves #(
    parameter D = 5                      // bits of the scales' exponents
) (
    input [D-1:0] a_positive,
    input [D-1:0] a_negative,
    input [D-1:0] b_positive,
    input [D-1:0] b_negative,
    input a_has_positive,
    input a_has_negative,
    input b_has_positive,
    input b_has_negative,
    output [D-1:0] a_exponent,           // of the greater side
    output [D-1:0] b_exponent,
    output [11:0] moves,                 // ++, +-, -+, -- from the lowest bits, 3 each
    output [3:0] keeps
);
  wire [D-1:0] a_distance, b_distance;
  wire a_swapped, b_swapped;
  lib_exponent_sides #(.D(D)) a_sides (
      .positive(a_positive), .negative(a_negative), .has_positive(a_has_positive), .has_negative(a_has_negative),
      .swapped(a_swapped), .exponent(a_exponent), .distance(a_distance)
  );
  lib_exponent_sides #(.D(D)) b_sides (
      .positive(b_positive), .negative(b_negative), .has_positive(b_has_positive), .has_negative(b_has_negative),
      .swapped(b_swapped), .exponent(b_exponent), .distance(b_distance)
  );
  wire [3:0] both = {1'b0, a_distance[2:0]} + {1'b0, b_distance[2:0]};
  wire a_near = ~|a_distance[D-1:3];
  wire b_near = ~|b_distance[D-1:3];
  genvar i;
  generate
    for (i = 0; i < 4; i = i + 1) begin : product_class
      wire a_is_lesser = a_swapped ^ (i / 2 == 1);
      wire b_is_lesser = b_swapped ^ (i % 2 == 1);
      assign moves[3*i+:3] =
          ~(a_is_lesser ? (b_is_lesser ? both[2:0] : a_distance[2:0]) : (b_is_lesser ? b_distance[2:0] : 3'd0));
      assign keeps[i] = (~a_is_lesser | a_near) & (~b_is_lesser | b_near) & ~(a_is_lesser & b_is_lesser & both[3]);
    end
  endgenerate
endmodule

// Sums of 16 magnitudes of T bits each, moved left by their class's move, in two's complement: two halves of a tree, so
// that the last addition has a clock of its own.
module lib_shifting_tree #(
    parameter T = 8,
    parameter W = 20                     // T + 7 + 4 + 1
) (
    input [T*32-1:0] magnitudes,
    input [31:0] a_negative,
    input [31:0] b_negative,
    input [11:0] moves,
    input [3:0] keeps,
    output signed [W-1:0] sum_0,
    output signed [W-1:0] sum_1
);
  localparam H = (T + 7) * 16;
  wire [2*H-1:0] terms;
  genvar i;
  generate
    for (i = 0; i < 32; i = i + 1) begin : lane
      wire [1:0] signs = {a_negative[i], b_negative[i]};
      wire [2:0] move = moves[3*signs+:3];
      wire [T+6:0] kept = magnitudes[T*i+:T] & {T{keeps[signs]}};
      assign terms[(T+7)*i+:T+7] = kept << move;
    end
  endgenerate
  wire [31:0] negative = a_negative ^ b_negative;
  lib_signed_sum #(.LANES(16), .T(T + 7), .W(W)) tree_0 (.terms(terms[H-1:0]), .negative(negative[15:0]), .sum(sum_0));
  lib_signed_sum #(.LANES(16), .T(T + 7), .W(W)) tree_1 (
      .terms(terms[2*H-1:H]), .negative(negative[31:16]), .sum(sum_1)
  );
endmodule

// Orders the two sides of an operand by exponent; see lib_e5m2_sides.
module lib_exponent_sides #(
    parameter D = 5
) (
    input [D-1:0] positive,
    input [D-1:0] negative,
    input has_positive,
    input has_negative,
    output swapped,
    output [D-1:0] exponent,
    output [D-1:0] distance
);
  wire [D:0] below = {1'b0, positive} - {1'b0, negative};
  wire [D-1:0] above = negative - positive;
  assign swapped = has_negative & (below[D] | ~has_positive);
  assign exponent = swapped ? negative : positive;
  assign distance = swapped ? above : below[D-1:0];
endmodule

// Two sums of 16 products of codes whose scales differ by powers of two only, in units of 2^-9 of the greater scales.
module lib_power_of_two_lanes #(
    parameter D = 5                      // bits of the scales' exponents
) (
    input [127:0] a,
    input [127:0] b,
    input [D-1:0] a_positive,
    input [D-1:0] a_negative,
    input [D-1:0] b_positive,
    input [D-1:0] b_negative,
    output [D-1:0] a_exponent,
    output [D-1:0] b_exponent,
    output signed [19:0] sum_0,
    output signed [19:0] sum_1
);
  wire a_has_positive, a_has_negative, b_has_positive, b_has_negative;
  lib_e2m1_signs a_signs (.codes(a), .has_positive(a_has_positive), .has_negative(a_has_negative));
  lib_e2m1_signs b_signs (.codes(b), .has_positive(b_has_positive), .has_negative(b_has_negative));
  wire [11:0] moves;
  wire [3:0] keeps;
  lib_class_moves #(.D(D)) classes (
      .a_positive(a_positive), .a_negative(a_negative), .b_positive(b_positive), .b_negative(b_negative),
      .a_has_positive(a_has_positive), .a_has_negative(a_has_negative),
      .b_has_positive(b_has_positive), .b_has_negative(b_has_negative),
      .a_exponent(a_exponent), .b_exponent(b_exponent), .moves(moves), .keeps(keeps)
  );
  wire [255:0] products;
  wire [31:0] a_signs_of, b_signs_of;
  lib_amxfp4_lanes lanes (
      .a(a), .b(b), .a_swapped(1'b0), .b_swapped(1'b0),
      .products(products), .a_lesser(a_signs_of), .b_lesser(b_signs_of)
  );
  lib_shifting_tree tree (
      .magnitudes(products), .a_negative(a_signs_of), .b_negative(b_signs_of), .moves(moves), .keeps(keeps),
      .sum_0(sum_0), .sum_1(sum_1)
  );
endmodule
