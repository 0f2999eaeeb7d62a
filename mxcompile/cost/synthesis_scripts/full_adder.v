// Carry-save adders of yosys as full adders of the library; where an input is constant, as gates that abc shrinks.
(* techmap_celltype = "$fa" *)
module full_adder (A, B, C, X, Y);
  parameter WIDTH = 1;
  parameter _TECHMAP_CONSTMSK_A_ = 0;
  parameter _TECHMAP_CONSTMSK_B_ = 0;
  parameter _TECHMAP_CONSTMSK_C_ = 0;
  localparam [WIDTH-1:0] KNOWN = _TECHMAP_CONSTMSK_A_ | _TECHMAP_CONSTMSK_B_ | _TECHMAP_CONSTMSK_C_;
  input [WIDTH-1:0] A, B, C;
  output [WIDTH-1:0] X, Y;
  genvar i;
  generate
    for (i = 0; i < WIDTH; i = i + 1) begin : adder
      if (KNOWN[i]) begin
        assign X[i] = (A[i] & B[i]) | (C[i] & (A[i] | B[i]));
        assign Y[i] = A[i] ^ B[i] ^ C[i];
      end else begin
`ifdef freepdk45
        FA_X1 cell_ (.A(A[i]), .B(B[i]), .CI(C[i]), .CO(X[i]), .S(Y[i]));
`endif
`ifdef osu018
        FAX1 cell_ (.A(A[i]), .B(B[i]), .C(C[i]), .YC(X[i]), .YS(Y[i]));
`endif
      end
    end
  endgenerate
endmodule
