/* isa_avx512.c: AVX-512 F, BW, DQ, VL. */
#define PC_ISA avx512
#define PC_ISA_FMA 1
#define PC_ISA_NARROW avx2
#include "simd/vec_avx512.h"

#include "isa/body.inc.h"
