// Products of E2M1 magnitudes, and sums of them.

// a * b in units of 1/4: codes without their sign. E2M1 doubled is {0, 1} or {2, 3} << (0, 1, 2): a 2x2-bit product
// of the significands, moved by both exponents, is smaller than a product of the decoded 4-bit magnitudes.
module lib_e2m1_product (
    input [2:0] a,
    input [2:0] b,
    output [7:0] p
);
  wire [1:0] a_significand = {a[2] | a[1], a[0]};
  wire [1:0] b_significand = {b[2] | b[1], b[0]};
  wire [3:0] product = a_significand * b_significand;  // 0..9
  wire [5:0] by_a = a[2] ? (a[1] ? {product, 2'b0} : {1'b0, product, 1'b0}) : {2'b0, product};
  assign p = b[2] ? (b[1] ? {by_a, 2'b0} : {1'b0, by_a, 1'b0}) : {2'b0, by_a};  // at most 144
endmodule

// The exact dot product of LANES pairs of E2M1 codes, in units of 1/4.
module lib_e2m1_dot #(
    parameter LANES = 32,
    parameter W = 14                     // bits of the signed sum: 144 * 32 = 4608
) (
    input [4*LANES-1:0] a,
    input [4*LANES-1:0] b,
    output signed [W-1:0] sum
);
  wire [8*LANES-1:0] products;
  wire [LANES-1:0] negative;
  genvar i;
  generate
    for (i = 0; i < LANES; i = i + 1) begin : lane
      lib_e2m1_product product (.a(a[4*i+:3]), .b(b[4*i+:3]), .p(products[8*i+:8]));
      assign negative[i] = a[4*i+3] ^ b[4*i+3];
    end
  endgenerate
  lib_signed_sum #(.LANES(LANES), .W(W)) tree (.terms(products), .negative(negative), .sum(sum));
endmodule

// The sum of LANES magnitudes of T bits, those that are negative taken off.
//
// A negative one enters as its complement: -p = ~p - (2^T - 1), so no lane needs a sign bit or a carry of its own;
// 2^T - 1 times the number of negative lanes is taken off at the end.
module lib_signed_sum #(
    parameter LANES = 32,
    parameter T = 8,
    parameter W = 14
) (
    input [T*LANES-1:0] terms,
    input [LANES-1:0] negative,
    output reg signed [W-1:0] sum
);
  integer k;
  reg [5:0] count;
  always @* begin
    sum = 0;
    count = 0;
    for (k = 0; k < LANES; k = k + 1) begin
      sum = sum + (terms[T*k+:T] ^ {T{negative[k]}});
      count = count + negative[k];
    end
    sum = sum + count - {count, {T{1'b0}}};
  end
endmodule
