/* isa_neon.c: aarch64, whose baseline has a fused multiply-add. */
#define PC_ISA neon
#define PC_ISA_FMA 1
#include "simd/vec_portable.h"

#include "isa/body.inc.h"
