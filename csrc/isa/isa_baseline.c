/* isa_baseline.c: what every machine of this architecture has. On x86-64 that is SSE2: no fused multiply-add. */
#define PC_ISA baseline
#define PC_ISA_FMA 0
#include "simd/vec_portable.h"

#include "isa/body.inc.h"
