# Calls of the routines for vectors of one size. All other macros are read once for both sizes where one assembler sees both,
# so that a symbol in them would be that of the size that was read first.

.ifdef .Lgelu_routines
.purgem gelu_run
.endif
.set .Lgelu_routines, 1

.macro gelu_run routine
    .set .Lcalled, 0
    gelu_run_if \routine, full, {full}
    gelu_run_if \routine, full_after_take, {full_after_take}
    gelu_run_if \routine, full_after_fold, {full_after_fold}
    gelu_run_if \routine, lower, {lower}
    gelu_run_if \routine, upper, {upper}
    gelu_run_if \routine, lower_square, {lower_square}
    gelu_run_if \routine, upper_square, {upper_square}
    gelu_run_if \routine, take, {take}
    gelu_run_if \routine, fold_take, {fold_take}
    gelu_run_if \routine, settle, {settle}
    .if .Lcalled == 0
        .error "no such routine"
    .endif
.endm
