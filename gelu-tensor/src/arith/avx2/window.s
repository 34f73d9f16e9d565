# What all windows of a sum of products take, one after the other, for a number of tiles that the assembler knows: there is no
# branch to predict. rdi: work area, rsi and rdx: factors, r8: constants of the modulus, r9: constants of the sums, r10:
# result.

# Bytes of a tile, and of what the work area holds.
.set .Ltile, 7 * .Lbytes
.set .Lcarries, .Ltile
.set .Lspare_carry, .Ltile + 2 * .Lbytes
.set .Llast, .Ltile + 3 * .Lbytes
.set .Lquotients, 2 * .Ltile + 3 * .Lbytes

.ifndef .Lgelu_window
.set .Lgelu_window, 1

# Calls a routine if that is its name (routines.s).
.macro gelu_run_if routine, name, symbol
    .ifc \routine, \name
    call \symbol
    .set .Lcalled, 1
    .endif
.endm

# A routine on two tiles.
.macro gelu_call routine, x, x_at, y, y_at
    lea rax, [\x + \x_at]
    lea rcx, [\y + \y_at]
    gelu_run \routine
.endm

# Makes room for rows of products that count so often in H and in S.
.macro gelu_room high, low
    .if .Lhigh + (\high) > 15
        .if .Llow + 15 > 32
            gelu_run fold_take
            .set .Llow, 1
        .else
            gelu_run take
        .endif
        .set .Lhigh, 0
        .set .Ltaken, .Ltaken + 1
    .endif
    .set .Lhigh, .Lhigh + (\high)
    .set .Llow, .Llow + (\low)
.endm

.macro gelu_full_tiles x, x_at, y, y_at, weight
    .if .Lhigh + 7 * \weight <= 15
        gelu_call full, \x, \x_at, \y, \y_at
    .else
        .if .Llow + 15 > 32
            gelu_call full_after_fold, \x, \x_at, \y, \y_at
            .set .Llow, 1
        .else
            gelu_call full_after_take, \x, \x_at, \y, \y_at
        .endif
        .set .Lhigh, 0
        .set .Ltaken, .Ltaken + 1
    .endif
    .set .Lhigh, .Lhigh + 7 * \weight
    .set .Llow, .Llow + 7
.endm

# Those products of tiles of x, from one to another, with the N tiles of y that fall into window w.
.macro gelu_products x, x_at, first, end, y, y_at, weight
    .set .Li, \first
    .if .Lw - .Ln > .Li
        .set .Li, .Lw - .Ln
    .endif
    .rept 2 * .Ln
        .if (.Li < \end) && (.Li <= .Lw)
            .set .Lx, \x_at + .Ltile * (.Li - (\first))
            .set .Ly, \y_at + .Ltile * (.Lw - .Li)
            .if .Lw == .Li
                gelu_room 7 * \weight, 7
                gelu_call lower, \x, .Lx, \y, .Ly
            .elseif .Lw == .Li + .Ln
                gelu_room 6 * \weight, 6
                gelu_call upper, \x, .Lx, \y, .Ly
            .else
                gelu_full_tiles \x, .Lx, \y, .Ly, \weight
            .endif
        .endif
        .set .Li, .Li + 1
    .endr
.endm

# The square of x, given twice x.
.macro gelu_square twice, x
    .set .Lhalf, .Lw / 2
    .set .Li, 0
    .if .Lw > .Ln
        .set .Li, .Lw - .Ln
    .endif
    .rept .Ln
        .if .Li < .Lhalf + .Lw % 2
            .set .Lx, .Ltile * .Li
            .set .Ly, .Ltile * (.Lw - .Li)
            .if .Lw == 2 * .Li + 1
                .if .Li + 1 < .Ln
                    gelu_room 14, 7
                    gelu_call lower, \twice, .Lx, \x, .Ly
                .endif
            .elseif .Lw == .Li + .Ln
                gelu_room 12, 6
                gelu_call upper, \twice, .Lx, \x, .Ly
            .else
                gelu_full_tiles \twice, .Lx, \x, .Ly, 2
            .endif
        .endif
        .set .Li, .Li + 1
    .endr
    gelu_room 7, 4
    .set .Lx, .Ltile * .Lhalf
    .set .Ly, .Ltile * (.Lhalf + .Lw % 2)
    .if .Lw % 2 == 0
        gelu_call lower_square, \twice, .Lx, \x, .Ly
    .else
        gelu_call upper_square, \twice, .Lx, \x, .Ly
    .endif
.endm

# Limbs to S.
.macro gelu_limbs operation, at, offset
    gelu_with \operation, 7, 7, \at + \offset
    gelu_with \operation, 8, 8, \at + \offset + .Lbytes
    gelu_with \operation, 9, 9, \at + \offset + 2 * .Lbytes
    gelu_with \operation, 10, 10, \at + \offset + 3 * .Lbytes
    gelu_with \operation, 11, 11, \at + \offset + 4 * .Lbytes
    gelu_with \operation, 12, 12, \at + \offset + 5 * .Lbytes
    gelu_with \operation, 13, 13, \at + \offset + 6 * .Lbytes
    .set .Llow, .Llow + 1
.endm

.macro gelu_start_column high, low
    gelu_copy \high, 0
    gelu_copy \low, 7
.endm

.macro gelu_start
    gelu_load 0, r9
    vxorpd xmm7, xmm7, xmm7
    gelu_start_column 1, 8
    gelu_start_column 2, 9
    gelu_start_column 3, 10
    gelu_start_column 4, 11
    gelu_start_column 5, 12
    gelu_start_column 6, 13
    gelu_store 7, rdi
    gelu_store 7, rdi + .Lbytes
    gelu_store 7, rdi + 2 * .Lbytes
    gelu_store 7, rdi + 3 * .Lbytes
    gelu_store 7, rdi + 4 * .Lbytes
    gelu_store 7, rdi + 5 * .Lbytes
    gelu_store 7, rdi + 6 * .Lbytes
    .set .Lhigh, 0
    .set .Llow, 0
    .set .Ltaken, 0
.endm

.macro gelu_settle_to out, offset, carry
    .if (.Lhigh > 15) || (.Llow > 32) || (.Ltaken > 23)
        .error "sums of a window without room"
    .endif
    lea r11, [r9 + .Lbytes * (6 + .Ltaken)]
    gelu_call settle, \out, \offset, rdi, \carry
.endm

# What a digit's window has beside products of factors, its end and the last quotient.
.macro gelu_reduce digit
    .set .Lquotient, .Lquotients + .Ltile * .Ln * \digit
    .set .Lcarry, .Lcarries + .Lbytes * \digit
    gelu_products rdi, .Lquotient, 1, .Ln, r8, .Ltile * .Ln, 1
    .if .Lw >= .Ln
        gelu_products rdi, .Lquotient + .Ltile * (.Ln - 1), .Ln - 1, .Ln, r8, 0, 1
        gelu_settle_to r10, .Ltile * (.Lw - .Ln + .Ln * \digit), .Lcarry
    .elseif .Lw < .Ln - 1
        gelu_settle_to rdi, .Lquotient + .Ltile * .Lw, .Lcarry
    .else
        gelu_settle_to rdi, .Llast, .Lcarry
        # m = x K mod B
        gelu_load 15, r9 + 5 * .Lbytes
        gelu_store 15, rdi + .Lspare_carry
        gelu_start
        gelu_room 7, 7
        gelu_call lower, rdi, .Llast, r8, 2 * .Ltile * .Ln
        gelu_settle_to rdi, .Lquotient + .Ltile * .Lw, .Lspare_carry
        # x + m n carries only.
        gelu_load 15, r9 + 5 * .Lbytes
        gelu_store 15, rdi + .Lspare_carry
        gelu_start
        gelu_limbs vaddpd, rdi, .Llast
        gelu_room 7, 7
        gelu_call lower, rdi, .Lquotient + .Ltile * .Lw, r8, 0
        gelu_settle_to rdi, .Llast, .Lspare_carry
        gelu_load 15, rdi + .Lcarry
        gelu_with vpaddq, 15, 15, rdi + .Lspare_carry
        gelu_with vpsubq, 15, 15, r9 + 5 * .Lbytes
        gelu_store 15, rdi + .Lcarry
    .endif
.endm

# Less the lower digit's quotient K X + m B^(N - 1).
.macro gelu_less_quotient
    .set .Lx, .Ltile * (2 * .Ln + 1)
    .set .Ly, .Lquotients + .Ltile * .Lw
    .if .Lw == 0
        gelu_room 7, 7
        gelu_call lower, r8, .Lx, rdi, .Ly
    .elseif .Lw < .Ln - 1
        gelu_full_tiles r8, .Lx, rdi, .Ly, 1
    .elseif .Lw == .Ln - 1
        gelu_room 6, 6
        gelu_call upper, r8, .Lx, rdi, .Ly
    .endif
.endm

.macro gelu_start_upper
    gelu_start
    .if .Lw == .Ln - 1
        gelu_limbs vsubpd, rdi, .Lquotients + .Ltile * .Lw
    .endif
.endm

# All windows, with what adds the terms of the lower and of the upper digit; without the latter there is one digit.
.macro gelu_windows n, lower, upper
    mov r10, rcx
    gelu_load 15, r9 + 5 * .Lbytes
    gelu_store 15, rdi + .Lcarries
    gelu_store 15, rdi + .Lcarries + .Lbytes
    .set .Ln, \n
    .set .Lw, 0
    .rept 2 * \n
        gelu_start
        \lower
        gelu_reduce 0
        .ifnb \upper
            gelu_start_upper
            \upper
            gelu_less_quotient
            gelu_reduce 1
        .endif
        .set .Lw, .Lw + 1
    .endr
    vzeroupper
    ret
.endm

# rsi: a and b, rdx: c and d.
.macro gelu_a_c
    gelu_products rsi, 0, 0, .Ln, rdx, 0, 1
.endm

.macro gelu_b_c
    gelu_products rsi, .Ltile * .Ln, 0, .Ln, rdx, 0, 1
.endm

.macro gelu_a_d_b_c
    gelu_products rsi, 0, 0, .Ln, rdx, .Ltile * .Ln, 1
    gelu_b_c
.endm

# rsi: a and b, rdx: 2 a.
.macro gelu_a_a
    gelu_square rdx, rsi
.endm

.macro gelu_2_a_b
    gelu_products rdx, 0, 0, .Ln, rsi, .Ltile * .Ln, 2
.endm

# rsi: a and b.
.macro gelu_a
    .if .Lw < .Ln
        gelu_limbs vaddpd, rsi, .Ltile * .Lw
    .endif
.endm

.macro gelu_b
    .if .Lw < .Ln
        gelu_limbs vaddpd, rsi, .Ltile * (.Lw + .Ln)
    .endif
.endm

# Digit i of N tiles times digit j.
.macro gelu_digits i, j
    gelu_products rsi, .Ltile * .Ln * \i, 0, .Ln, rdx, .Ltile * .Ln * \j, 1
.endm

# rsi: the halves of two digits, rdx: two factors for the lower digit and four for the upper one.
.macro gelu_project_lower
    gelu_digits 0, 0
    gelu_digits 1, 1
.endm

.macro gelu_project_upper
    gelu_digits 0, 2
    gelu_digits 1, 3
    gelu_digits 2, 4
    gelu_digits 3, 5
.endm

# Digit i of M tiles times digit j.
.macro gelu_short_digits i, j
    gelu_products rsi, .Ltile * .Lm * \i, 0, .Lm, rdx, .Ltile * .Ln * (\j), 1
.endm

# rsi: four digits of M tiles, rdx: factors for the lower digit, then for the upper one.
.macro gelu_combine_digit first
    gelu_short_digits 0, \first
    gelu_short_digits 1, \first + 1
    gelu_short_digits 2, \first + 2
    gelu_short_digits 3, \first + 3
.endm

.macro gelu_combine_lower
    gelu_combine_digit 0
.endm

.macro gelu_combine_upper
    gelu_combine_digit 4
.endm

.macro gelu_combine n, m
    .set .Lm, \m
    gelu_windows \n, gelu_combine_lower, gelu_combine_upper
.endm

.endif
