# Routines on the sums of a window of seven columns, which stay in registers: 0 to 6 are H, 7 to 13 are S. Registers are ymm
# or zmm (vector.s).
# rax and rcx point to what a routine takes, rdi to the work area (struct Work), r9 to the constants (struct Constants).

.ifndef .Lgelu_tile
.set .Lgelu_tile, 1

# Limb r of a tile times limb s - r of the other factor, in column s.
.macro gelu_cell r, s, low
    gelu_copy 15, \s
    gelu_with vfmadd231pd, \s, 14, rcx + .Lbytes * (\s - \r)
    gelu_of vsubpd, 15, 15, \s
    gelu_with vfmadd231pd, 15, 14, rcx + .Lbytes * (\s - \r)
    gelu_of vaddpd, \low, \low, 15
.endm

.macro gelu_cell_within r, from, to, s, low
    .if (\s >= \from) && (\s <= \to)
    gelu_cell \r, \s, \low
    .endif
.endm

# Row r, in columns from one to another.
.macro gelu_cells r, from, to
    gelu_cell_within \r, \from, \to, 0, 7
    gelu_cell_within \r, \from, \to, 1, 8
    gelu_cell_within \r, \from, \to, 2, 9
    gelu_cell_within \r, \from, \to, 3, 10
    gelu_cell_within \r, \from, \to, 4, 11
    gelu_cell_within \r, \from, \to, 5, 12
    gelu_cell_within \r, \from, \to, 6, 13
.endm

.macro gelu_row r, from, to
    gelu_load 14, rax + .Lbytes * \r
    gelu_cells \r, \from, \to
.endm

# Takes what H has.
.macro gelu_take s, low
    gelu_with vpaddq, 15, \s, rdi + .Lbytes * \s
    gelu_store 15, rdi + .Lbytes * \s
    gelu_load \s, r9
.endm

# Puts the upper part of S to H.
.macro gelu_fold s, low
    gelu_copy 15, \s
    gelu_of vaddpd, \s, \s, \low
    gelu_of vsubpd, 15, 15, \s
    gelu_of vaddpd, \low, \low, 15
.endm

.macro gelu_fold_take s, low
    gelu_fold \s, \low
    gelu_take \s, \low
.endm

.macro gelu_each what
    \what 0, 7
    \what 1, 8
    \what 2, 9
    \what 3, 10
    \what 4, 11
    \what 5, 12
    \what 6, 13
.endm

.macro gelu_rows_below
    gelu_row 1, 0, 6
    gelu_row 2, 0, 6
    gelu_row 3, 0, 6
    gelu_row 4, 0, 6
    gelu_row 5, 0, 6
    gelu_row 6, 0, 6
.endm

.macro gelu_full
    gelu_row 0, 0, 6
    gelu_rows_below
.endm

# The same after room was made: column by column, so that no product waits for all of it.
.macro gelu_take_and_first s, low
    gelu_take \s, \low
    gelu_cell 0, \s, \low
.endm

.macro gelu_fold_and_first s, low
    gelu_fold_take \s, \low
    gelu_cell 0, \s, \low
.endm

.macro gelu_full_after first
    gelu_load 14, rax
    gelu_each \first
    gelu_rows_below
.endm

# Limbs from 0 on of the other factor.
.macro gelu_lower
    gelu_row 0, 0, 6
    gelu_row 1, 1, 6
    gelu_row 2, 2, 6
    gelu_row 3, 3, 6
    gelu_row 4, 4, 6
    gelu_row 5, 5, 6
    gelu_row 6, 6, 6
.endm

# Limbs below 0.
.macro gelu_upper
    gelu_row 1, 0, 0
    gelu_row 2, 0, 1
    gelu_row 3, 0, 2
    gelu_row 4, 0, 3
    gelu_row 5, 0, 4
    gelu_row 6, 0, 5
.endm

# The square of limb r, which is at the given place.
.macro gelu_equal r, at, s
    gelu_load 14, rcx + .Lbytes * (\at)
    gelu_cells \r, \s, \s
.endm

# The square of a tile, given twice the tile and the tile: the lower seven columns.
.macro gelu_lower_square
    gelu_row 0, 1, 6
    gelu_row 1, 3, 6
    gelu_row 2, 5, 6
    gelu_equal 0, 0, 0
    gelu_equal 1, 1, 2
    gelu_equal 2, 2, 4
    gelu_equal 3, 3, 6
.endm

# The upper ones, given what comes after the tile.
.macro gelu_upper_square
    gelu_row 1, 0, 0
    gelu_row 2, 0, 1
    gelu_row 3, 0, 2
    gelu_row 4, 2, 3
    gelu_row 5, 4, 4
    gelu_equal 4, -3, 1
    gelu_equal 5, -2, 3
    gelu_equal 6, -1, 5
.endm

# A column as a limb, with what comes from below in register 14, which takes what goes to the column above.
.macro gelu_limb s, low
    gelu_fold \s, \low
    gelu_with vaddpd, \low, \low, r9 + .Lbytes
    gelu_with vpaddq, \s, \s, rdi + .Lbytes * \s
    gelu_with vpaddq, \s, \s, r11
    gelu_of vpaddq, \low, \low, 14
    gelu_bits vpand, 15, \low, r9 + 2 * .Lbytes
    gelu_shift \low, \low, 49
    gelu_of vpaddq, 14, \s, \low
    gelu_bits vpor, 15, 15, r9 + 3 * .Lbytes
    gelu_with vsubpd, 15, 15, r9 + 4 * .Lbytes
    gelu_store 15, rax + .Lbytes * \s
.endm

# A product of limbs as in a column, without memory: how fast products can be at most.
.macro gelu_chain s, low
    gelu_copy 15, \s
    gelu_of vfmadd231pd, \s, 14, 14
    gelu_of vsubpd, 15, 15, \s
    gelu_of vfmadd231pd, 15, 14, 14
    gelu_of vaddpd, \low, \low, 15
.endm

# Seven at a time, as often as rdi says, with a number in xmm0.
.macro gelu_chains
    gelu_broadcast 14, 0
    gelu_each gelu_zero
2:
    gelu_each gelu_chain
    gelu_each gelu_chain
    gelu_each gelu_chain
    gelu_each gelu_chain
    sub rdi, 4
    ja 2b
    vzeroupper
.endm

.macro gelu_zero s, low
    vxorpd xmm\s, xmm\s, xmm\s
    vxorpd xmm\low, xmm\low, xmm\low
.endm

# The columns as limbs to rax, with the carry at rcx, and the constants for as many takings as there were at r11.
.macro gelu_settle
    gelu_load 14, rcx
    gelu_each gelu_limb
    gelu_store 14, rcx
.endm

.endif
