// AMXFP4 x AMXFP4, four adder trees: 32 pairs of E2M1 codes, two E5M2 scale bytes an operand, float32 accumulator.
//
// Every product belongs to one of four classes, by which scale each of its factors has. Four unsigned trees of masked
// products give four exact sums, which meet their scales once a block.
// Clock 1 registers the operands, clock 2 forms the four class sums, clock 3 scales them (lib_amxfp4.v has formula and
// window), clocks 4 and 5 accumulate.
// LATENCY = 5
module amxfp4_four_trees (
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
  reg [12:0] gg, gl, lg, ll;
  integer k;
  always @* begin
    gg = 0;
    gl = 0;
    lg = 0;
    ll = 0;
    for (k = 0; k < 32; k = k + 1) begin
      gg = gg + (products[8*k+:8] & {8{~a_lesser[k] & ~b_lesser[k]}});
      gl = gl + (products[8*k+:8] & {8{~a_lesser[k] & b_lesser[k]}});
      lg = lg + (products[8*k+:8] & {8{a_lesser[k] & ~b_lesser[k]}});
      ll = ll + (products[8*k+:8] & {8{a_lesser[k] & b_lesser[k]}});
    end
  end

  lib_amxfp4_combine combine (
      .clk(clk), .first(first), .a_codes(a_codes), .b_codes(b_codes), .a_bytes(a_bytes), .b_bytes(b_bytes),
      .a_swapped(a_swapped), .b_swapped(b_swapped), .gg(gg), .gl(gl), .lg(lg), .ll(ll), .y(y)
  );
endmodule
