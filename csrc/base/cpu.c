#include "base/cpu.h"

pc_cpu pc_cpu_detect(void)
{
    pc_cpu cpu = {false, false, false};
#if defined(__x86_64__)
    /* The builtins read CPUID and XGETBV: an instruction set counts only when the system saves its registers. */
    __builtin_cpu_init();
    cpu.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    cpu.avx512 = cpu.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#elif defined(__aarch64__)
    cpu.neon = true;
#endif
    return cpu;
}
