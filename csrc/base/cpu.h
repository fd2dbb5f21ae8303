/* cpu.h: what this processor can do, asked once per question, no state. */
#ifndef PC_BASE_CPU_H
#define PC_BASE_CPU_H

#include <stdbool.h>

typedef struct {
    bool avx2;   /* AVX2 and FMA3, and the system saves the registers */
    bool avx512; /* AVX-512 F, BW, DQ, VL, and the system saves the registers */
    bool neon;
} pc_cpu;

pc_cpu pc_cpu_detect(void);

#endif
