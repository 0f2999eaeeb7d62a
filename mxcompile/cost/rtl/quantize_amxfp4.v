// float16 -> AMXFP4: E2M1 codes and one E5M2 scale for the positive, one for the negative elements; nothing is divided.
//
// Scale: p / 6 rounded to 2 mantissa bits is a comparison of p's fraction with the midpoints times 6, which all have
// at most 5 fraction bits; so 5 fraction bits of every number are kept, and no rounding of float32 can matter
// (neighbouring float16 differ by more). Element: x / s against the midpoints of E2M1, {1, 3, 5, 7} * 2^j, is x
// against k * s; with a scale of 3 significant bits these are again numbers of at most 5 fraction bits, four for each
// of the scale's mantissas. Scales: {negative, positive}. A side without elements: 0x3C (1.0). NaN or Inf in the
// block: scales 0x7F, codes 0. Clocks: input registers; parts and extremes; scales and codes.
// LATENCY = 3
module quantize_amxfp4 (
    input clk,
    input [511:0] x,                    // 32 float16
    output reg [127:0] codes,
    output reg [15:0] scales
);
  reg [511:0] x_now;
  wire [191:0] exponent;
  wire [159:0] fraction;
  wire [31:0] live, negative;
  wire finite;
  lib_wide_fp16_parts #(.F(5)) parts (
      .x(x_now), .exponent(exponent), .fraction(fraction), .live(live), .negative(negative), .finite(finite)
  );

  // extremes: {exponent, fraction} of the largest magnitude of a side
  reg [32*11-1:0] magnitude;
  wire [10:0] first_largest, second_largest;
  integer i;
  always @*
    for (i = 0; i < 32; i = i + 1) magnitude[11*i+:11] = {exponent[6*i+:6], fraction[5*i+:5]};
  lib_wide_extremes #(.W(11)) extremes (
      .magnitude(magnitude), .negative(negative), .first(first_largest), .second(second_largest)
  );

  reg [191:0] exponent_1;
  reg [159:0] fraction_1;
  reg [31:0] live_1, negative_1;
  reg [10:0] first_extreme, second_extreme;
  reg first_live, second_live, finite_1;
  always @(posedge clk) begin
    x_now <= x;
    {exponent_1, fraction_1, live_1, negative_1, finite_1} <= {exponent, fraction, live, negative, finite};
    {first_extreme, second_extreme} <= {first_largest, second_largest};
    {first_live, second_live} <= {|(live & ~negative), |(live & negative)};
  end

  wire [6:0] first_byte, second_byte;
  wire [5:0] first_exponent, second_exponent;
  wire [1:0] first_mantissa, second_mantissa;
  lib_wide_sixth_e5m2 first_scale (
      .extreme(first_extreme), .live(first_live), .scale(first_byte), .exponent(first_exponent),
      .mantissa(first_mantissa)
  );
  lib_wide_sixth_e5m2 second_scale (
      .extreme(second_extreme), .live(second_live), .scale(second_byte), .exponent(second_exponent),
      .mantissa(second_mantissa)
  );

  reg [95:0] place;
  reg [127:0] reach, carry;
  reg [31:0] visible;
  reg [6:0] distance;
  reg [4:0] f, f3, f5, f7;
  reg [1:0] m;
  integer lane;
  always @*
    for (lane = 0; lane < 32; lane = lane + 1) begin
      f = fraction_1[5*lane+:5];
      m = negative_1[lane] ? second_mantissa : first_mantissa;
      distance = {1'b0, exponent_1[6*lane+:6]} + 7'd3 - {1'b0, negative_1[lane] ? second_exponent : first_exponent};
      place[3*lane+:3] = distance[6] ? 3'd0 : distance > 7'd6 ? 3'd7 : distance[2:0];
      // fractions of 3, 5 and 7 times 1, 1.25, 1.5, 1.75, in 32nds
      f3 = m == 0 ? 5'd16 : m == 1 ? 5'd28 : m == 2 ? 5'd4 : 5'd10;
      f5 = m == 0 ? 5'd8 : m == 1 ? 5'd18 : m == 2 ? 5'd28 : 5'd3;
      f7 = m == 0 ? 5'd24 : m == 1 ? 5'd3 : m == 2 ? 5'd10 : 5'd17;
      reach[4*lane+:4] = {f >= f7, f >= f5, f >= f3, f[4:3] >= m};
      carry[4*lane+:4] = {|m, &m, m[1], 1'b0};
      visible[lane] = live_1[lane] & finite_1 & |(negative_1[lane] ? second_byte : first_byte);
    end
  wire [127:0] codes_next;
  lib_wide_e2m1_codes #(.LANES(32)) encode (
      .place(place), .reach(reach), .carry(carry), .visible(visible), .negative(negative_1), .codes(codes_next)
  );
  always @(posedge clk) begin
    codes <= codes_next;
    scales <= finite_1 ? {1'b0, second_byte, 1'b0, first_byte} : 16'h7f7f;
  end
endmodule
