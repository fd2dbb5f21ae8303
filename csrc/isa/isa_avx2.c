/* isa_avx2.c: AVX2 and FMA3. */
#define PC_ISA avx2
#define PC_ISA_FMA 1
#include "simd/vec_avx2.h"

#include "isa/body.inc.h"
