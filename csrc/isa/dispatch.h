/* dispatch.h: one table of kernels, chosen once. The only door from ops/ to the ISA files.
 *
 * pc_isa_choose("avx2") caps the choice (NULL or "": no cap); it returns false for a name that is not one of
 * baseline, avx2, avx512, neon. A cap above what the machine has is no error: the best below it is taken.
 */
#ifndef PC_ISA_DISPATCH_H
#define PC_ISA_DISPATCH_H

#include <stdbool.h>

#include "kernels/kernels.h"

bool pc_isa_choose(const char *cap);
const pc_isa *pc_isa_chosen(void);

/* The compiled-in tables, weakest first, NULL at the end, and whether this machine can run one. For tests and `info`. */
const pc_isa *const *pc_isa_compiled(void);
bool pc_isa_usable(const pc_isa *isa);

/* The chosen table's kernels for a dtype. */
PC_INLINE const pc_kernels *pc_kernels_for(pc_dtype dtype)
{
    return dtype == PC_F32 ? &pc_isa_chosen()->f32 : &pc_isa_chosen()->f64;
}

/* Those for pools, and for short rows. */
PC_INLINE const pc_kernels *pc_narrow_kernels_for(pc_dtype dtype)
{
    const pc_isa *narrow = pc_isa_chosen()->narrow;
    return dtype == PC_F32 ? &narrow->f32 : &narrow->f64;
}

#endif
