# Routines on the sums of a window of seven columns, which stay in registers: ymm0 to ymm6 are H, ymm7 to ymm13 are S.
# rax and rcx point to what a routine takes, rdi to the work area (struct Work), r9 to the constants (struct Constants).

.ifndef .Lgelu_tile
.set .Lgelu_tile, 1

# Limb r of a tile times limb s - r of the other factor, in column s.
.macro gelu_cell r, s, low
    vmovapd ymm15, ymm\s
    vfmadd231pd ymm\s, ymm14, [rcx + 32 * (\s - \r)]
    vsubpd ymm15, ymm15, ymm\s
    vfmadd231pd ymm15, ymm14, [rcx + 32 * (\s - \r)]
    vaddpd ymm\low, ymm\low, ymm15
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
    vmovapd ymm14, [rax + 32 * \r]
    gelu_cells \r, \from, \to
.endm

# Takes what H has.
.macro gelu_take s, low
    vpaddq ymm15, ymm\s, [rdi + 32 * \s]
    vmovdqa [rdi + 32 * \s], ymm15
    vmovapd ymm\s, [r9]
.endm

# Puts the upper part of S to H.
.macro gelu_fold s, low
    vmovapd ymm15, ymm\s
    vaddpd ymm\s, ymm\s, ymm\low
    vsubpd ymm15, ymm15, ymm\s
    vaddpd ymm\low, ymm\low, ymm15
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
    vmovapd ymm14, [rax]
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
    vmovapd ymm14, [rcx + 32 * (\at)]
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

# A column as a limb, with what comes from below in ymm14, which takes what goes to the column above.
.macro gelu_limb s, low
    gelu_fold \s, \low
    vaddpd ymm\low, ymm\low, [r9 + 32]
    vpaddq ymm\s, ymm\s, [rdi + 32 * \s]
    vpaddq ymm\s, ymm\s, [r11]
    vpaddq ymm\low, ymm\low, ymm14
    vpand ymm15, ymm\low, [r9 + 64]
    vpsrlq ymm\low, ymm\low, 49
    vpaddq ymm14, ymm\s, ymm\low
    vpor ymm15, ymm15, [r9 + 96]
    vsubpd ymm15, ymm15, [r9 + 128]
    vmovapd [rax + 32 * \s], ymm15
.endm

# A product of limbs as in a column, without memory: how fast products can be at most.
.macro gelu_chain s, low
    vmovapd ymm15, ymm\s
    vfmadd231pd ymm\s, ymm14, ymm14
    vsubpd ymm15, ymm15, ymm\s
    vfmadd231pd ymm15, ymm14, ymm14
    vaddpd ymm\low, ymm\low, ymm15
.endm

# Seven at a time, as often as rdi says, with a number in xmm0.
.macro gelu_chains
    vbroadcastsd ymm14, xmm0
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
    vmovdqa ymm14, [rcx]
    gelu_each gelu_limb
    vmovdqa [rcx], ymm14
.endm

.endif
