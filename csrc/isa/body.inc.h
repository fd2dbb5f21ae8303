/* body.inc.h: one ISA's kernels and its table. isa_<name>.c says PC_ISA (its name) and PC_ISA_FMA, includes its file of
 * simd/, which brings the words and the tile sizes, and then this. Each kernel's source is read twice, once per dtype.
 * PC_ISA_NARROW is the narrower ISA that has its pools, if it has none (kernels.def). */
#include <math.h>
#include <string.h>

#include "base/base.h"
#include "kernels/kernels.h"

#define PC_PASTE_(a, b) a##b
#define PC_PASTE(a, b) PC_PASTE_(a, b)
#define PC_SUFFIX(symbol) PC_PASTE(symbol##__, PC_ISA)
#define PC_QUOTE_(a) #a
#define PC_QUOTE(a) PC_QUOTE_(a)

#ifdef PC_ISA_NARROW
#undef PC_NARROW_KERNEL
#define PC_NARROW_KERNEL(name, f32, f64, args)
#else
#undef PC_WIDE_KERNEL
#define PC_WIDE_KERNEL(name, f32, f64, args)
#define PC_ISA_NARROW PC_ISA
#define PC_ISA_NARROWEST
#endif

#define PC_KERNEL(name, f32, f64, args)                                                                                \
    void PC_SUFFIX(f32)(const args *);                                                                                 \
    void PC_SUFFIX(f64)(const args *);
#include "kernels/kernels.def"
#undef PC_KERNEL

/* PC_SYMBOL names a kernel of the list, PC_LOCAL a helper beside it. */
#define PC_SYMBOL(name) PC_SUFFIX(pc_f32_##name)
#define PC_LOCAL(name) pc_f32_##name
#include "simd/words_f32.h"
#include "kernels/all.inc.h"
#undef PC_SYMBOL
#undef PC_LOCAL

#define PC_SYMBOL(name) PC_SUFFIX(pc_f64_##name)
#define PC_LOCAL(name) pc_f64_##name
#include "simd/words_f64.h"
#include "kernels/all.inc.h"
#undef PC_SYMBOL
#undef PC_LOCAL

#define PC_DENSE_VECTORS_ALL                                                                                           \
    {                                                                                                                  \
        PC_DENSE_VECTORS(1), PC_DENSE_VECTORS(2), PC_DENSE_VECTORS(3), PC_DENSE_VECTORS(4), PC_DENSE_VECTORS(5),       \
            PC_DENSE_VECTORS(6), PC_DENSE_VECTORS(7), PC_DENSE_VECTORS(8)                                              \
    }

extern const pc_isa PC_SUFFIX(pc_isa), PC_PASTE(pc_isa__, PC_ISA_NARROW);
const pc_isa PC_SUFFIX(pc_isa) = {
    .name = PC_QUOTE(PC_ISA),
    .narrow = &PC_PASTE(pc_isa__, PC_ISA_NARROW),
    .fma = PC_ISA_FMA,
    .f32 =
        {
            .lanes = VF32_LANES,
            .tile_rows = PC_TILE_ROWS,
            .tile_columns = PC_TILE_VECTORS * VF32_LANES,
            .dense_rows = PC_DENSE_ROWS,
            .dense_vectors = PC_DENSE_VECTORS_ALL,
#define PC_KERNEL(name, f32, f64, args) .name = PC_SUFFIX(f32),
#include "kernels/kernels.def"
#undef PC_KERNEL
        },
    .f64 =
        {
            .lanes = VF64_LANES,
            .tile_rows = PC_TILE_ROWS,
            .tile_columns = PC_TILE_VECTORS * VF64_LANES,
            .dense_rows = PC_DENSE_ROWS,
            .dense_vectors = PC_DENSE_VECTORS_ALL,
#define PC_KERNEL(name, f32, f64, args) .name = PC_SUFFIX(f64),
#include "kernels/kernels.def"
#undef PC_KERNEL
        },
};
