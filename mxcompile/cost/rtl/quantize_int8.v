// float16 -> INT8 codes of 32 elements of a row, and the row's extremes so far.
//
// A row is read twice: first for high and low, of which scale and zero point follow once a row (outside: one division
// a row), then for the codes, clamp(rint(fp32(x / scale)) + zero, 0, 255). The quotient is divided bit by bit, so that
// the remainder is exact: with x = X * 2^.., X = 1024 to 2047, and the scale's significand S, 10 bits of X / S and the
// remainder. float32 makes a tie of every quotient within half a unit in its last place of a tie: that is, all bits
// below the half are 0 (or all 1) and the remainder (or S less it) is at most S >> 15, S >> 16 for a quotient below 1;
// ties go to even. A product with the reciprocal would need 36 bits of it to be right always.
//
// scale: float32, normal; NaN (a row that is not finite) makes codes 0. high, low: the largest magnitude of positive
// and negative elements, bits of float16; clear starts a row with this block. A row is not finite if one is 0x7c00 or
// more. Clocks: input registers; parts, exponents, extremes; 9 bits of the quotients in 3; the last bit and rounding.
// LATENCY = 6
module quantize_int8 (
    input clk,
    input clear,
    input [511:0] x,                    // 32 float16
    input [31:0] scale,
    input [7:0] zero,
    output [255:0] codes,
    output reg [14:0] high,             // 2 clocks after its block
    output reg [14:0] low
);
  reg [511:0] x_now;
  reg [30:0] scale_now;
  reg [7:0] zero_now;
  reg clear_now;

  // the extremes, of the bits as they are
  reg [32*15-1:0] magnitude;
  reg [31:0] sign;
  wire [14:0] first, second;
  integer i;
  always @*
    for (i = 0; i < 32; i = i + 1) {sign[i], magnitude[15*i+:15]} = x_now[16*i+:16];
  lib_wide_extremes #(.W(15)) extremes (.magnitude(magnitude), .negative(sign), .first(first), .second(second));
  always @(posedge clk) begin
    {x_now, scale_now, zero_now, clear_now} <= {x, scale[30:0], zero, clear};
    high <= first > high | clear_now ? first : high;
    low <= second > low | clear_now ? second : low;
  end

  // x / scale = X / S * 2^power; 10 bits reach down to the half where power is 8
  wire [191:0] exponent;
  wire [319:0] fraction;
  wire [31:0] live, negative;
  lib_wide_fp16_parts #(.F(10)) parts (
      .x(x_now), .exponent(exponent), .fraction(fraction), .live(live), .negative(negative), .finite()
  );
  wire [8:0] offset = 9'd104 - {1'b0, scale_now[30:23]};        // power + 1 = exponent + offset
  reg [8:0] reach;
  reg [32*7-1:0] control;               // of a lane: saturated, visible, power + 1, negative
  integer j;
  always @*
    for (j = 0; j < 32; j = j + 1) begin
      reach = {3'b0, exponent[6*j+:6]} + offset;
      control[7*j+:7] = {
        live[j] & ~reach[8] & reach[7:0] > 9, live[j] & ~reach[8] & reach[7:0] < 10, reach[3:0], negative[j]
      };
    end

  reg [7:0] zero_1;
  reg [23:0] divisor_1;
  reg bad_1;
  reg [32*25-1:0] rest_1;
  reg [32*7-1:0] control_1;
  integer k;
  always @(posedge clk) begin
    {zero_1, divisor_1, bad_1} <= {zero_now, 1'b1, scale_now[22:0], &scale_now[30:23]};
    for (k = 0; k < 32; k = k + 1) rest_1[25*k+:25] <= {2'b01, fraction[10*k+:10], 13'b0};
    control_1 <= control;
  end
  wire [32*25-1:0] rest_2, rest_3, rest_4;
  wire [32*3-1:0] bits_2;
  wire [32*6-1:0] bits_3;
  wire [32*9-1:0] bits_4;
  wire [32:0] shared_2, shared_3, shared_4;
  wire [32*7-1:0] control_2, control_3, control_4;
  lib_wide_divide #(.BEFORE(0)) divide_1 (
      .clk(clk), .rest(rest_1), .bits(1'b0), .shared({bad_1, zero_1, divisor_1}), .control(control_1),
      .rest_next(rest_2), .bits_next(bits_2), .shared_next(shared_2), .control_next(control_2)
  );
  lib_wide_divide #(.BEFORE(3)) divide_2 (
      .clk(clk), .rest(rest_2), .bits(bits_2), .shared(shared_2), .control(control_2),
      .rest_next(rest_3), .bits_next(bits_3), .shared_next(shared_3), .control_next(control_3)
  );
  lib_wide_divide #(.BEFORE(6)) divide_3 (
      .clk(clk), .rest(rest_3), .bits(bits_3), .shared(shared_3), .control(control_3),
      .rest_next(rest_4), .bits_next(bits_4), .shared_next(shared_4), .control_next(control_4)
  );
  lib_wide_round_quotient round (
      .clk(clk), .rest(rest_4), .bits(bits_4), .divisor(shared_4[23:0]), .zero(shared_4[31:24]), .bad(shared_4[32]),
      .control(control_4), .codes(codes)
  );
endmodule

// Three bits of 32 quotients: rest / divisor, restoring. A rest comes in below 2 divisors; its next one is doubled.
module lib_wide_divide #(
    parameter BEFORE = 0
) (
    input clk,
    input [799:0] rest,
    input [(BEFORE==0?1:32*BEFORE)-1:0] bits,
    input [32:0] shared,                // what goes along; the divisor in the low 24 bits
    input [223:0] control,
    output reg [799:0] rest_next,
    output reg [32*(BEFORE+3)-1:0] bits_next,
    output reg [32:0] shared_next,
    output reg [223:0] control_next
);
  localparam B = BEFORE + 3;
  reg [799:0] left;
  reg [32*B-1:0] digits;
  reg [24:0] r;
  reg [25:0] less;
  integer lane, step;
  always @*
    for (lane = 0; lane < 32; lane = lane + 1) begin
      r = rest[25*lane+:25];
      digits[B*lane+:B] = 0;
      if (BEFORE > 0) digits[B*lane+3+:(BEFORE==0?1:BEFORE)] = bits[BEFORE*lane+:(BEFORE==0?1:BEFORE)];
      for (step = 2; step >= 0; step = step - 1) begin
        less = {1'b0, r} - {2'b0, shared[23:0]};
        digits[B*lane+step] = ~less[25];
        r = (less[25] ? r : less[24:0]) << 1;
      end
      left[25*lane+:25] = r;
    end
  always @(posedge clk) begin
    {rest_next, bits_next, shared_next, control_next} <= {left, digits, shared, control};
  end
endmodule

// The last clock: the tenth bit, quotients to integers by float32's ties to even, zero point, clamping.
module lib_wide_round_quotient (
    input clk,
    input [799:0] rest,
    input [287:0] bits,
    input [23:0] divisor,
    input [7:0] zero,
    input bad,
    input [223:0] control,
    output reg [255:0] codes
);
  reg [255:0] next;
  reg [9:0] q;
  reg [25:0] less;
  reg [23:0] remainder, window;
  reg [18:0] above, below;              // {integer, half, rest of the quotient} for power + 1 = 0 to 9; below: of ~q
  reg saturated, visible, negative, up;
  reg [3:0] reach;
  reg [9:0] n;
  reg [9:0] code;
  integer lane;
  always @*
    for (lane = 0; lane < 32; lane = lane + 1) begin
      {saturated, visible, reach, negative} = control[7*lane+:7];
      less = {1'b0, rest[25*lane+:25]} - {2'b0, divisor};
      q = {bits[9*lane+:9], ~less[25]};
      remainder = less[25] ? rest[25*lane+:24] : less[23:0];
      window = {8'b0, divisor[23:8]} >> (q[9] ? 7 : 8);
      above = {9'b0, q} << reach;
      below = {9'b0, ~q} << reach;
      n = {1'b0, above[18:10]};
      if (above[9]) up = |above[8:0] | remainder > window | n[0];
      else up = ~|below[8:0] & {1'b0, divisor} <= {1'b0, remainder} + {1'b0, window} & n[0];
      n = visible ? n + {9'b0, up} : 10'd0;
      code = negative ? {2'b0, zero} - n : {2'b0, zero} + n;
      if (negative & code[9] | saturated & negative) code = 0;
      else if (|code[9:8] | saturated) code = 10'd255;
      next[8*lane+:8] = code[7:0] & {8{~bad}};
    end
  always @(posedge clk) codes <= next;
endmodule
