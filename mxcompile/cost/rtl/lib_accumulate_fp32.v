// A float32 accumulator for exact integer block values: y' = RNE(y + v * 2^exponent), with clear RNE(v * 2^exponent).
//
// Rounding is to nearest, ties to even, once per block, of the exact sum. A result below 2^-126 (after rounding)
// becomes +0, one of 2^128 and more becomes infinity, which stays until clear; nan makes y 0x7fc00000, which stays
// likewise.
// An exact cancellation gives +0: there is no -0.
//
// Two clocks: the first makes v a sign, a leading exponent and a normalized magnitude; the second is the loop (align,
// add, normalize, round), the path that sets the clock of every unit with a float accumulator.
//
// Parameters: W = bits of v (two's complement); exponent is signed, the power of two of v's lowest bit.
module lib_accumulate_fp32 #(
    parameter W = 14
) (
    input clk,
    input clear,
    input nan,
    input signed [W-1:0] v,
    input signed [9:0] exponent,
    output [31:0] y
);
  lib_accumulate_negated #(.W(W)) accumulate (
      .clk(clk), .clear(clear), .nan(nan), .negate(1'b0), .v(v), .exponent(exponent), .y(y)
  );
endmodule

// The same for -v where negate is 1. Of v's leading bits KEEP are kept, and the last of them is 1 where any dropped one
// was ("rounded to odd"): with KEEP of 26 and more a block that starts a sum is still rounded correctly, and the loop
// is no wider than that.
module lib_accumulate_negated #(
    parameter W = 14,
    parameter KEEP = W - 1
) (
    input clk,
    input clear,
    input nan,
    input negate,
    input signed [W-1:0] v,
    input signed [9:0] exponent,
    output [31:0] y
);
  localparam M = W - 1;                 // bits of |v|: -2^(W-1) itself must not occur
  localparam K = M > KEEP ? KEEP : M;   // bits of v's significand
  localparam P = K > 24 ? K : 24;       // bits of the loop's significands
  localparam G = P + 3;                 // and guard, round, sticky

  // first clock: sign, magnitude, leading one
  wire sign_in = v[W-1];
  wire [M-1:0] magnitude = (v[M-1:0] ^ {M{sign_in}}) + {{(M - 1) {1'b0}}, sign_in};
  wire [5:0] zeros;
  wire [M-1:0] normal;
  lib_normalize #(.W(M)) normalize_v (.x(magnitude), .y(normal), .zeros(zeros));

  wire [K-1:0] kept;
  generate
    if (M > K) assign kept = {normal[M-1-:K-1], |normal[M-K:0]};
    else assign kept = normal;
  endgenerate

  reg v_clear, v_nan, v_sign;
  reg [K-1:0] v_significand;            // leading one at the top, or 0
  reg signed [10:0] v_exponent;         // of the leading one, float32's bias included
  always @(posedge clk) begin
    v_clear <= clear;
    v_nan <= nan;
    v_sign <= sign_in ^ negate;
    v_significand <= kept;
    v_exponent <= exponent + 11'sd127 + M - 11'sd1 - $signed({1'b0, zeros});
  end

  // second clock: the loop
  reg [31:0] sum;
  assign y = sum;

  wire y_special = &sum[30:23] & ~v_clear;              // infinity or NaN
  wire y_live = |sum[30:23] & ~v_clear;
  wire [P-1:0] y_significand = {y_live, sum[22:0] & {23{y_live}}, {(P - 24) {1'b0}}};
  wire [P-1:0] v_wide = {v_significand, {(P - K) {1'b0}}};
  wire v_live = v_significand[K-1];

  // larger and smaller exponent; a zero is always the smaller one
  wire signed [11:0] v_minus_y = v_exponent - $signed({4'b0, sum[30:23]});
  wire signed [11:0] y_minus_v = $signed({4'b0, sum[30:23]}) - v_exponent;
  wire same = ~|v_minus_y;
  wire v_larger = ~y_live | (v_live & (~v_minus_y[11] & ~(same & y_significand >= v_wide)));
  wire [P-1:0] greater = v_larger ? v_wide : y_significand;
  wire [P-1:0] lesser = v_larger ? y_significand : v_wide;
  wire [10:0] distance = v_larger ? v_minus_y[10:0] : y_minus_v[10:0];
  wire signed [10:0] top = v_larger ? v_exponent : {3'b0, sum[30:23]};
  wire negative = v_larger ? v_sign : sum[31];
  wire subtract = v_sign ^ sum[31];

  // the smaller one moves right; what leaves counts as a sticky bit
  wire [G-1:0] moved;
  lib_shift_sticky #(.W(G)) align (.x({lesser, 3'b0}), .distance(distance), .y(moved));
  wire subtracts = subtract & y_live;   // with y = 0 there is nothing to subtract; its sign bit is 0 or cleared
  wire [G:0] total = {1'b0, greater, 3'b0} + ({1'b0, moved} ^ {(G + 1) {subtracts}}) + {{G{1'b0}}, subtracts};

  wire [5:0] lost;
  wire [G:0] shifted;
  lib_normalize #(.W(G + 1)) normalize_sum (.x(total), .y(shifted), .zeros(lost));
  wire up = shifted[G-24] & (shifted[G-23] | (|shifted[G-25:0]));
  wire [24:0] rounded = {1'b0, shifted[G:G-23]} + {24'b0, up};
  wire signed [11:0] result = top + 12'sd1 - $signed({1'b0, lost}) + $signed({1'b0, rounded[24]});
  wire vanishes = ~shifted[G] | result[11] | ~|result[10:0];
  wire overflows = ~result[11] & (|result[10:8] | (&result[7:0]));
  wire [22:0] fraction = rounded[22:0];

  always @(posedge clk)
    if (v_nan | (y_special & |sum[22:0])) sum <= 32'h7fc00000;
    else if (y_special) sum <= sum;
    else if (vanishes) sum <= 32'b0;
    else if (overflows) sum <= {negative, 8'hff, 23'b0};
    else sum <= {negative, result[7:0], fraction};
endmodule

// Moves the leading one to the top: y = x << zeros. For x = 0, y is 0 and zeros has no meaning.
module lib_normalize #(
    parameter W = 14
) (
    input [W-1:0] x,
    output [W-1:0] y,
    output [5:0] zeros
);
  localparam L = W > 32 ? 6 : W > 16 ? 5 : W > 8 ? 4 : 3;
  wire [W-1:0] step[0:L];
  assign step[L] = x;
  genvar i;
  generate
    for (i = L - 1; i >= 0; i = i - 1) begin : level
      wire empty = ~|step[i+1][W-1-:(1 << i)];
      assign step[i] = empty ? step[i+1] << (1 << i) : step[i+1];
      assign zeros[i] = empty;
    end
    if (L < 6) assign zeros[5:L] = 0;
  endgenerate
  assign y = step[0];
endmodule

// Moves right by a distance; the lowest bit also says whether any one left (the result is "rounded to odd").
module lib_shift_sticky #(
    parameter W = 27
) (
    input [W-1:0] x,
    input [10:0] distance,
    output [W-1:0] y
);
  localparam L = W > 32 ? 6 : 5;
  wire [W-1:0] step[0:L];
  wire [L:0] sticky;
  assign step[0] = x;
  assign sticky[0] = 1'b0;
  genvar i;
  generate
    for (i = 0; i < L; i = i + 1) begin : level
      localparam D = 1 << i < W ? 1 << i : W;
      assign step[i+1] = distance[i] ? step[i] >> D : step[i];
      assign sticky[i+1] = sticky[i] | (distance[i] & |step[i][D-1:0]);
    end
  endgenerate
  wire far = |distance[10:L];
  assign y = {step[L][W-1:1] & {(W - 1) {~far}}, (far ? |x : sticky[L] | step[L][0])};
endmodule
