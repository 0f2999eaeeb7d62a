// An E5M2 scale byte as significand * 2^(exponent - 17), subnormals without a leading one. The sign bit is not read;
// the bytes of infinity and NaN (0x7C to 0x7F) are both nan.
module lib_e5m2_scale (
    input [7:0] byte_in,
    output [2:0] significand,
    output [4:0] exponent,
    output nan
);
  wire normal = |byte_in[6:2];
  assign significand = {normal, byte_in[1:0]};
  assign exponent = {byte_in[6:3], byte_in[2] | ~normal};
  assign nan = &byte_in[6:2];
endmodule

// Orders the two sides of an operand by the exponents of their scales, the greater one first. A side without elements
// (its scale is 1.0 by the format's rule) never counts as the greater one: it would push the other out of the window.
module lib_e5m2_sides (
    input [15:0] scales,                 // {negative, positive}
    input has_positive,
    input has_negative,
    output swapped,                      // the negative side is the greater one
    output [2:0] greater,                // significands
    output [2:0] lesser,
    output [4:0] exponent,               // of the greater one
    output [4:0] distance,               // how far the exponent of the lesser one, if it has elements, is below
    output nan
);
  wire [2:0] positive_significand, negative_significand;
  wire [4:0] positive_exponent, negative_exponent;
  wire positive_nan, negative_nan;
  lib_e5m2_scale positive (
      .byte_in(scales[7:0]), .significand(positive_significand), .exponent(positive_exponent), .nan(positive_nan)
  );
  lib_e5m2_scale negative (
      .byte_in(scales[15:8]), .significand(negative_significand), .exponent(negative_exponent), .nan(negative_nan)
  );
  wire [5:0] below = {1'b0, positive_exponent} - {1'b0, negative_exponent};
  wire [4:0] above = negative_exponent - positive_exponent;
  assign swapped = has_negative & (below[5] | ~has_positive);
  assign greater = swapped ? negative_significand : positive_significand;
  assign lesser = swapped ? positive_significand : negative_significand;
  assign exponent = swapped ? negative_exponent : positive_exponent;
  assign distance = swapped ? above : below[4:0];
  assign nan = positive_nan | negative_nan;
endmodule

// Two sums that meet their scales: greater * greater_factor * 2^7 - lesser * lesser_factor * 2^(7 - distance). A lesser
// side more than 7 binades below counts as zero; within that nothing is lost.
module lib_e5m2_meet #(
    parameter W = 14,                    // of the signed sums
    parameter V = 23                     // of the result, by what the sums can be
) (
    input signed [W-1:0] greater,
    input signed [W-1:0] lesser,
    input [2:0] greater_factor,
    input [2:0] lesser_factor,
    input [4:0] distance,
    output signed [V-1:0] y
);
  wire signed [W+2:0] scaled = lesser * $signed({1'b0, lesser_factor & {3{~|distance[4:3]}}});
  wire signed [W+9:0] wide = scaled;
  wire signed [W+9:0] moved = wide << ~distance[2:0];
  assign y = greater * $signed({1'b0, greater_factor, 7'b0}) - moved;
endmodule
