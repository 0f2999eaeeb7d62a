// AMXFP4 x AMXFP4, class sums from tagged pairs: 32 pairs of E2M1 codes, two E5M2 scale bytes an operand, float32
// accumulator.
//
// As amxfp4_four_trees, but two neighbouring lanes, which hold at most two of the four classes, are added before the
// trees where they have the same class: one adder a pair takes the place of the first level of all four trees.
// Clock 1 registers the operands, clock 2 forms the four class sums, clock 3 scales them (lib_amxfp4.v has formula and
// window), clocks 4 and 5 accumulate.
// LATENCY = 5
module amxfp4_tagged (
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

  wire a_swapped, b_swapped;
  wire [255:0] products;
  wire [31:0] a_lesser, b_lesser;
  lib_amxfp4_lanes lanes (
      .a(a_codes), .b(b_codes), .a_swapped(a_swapped), .b_swapped(b_swapped),
      .products(products), .a_lesser(a_lesser), .b_lesser(b_lesser)
  );
  wire [12:0] gg, gl, lg, ll;
  lib_amxfp4_tagged_sums sums (
      .products(products), .a_lesser(a_lesser), .b_lesser(b_lesser), .gg(gg), .gl(gl), .lg(lg), .ll(ll)
  );
  lib_amxfp4_combine combine (
      .clk(clk), .first(first), .a_codes(a_codes), .b_codes(b_codes), .a_bytes(a_bytes), .b_bytes(b_bytes),
      .a_swapped(a_swapped), .b_swapped(b_swapped), .gg(gg), .gl(gl), .lg(lg), .ll(ll), .y(y)
  );
endmodule
