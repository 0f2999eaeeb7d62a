// What the quantizers share: float16 taken apart, and elements rounded for scales that are powers of two.

// 32 float16 numbers as 2^(exponent - 24) * 1.fraction, subnormal ones too. Of the fraction the upper F bits are kept:
// ties away from zero need no bit below the first one that is cut off. Zero: live = 0, exponent and fraction 0.
module lib_wide_fp16_parts #(
    parameter F = 10
) (
    input [511:0] x,
    output reg [32*6-1:0] exponent,
    output reg [32*F-1:0] fraction,
    output reg [31:0] live,
    output reg [31:0] negative,
    output reg finite                   // no NaN, no infinity
);
  reg [4:0] field;
  reg [9:0] m, s;
  reg [3:0] zeros;
  integer lane;
  always @* begin
    finite = 1'b1;
    for (lane = 0; lane < 32; lane = lane + 1) begin
      {negative[lane], field, m} = x[16*lane+:16];
      finite = finite & ~&field;
      live[lane] = |field | |m;
      s = m;
      zeros[3] = ~|s[9:2];
      if (zeros[3]) s = s << 8;
      zeros[2] = ~|s[9:6];
      if (zeros[2]) s = s << 4;
      zeros[1] = ~|s[9:8];
      if (zeros[1]) s = s << 2;
      zeros[0] = ~s[9];
      if (zeros[0]) s = s << 1;
      if (~|field) m = s << 1;
      fraction[F*lane+:F] = m[9-:F];
      exponent[6*lane+:6] = |field ? {1'b0, field} + 6'd9 : {6{live[lane]}} & (6'd9 - {2'b0, zeros});
    end
  end
endmodule

// Formats with power-of-two scales by the FLOOR rule: scale = 2^(floor(log2 amax) - emax), so an element's exponent
// within the format is its distance to the block's largest, and nothing is divided. With TOP the biased exponent of
// the largest:
//   te = TOP - distance; subnormal where te < 1, then the significand moves right by 1 - te;
//   code = (max(te, 1) - 1) * 2^M + round(significand), where a carry steps to the next exponent by itself; saturating.
//
// Parameters: BITS = bits of a code; M = mantissa bits; TOP; MAX = largest code without sign; SCALE = byte of a block
// whose largest exponent is 0 (of 2^-24); TWOS = codes in two's complement; SIDES = 2: positive and negative elements
// have a scale each, the positive ones' in the low byte. Blocks with NaN or Inf: scales 0xFF, codes 0; no element:
// scale 0. Clocks: input registers; parts and largest exponents; codes. Latency 3.
module lib_wide_quantize_mx #(
    parameter BITS = 4,
    parameter M = 1,
    parameter TOP = 3,
    parameter MAX = 7,
    parameter SCALE = 101,
    parameter TWOS = 0,
    parameter SIDES = 1
) (
    input clk,
    input [511:0] x,
    output reg [32*BITS-1:0] codes,
    output reg [8*SIDES-1:0] scales
);
  reg [511:0] x_now;
  wire [191:0] exponent;
  wire [32*(M+1)-1:0] fraction;
  wire [31:0] live, negative;
  wire finite;
  lib_wide_fp16_parts #(.F(M + 1)) parts (
      .x(x_now), .exponent(exponent), .fraction(fraction), .live(live), .negative(negative), .finite(finite)
  );
  reg [191:0] first, second;            // the exponents of either side
  wire [5:0] first_largest, second_largest;
  integer i;
  always @*
    for (i = 0; i < 32; i = i + 1) begin
      first[6*i+:6] = exponent[6*i+:6] & {6{SIDES == 1 | ~negative[i]}};
      second[6*i+:6] = exponent[6*i+:6] & {6{SIDES == 2 & negative[i]}};
    end
  lib_wide_maximum #(.LOG(5), .W(6)) first_maximum (.x(first), .y(first_largest));
  lib_wide_maximum #(.LOG(5), .W(6)) second_maximum (.x(second), .y(second_largest));

  reg [191:0] exponent_1;
  reg [32*(M+1)-1:0] fraction_1;
  reg [31:0] live_1, negative_1;
  reg finite_1, first_live, second_live;
  reg [5:0] first_top, second_top;
  always @(posedge clk) begin
    x_now <= x;
    {exponent_1, fraction_1, live_1, negative_1, finite_1} <= {exponent, fraction, live, negative, finite};
    {first_top, second_top} <= {first_largest, second_largest};
    first_live <= |(live & (SIDES == 1 ? 32'hffffffff : ~negative));
    second_live <= |(live & negative);
  end

  reg [32*BITS-1:0] codes_next;
  reg [5:0] distance, right;
  reg [M+1:0] significand;
  reg [BITS:0] magnitude;
  integer lane;
  always @*
    for (lane = 0; lane < 32; lane = lane + 1) begin
      distance = (SIDES == 2 & negative_1[lane] ? second_top : first_top) - exponent_1[6*lane+:6];
      right = distance < TOP ? 6'd0 : distance - (TOP - 6'd1);
      significand = {1'b1, fraction_1[(M+1)*lane+:M+1]} >> right;
      magnitude = {1'b0, significand[M+1:1]} + significand[0];
      if (distance < TOP) magnitude = magnitude + ((TOP - 1 - distance) << M);
      if (magnitude > MAX) magnitude = MAX;
      if (~live_1[lane] | ~finite_1) magnitude = 0;
      if (TWOS == 1) codes_next[BITS*lane+:BITS] = negative_1[lane] ? -magnitude[BITS-1:0] : magnitude[BITS-1:0];
      else codes_next[BITS*lane+:BITS] = {negative_1[lane] & |magnitude, magnitude[BITS-2:0]};
    end
  wire [7:0] first_scale = first_live ? first_top + SCALE : 0;
  wire [7:0] second_scale = second_live ? second_top + SCALE : 0;
  wire [15:0] scales_next = {second_scale, first_scale} | {16{~finite_1}};
  always @(posedge clk) begin
    codes <= codes_next;
    scales <= scales_next[8*SIDES-1:0];
  end
endmodule

// E5M2 byte nearest to p / 6, ties away from zero, for p = 2^(exponent - 24) * 1.fraction; 1.0 where there is no p.
// And the byte as 2^(exponent - 24) * 1.mantissa, the subnormal ones too.
//
// 1.125, 1.375, 1.625 and 1.875 times 1.5 are 1 + 22/32, and 2 times 1 + 1/32, 1 + 7/32, 1 + 13/32.
module lib_wide_sixth_e5m2 (
    input [10:0] extreme,
    input live,
    output reg [6:0] scale,
    output reg [5:0] exponent,
    output reg [1:0] mantissa
);
  wire [5:0] e = extreme[10:5];
  wire [4:0] f = extreme[4:0];
  wire [5:0] below = e - 6'd12;         // the scale's exponent, if p / 6 is in [1, 4/3) * 2^(e - 27)
  wire [5:0] above = e - 6'd11;
  always @* begin
    if (~live) scale = 7'h3c;
    else if (e < 9) scale = 0;
    else
      case (e)                          // subnormal: steps of 2^-16, midpoints 3, 9, 15, 21 * 2^-16
        6'd9: scale = f >= 16;
        6'd10: scale = 1;
        6'd11: scale = f >= 28 ? 3 : f >= 4 ? 2 : 1;
        6'd12: scale = f >= 22 ? 5 : f >= 10 ? 4 : 3;
        default:
          scale = f >= 22 ? {above[4:0], 2'd1} : f >= 13 ? {above[4:0], 2'd0} : f >= 7 ? {below[4:0], 2'd3}
               : f >= 1 ? {below[4:0], 2'd2} : {below[4:0], 2'd1};
      endcase
    exponent = |scale[6:2] ? {1'b0, scale[6:2]} + 6'd9 : scale[1] ? 6'd9 : 6'd8;
    mantissa = |scale[6:2] ? scale[1:0] : {&scale[1:0], 1'b0};
  end
endmodule

// The largest magnitude of the positive and of the negative lanes, 0 without one. The first level shares its
// comparators, as a lane belongs to one side only.
module lib_wide_extremes #(
    parameter W = 11
) (
    input [32*W-1:0] magnitude,
    input [31:0] negative,
    output [W-1:0] first,               // of the positive lanes
    output [W-1:0] second
);
  reg [16*W-1:0] firsts, seconds;
  reg [W-1:0] even, odd;
  reg greater;
  integer i;
  always @*
    for (i = 0; i < 16; i = i + 1) begin
      even = magnitude[2*W*i+:W];
      odd = magnitude[2*W*i+W+:W];
      greater = even > odd;
      firsts[W*i+:W] = ~negative[2*i] & (greater | negative[2*i+1]) ? even : odd & {W{~negative[2*i+1]}};
      seconds[W*i+:W] = negative[2*i] & (greater | ~negative[2*i+1]) ? even : odd & {W{negative[2*i+1]}};
    end
  lib_wide_maximum #(.LOG(4), .W(W)) first_maximum (.x(firsts), .y(first));
  lib_wide_maximum #(.LOG(4), .W(W)) second_maximum (.x(seconds), .y(second));
endmodule
