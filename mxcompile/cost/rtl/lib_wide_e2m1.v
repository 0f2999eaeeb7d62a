// E2M1 codes from comparisons of numbers with 1, 3, 5 and 7 times their scale (the midpoints of E2M1 are .25, .75,
// 1.25, 1.75, 2.5, 3.5 and 5, that is {1, 3, 5, 7} * 2^j).
//
// place: exponent of the number less exponent of the scale, plus 3, cut off at 0 and 7. For k = 1, 3, 5, 7 (bits 0 to
// 3): reach: the number's significand is not below that of k * scale; carry: the exponent of k * scale is one more
// than for a scale of 1.0. The sum of the reached midpoints is the code.
module lib_wide_e2m1_codes #(
    parameter LANES = 32
) (
    input [3*LANES-1:0] place,
    input [4*LANES-1:0] reach,
    input [4*LANES-1:0] carry,
    input [LANES-1:0] visible,
    input [LANES-1:0] negative,
    output reg [4*LANES-1:0] codes
);
  reg [2:0] p;
  reg [3:0] r, c;
  reg [7:1] reached;
  integer lane;
  always @*
    for (lane = 0; lane < LANES; lane = lane + 1) begin
      p = place[3*lane+:3];
      r = reach[4*lane+:4];
      c = carry[4*lane+:4];
      reached[1] = c[0] ? p > 2 | p == 2 & r[0] : p > 1 | p == 1 & r[0];
      reached[2] = c[1] ? p > 3 | p == 3 & r[1] : p > 2 | p == 2 & r[1];
      reached[3] = c[2] ? p > 4 | p == 4 & r[2] : p > 3 | p == 3 & r[2];
      reached[4] = c[3] ? p > 4 | p == 4 & r[3] : p > 3 | p == 3 & r[3];
      reached[5] = c[2] ? p > 5 | p == 5 & r[2] : p > 4 | p == 4 & r[2];
      reached[6] = c[3] ? p > 5 | p == 5 & r[3] : p > 4 | p == 4 & r[3];
      reached[7] = c[2] ? p > 6 | p == 6 & r[2] : p > 5 | p == 5 & r[2];
      reached = reached & {7{visible[lane]}};
      codes[4*lane+:4] = {
        negative[lane] & reached[1],
        reached[4],
        reached[2] & ~reached[4] | reached[6],
        reached[1] & ~reached[2] | reached[3] & ~reached[4] | reached[5] & ~reached[6] | reached[7]
      };
    end
endmodule
