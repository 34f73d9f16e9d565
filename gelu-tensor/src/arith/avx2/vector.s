# Instructions on vectors of .Lbytes: ymm registers of 32 bytes, or zmm registers of 64.

.ifndef .Lgelu_vector
.set .Lgelu_vector, 1

# An instruction on three registers.
.macro gelu_of operation, to, x, y
    .if .Lbytes == 64
    \operation zmm\to, zmm\x, zmm\y
    .else
    \operation ymm\to, ymm\x, ymm\y
    .endif
.endm

# An instruction on two registers and memory.
.macro gelu_with operation, to, x, at
    .if .Lbytes == 64
    \operation zmm\to, zmm\x, [\at]
    .else
    \operation ymm\to, ymm\x, [\at]
    .endif
.endm

# The same for one on bits, whose name says the size of what masks select among the lanes of zmm registers.
.macro gelu_bits operation, to, x, at
    .if .Lbytes == 64
    \operation\()q zmm\to, zmm\x, [\at]
    .else
    \operation ymm\to, ymm\x, [\at]
    .endif
.endm

.macro gelu_load to, at
    .if .Lbytes == 64
    vmovapd zmm\to, [\at]
    .else
    vmovapd ymm\to, [\at]
    .endif
.endm

.macro gelu_store x, at
    .if .Lbytes == 64
    vmovapd [\at], zmm\x
    .else
    vmovapd [\at], ymm\x
    .endif
.endm

.macro gelu_copy to, x
    .if .Lbytes == 64
    vmovapd zmm\to, zmm\x
    .else
    vmovapd ymm\to, ymm\x
    .endif
.endm

.macro gelu_shift to, x, by
    .if .Lbytes == 64
    vpsrlq zmm\to, zmm\x, \by
    .else
    vpsrlq ymm\to, ymm\x, \by
    .endif
.endm

.macro gelu_broadcast to, x
    .if .Lbytes == 64
    vbroadcastsd zmm\to, xmm\x
    .else
    vbroadcastsd ymm\to, xmm\x
    .endif
.endm

.endif
