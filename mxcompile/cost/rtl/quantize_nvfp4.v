// float16 -> NVFP4: E2M1 codes and an E4M3 scale for each of two blocks of 16; the tensor's scale is given.
//
// The definition divides three times in float32. What is left of it here, a block: amax / 6 is a division by 3; its
// quotient by the tensor's scale is divided bit by bit to 6 bits and an exact remainder, where float32 makes a tie of
// every quotient within half a unit in its last place of one (ties to even); D = scale * tensor_scale rounded to
// float32. An element's quotient x / D is never made: fp32(x / D) reaches a midpoint k * 2^j exactly where x reaches k
// * D, give or take the half unit that float32's rounding moves it (midpoints that round down must be passed); these
// four numbers, rounded up to the 11 bits of a float16, are all that the 16 lanes compare with. tensor_scale: float32,
// positive, normal. Scales: the first block's in the low byte; 0x7F (codes 0) with NaN or Inf. Clocks: input
// registers; parts and largest magnitudes; amax / 6; 3 and 3 bits of the quotient; scale and D; the four numbers;
// codes.
// LATENCY = 8
module quantize_nvfp4 (
    input clk,
    input [511:0] x,                    // 32 float16
    input [31:0] tensor_scale,
    output reg [127:0] codes,
    output reg [15:0] scales
);
  reg [511:0] x_now;
  reg [30:0] tensor_now;
  wire [191:0] exponent;
  wire [319:0] fraction;
  wire [31:0] live, negative;
  wire [1:0] finite;
  wire [31:0] largest;
  wire [127:0] codes_next;
  wire [15:0] scales_next;
  wire [95:0] place;
  wire [127:0] reach, carry;
  wire [31:0] visible;
  lib_wide_fp16_parts #(.F(10)) parts (
      .x(x_now), .exponent(exponent), .fraction(fraction), .live(live), .negative(negative), .finite()
  );
  // what goes along with the lanes, from the second clock to the last
  reg [575:0] lanes_1, lanes_2, lanes_3, lanes_4, lanes_5, lanes_6;
  reg [511:0] keys;
  reg [1:0] finite_now;
  integer i;
  always @* begin
    finite_now = 2'b11;
    for (i = 0; i < 32; i = i + 1) begin
      keys[16*i+:16] = {exponent[6*i+:6], fraction[10*i+:10]};
      finite_now[i/16] = finite_now[i/16] & ~&x_now[16*i+10+:5];
    end
  end
  always @(posedge clk) begin
    {x_now, tensor_now} <= {x, tensor_scale[30:0]};
    lanes_1 <= {negative, live, keys};
    {lanes_2, lanes_3, lanes_4, lanes_5, lanes_6} <= {lanes_1, lanes_2, lanes_3, lanes_4, lanes_5};
    {codes, scales} <= {codes_next, scales_next};
  end
  genvar b;
  generate
    for (b = 0; b < 2; b = b + 1) begin : block
      wire [8:0] base;
      wire [39:0] bounds;
      wire [3:0] carries;
      wire usable;
      lib_wide_maximum #(.LOG(4), .W(16)) maximum (.x(keys[256*b+:256]), .y(largest[16*b+:16]));
      lib_wide_nvfp4_scale scale (
          .clk(clk), .largest(largest[16*b+:16]), .live(|live[16*b+:16]), .finite(finite_now[b]),
          .tensor_scale(tensor_now),
          .scale(scales_next[8*b+:8]), .base(base), .bounds(bounds), .carries(carries), .usable(usable)
      );
      lib_wide_nvfp4_compare compare (
          .keys(lanes_6[256*b+:256]), .live(lanes_6[512+16*b+:16]), .base(base), .bounds(bounds), .carries(carries),
          .usable(usable), .place(place[48*b+:48]), .reach(reach[64*b+:64]), .carry(carry[64*b+:64]),
          .visible(visible[16*b+:16])
      );
    end
  endgenerate
  lib_wide_e2m1_codes #(.LANES(32)) encode (
      .place(place), .reach(reach), .carry(carry), .visible(visible), .negative(lanes_6[575:544]), .codes(codes_next)
  );
endmodule

// 16 lanes against the four numbers of their block.
module lib_wide_nvfp4_compare (
    input [255:0] keys,                 // {exponent of 2^-24, fraction}
    input [15:0] live,
    input [8:0] base,
    input [39:0] bounds,
    input [3:0] carries,
    input usable,
    output reg [47:0] place,
    output reg [63:0] reach,
    output [63:0] carry,
    output [15:0] visible
);
  assign carry = {16{carries}};
  assign visible = live & {16{usable}};
  reg [9:0] f;
  reg [8:0] distance;
  integer lane;
  always @*
    for (lane = 0; lane < 16; lane = lane + 1) begin
      f = keys[16*lane+:10];
      distance = {3'b0, keys[16*lane+10+:6]} - base;
      place[3*lane+:3] = distance[8] ? 3'd0 : distance > 9'd6 ? 3'd7 : distance[2:0];
      reach[4*lane+:4] = {f >= bounds[30+:10], f >= bounds[20+:10], f >= bounds[10+:10], f >= bounds[0+:10]};
    end
endmodule

// A block's scale, and 1, 3, 5, 7 times D; 5 clocks.
module lib_wide_nvfp4_scale (
    input clk,
    input [15:0] largest,               // {exponent of 2^-24, fraction}
    input live,
    input finite,
    input [30:0] tensor_scale,
    output reg [7:0] scale,
    output reg signed [8:0] base,       // exponent of D, less 3
    output reg [39:0] bounds,           // fractions of the four numbers, rounded up
    output reg [3:0] carries,
    output reg usable
);
  // amax; then amax / 6 = significand * 2^.., 24 bits rounded: A / 3 with A = 1024 to 2047, times 2^15 or 2^14
  reg [15:0] amax;
  reg [30:0] tensor_1, tensor_2, tensor_3, tensor_4;
  reg some_1, some_2, some_3, some_4, finite_1, finite_2, finite_3, finite_4, finite_5;
  wire [10:0] a = {1'b1, amax[9:0]};
  wire high = &a[10:9];                 // A >= 1536
  reg [10:0] third;
  reg [1:0] rest3;
  reg [2:0] part;
  integer i;
  always @* begin
    rest3 = 0;
    for (i = 10; i >= 0; i = i - 1) begin
      part = {rest3, a[i]};
      third[i] = part >= 3;
      rest3 = part >= 3 ? part - 3'd3 : part;
    end
  end
  wire [14:0] digits = rest3 == 0 ? 15'd0
                     : high ? (rest3 == 1 ? 15'd5461 : 15'd10923) : rest3 == 1 ? 15'd10923 : 15'd21845;
  reg [24:0] rest_2;                    // below 2 divisors
  reg signed [9:0] power_2, power_3, power_4;

  // the quotient by the tensor's scale, 6 bits
  wire [23:0] divisor_2 = {1'b1, tensor_2[22:0]};
  wire [23:0] divisor_3 = {1'b1, tensor_3[22:0]};
  wire [23:0] divisor_4 = {1'b1, tensor_4[22:0]};
  reg [24:0] r2, r3, rest_3;
  reg [25:0] less2, less3;
  reg [2:0] q2, q3, q_3;
  reg [5:0] q_4;
  reg [23:0] rest_4;
  integer j, k;
  always @* begin
    r2 = rest_2;
    for (j = 2; j >= 0; j = j - 1) begin
      less2 = {1'b0, r2} - {2'b0, divisor_2};
      q2[j] = ~less2[25];
      r2 = (less2[25] ? r2 : less2[24:0]) << 1;
    end
  end
  always @* begin
    r3 = rest_3;
    for (k = 2; k >= 0; k = k - 1) begin
      less3 = {1'b0, r3} - {2'b0, divisor_3};
      q3[k] = ~less3[25];
      r3 = (less3[25] ? r3 : less3[24:0]) << 1;
    end
  end

  // E4M3: 4 bits, rounded to even as float32 has the quotient; D = those 4 bits * the tensor's scale, 24 bits rounded
  wire [3:0] n = q_4[5] ? q_4[5:2] : q_4[4:1];
  wire half = q_4[5] ? q_4[1] : q_4[0];
  wire [4:0] window = divisor_4[23:19] >> ~q_4[5];
  wire just_above = rest_4 <= window;
  wire just_below = {1'b0, divisor_4} <= {1'b0, rest_4} + {20'b0, window};
  wire on_tie = half ? ~(q_4[5] & q_4[0]) & just_above : ~(q_4[5] & ~q_4[0]) & just_below;
  wire up = on_tie ? n[0] : half;
  wire signed [9:0] field = power_4 + {9'b0, q_4[5]};   // E4M3's exponent field
  wire signed [13:0] code = $signed({field, 3'b0}) + $signed({11'b0, n[2:0]}) + $signed({13'b0, up});
  wire [6:0] byte_4 = ~some_4 | code < 14'sd8 ? 7'h08 : code > 14'sd126 ? 7'h7e : code[6:0];
  wire [27:0] product = divisor_4 * {1'b1, byte_4[2:0]};
  wire [23:0] cut = product[27] ? product[27:4] : product[26:3];
  wire guard = product[27] ? product[3] : product[2];
  wire sticky = product[27] ? |product[2:0] : |product[1:0];
  wire [24:0] rounded = {1'b0, cut} + {24'b0, guard & (sticky | cut[0])};
  reg [23:0] d_5;
  reg signed [10:0] power_5;
  reg [6:0] byte_5;

  // 1, 3, 5, 7 times D with what float32's rounding moves them, rounded up to 11 bits
  wire [1:0] unit = {1'b1, d_5[22]};    // D * 2^-22
  wire [26:0] d = {3'b0, d_5};
  wire [26:0] bound1 = d + 27'd1;
  wire [26:0] bound3 = d + (d << 1) - 27'd1;
  wire [26:0] bound5 = d + (d << 2) + {25'b0, unit} + 27'd1;
  wire [26:0] bound7 = (d << 3) - d - {25'b0, unit};
  wire carry3 = bound3[25];
  wire carry5 = bound5[26];
  wire carry7 = bound7[26];
  wire [11:0] up1 = bound1[24:13] + {11'b0, |bound1[12:0]};
  wire [11:0] up3 = carry3 ? {1'b0, bound3[25:15]} + {11'b0, |bound3[14:0]}
                  : {1'b0, bound3[24:14]} + {11'b0, |bound3[13:0]};
  wire [11:0] up5 = carry5 ? {1'b0, bound5[26:16]} + {11'b0, |bound5[15:0]}
                  : {1'b0, bound5[25:15]} + {11'b0, |bound5[14:0]};
  wire [11:0] up7 = carry7 ? {1'b0, bound7[26:16]} + {11'b0, |bound7[15:0]}
                  : {1'b0, bound7[25:15]} + {11'b0, |bound7[14:0]};

  always @(posedge clk) begin
    {amax, some_1, finite_1, tensor_1} <= {largest, live, finite, tensor_scale};
    rest_2 <= high ? {third[9:0], digits[13:0]} : {third[9:0], digits};
    // amax / 6 = A / 3 * 2^(e - 24 - 11); over 2^(t - 150); field of a quotient below 1, from bias 7
    power_2 <= $signed({4'b0, amax[15:10]}) - $signed({2'b0, tensor_1[30:23]}) + (high ? 10'sd107 : 10'sd106);
    {some_2, finite_2, tensor_2} <= {some_1, finite_1, tensor_1};
    {rest_3, q_3, power_3, some_3, finite_3, tensor_3} <= {r2, q2, power_2, some_2, finite_2, tensor_2};
    {rest_4, q_4, power_4, some_4, finite_4, tensor_4} <= {r3[24:1], q_3, q3, power_3, some_3, finite_3, tensor_3};
    d_5 <= rounded[24] ? rounded[24:1] : rounded[23:0];
    power_5 <= $signed({3'b0, tensor_4[30:23]}) + $signed({7'b0, byte_4[6:3]})
             + $signed({10'b0, product[27]}) + $signed({10'b0, rounded[24]});
    {byte_5, finite_5} <= {byte_4, finite_4};
    base <= power_5 - 11'sd113;
    bounds <= {up7[9:0], up5[9:0], up3[9:0], up1[9:0]};
    carries <= {carry7 | up7[11], carry5 | up5[11], carry3 | up3[11], up1[11]};
    usable <= finite_5;
    scale <= finite_5 ? {1'b0, byte_5} : 8'h7f;
  end
endmodule
