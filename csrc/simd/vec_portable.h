/* vec_portable.h: the words of simd/ (listed in vec_avx512.h), in the compiler's vector extensions, 128 bits wide.
 *
 * Serves the x86-64 baseline (SSE2) and NEON alike: both are 128 bits, and both compilers turn these into the plain
 * instructions. They differ in fma: aarch64 has it, SSE2 has not, so the ISA file says which by PC_ISA_FMA. Tails go
 * lane by lane; they are the last vector of a row. 6 x 2 fits 16 registers, 8 x 3 fits 32. */
#ifndef PC_SIMD_VEC_H
#define PC_SIMD_VEC_H

#include <string.h>

#include "base/base.h"

#if defined(__aarch64__)
#define PC_TILE_ROWS 8
#define PC_TILE_VECTORS 3
#else
#define PC_TILE_ROWS 6
#define PC_TILE_VECTORS 2
#endif
#define VF32_LANES 4
#define VF64_LANES 2

typedef float vf32_t __attribute__((vector_size(16)));
typedef int32_t vi32_t __attribute__((vector_size(16)));
typedef int32_t vm32_t __attribute__((vector_size(16)));
typedef double vf64_t __attribute__((vector_size(16)));
typedef int64_t vi64_t __attribute__((vector_size(16)));
typedef int64_t vm64_t __attribute__((vector_size(16)));

PC_INLINE vf32_t vf32_load(const float *p)
{
    vf32_t a;
    memcpy(&a, p, sizeof a);
    return a;
}
PC_INLINE void vf32_store(float *p, vf32_t a) { memcpy(p, &a, sizeof a); }
PC_INLINE vf32_t vf32_load_tail(const float *p, int64_t count)
{
    vf32_t a = {0};
    for (int64_t i = 0; i < count; i++) {
        a[i] = p[i];
    }
    return a;
}
PC_INLINE void vf32_store_tail(float *p, vf32_t a, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        p[i] = a[i];
    }
}
PC_INLINE vf32_t vf32_zero(void) { return (vf32_t){0}; }
PC_INLINE vf32_t vf32_set1(float a) { return (vf32_t){a, a, a, a}; }
PC_INLINE vf32_t vf32_add(vf32_t a, vf32_t b) { return a + b; }
PC_INLINE vf32_t vf32_sub(vf32_t a, vf32_t b) { return a - b; }
PC_INLINE vf32_t vf32_div(vf32_t a, vf32_t b) { return a / b; }
PC_INLINE vf32_t vf32_fma(vf32_t a, vf32_t b, vf32_t c)
{
#if PC_ISA_FMA
    vf32_t sum;
    for (int i = 0; i < VF32_LANES; i++) {
        sum[i] = __builtin_fmaf(a[i], b[i], c[i]);
    }
    return sum;
#else
    return a * b + c;
#endif
}
PC_INLINE vm32_t vf32_gt(vf32_t a, vf32_t b) { return a > b; }
PC_INLINE vm32_t vf32_isnan(vf32_t a) { return a != a; }
PC_INLINE vm32_t vf32_mask_or(vm32_t a, vm32_t b) { return a | b; }
PC_INLINE vm32_t vm32_first(int64_t count) { return (vm32_t){0, 1, 2, 3} < (vm32_t){0} + (int32_t)count; }
PC_INLINE uint64_t vm32_bits(vm32_t mask)
{
    return (uint64_t)((mask[0] & 1) | (mask[1] & 2) | (mask[2] & 4) | (mask[3] & 8));
}
PC_INLINE vm32_t vm32_of(uint64_t bits)
{
    const vm32_t lanes = {1, 2, 4, 8};
    return (((vm32_t){0} + (int32_t)bits) & lanes) == lanes;
}
PC_INLINE vi32_t vi32_load(const int32_t *p)
{
    vi32_t a;
    memcpy(&a, p, sizeof a);
    return a;
}
PC_INLINE void vi32_store(int32_t *p, vi32_t a) { memcpy(p, &a, sizeof a); }
PC_INLINE vi32_t vi32_set1(int32_t a) { return (vi32_t){a, a, a, a}; }
PC_INLINE vi32_t vi32_select(vm32_t mask, vi32_t a, vi32_t b) { return (a & mask) | (b & ~mask); }
PC_INLINE vf32_t vf32_select(vm32_t mask, vf32_t a, vf32_t b)
{
    return (vf32_t)vi32_select(mask, (vi32_t)a, (vi32_t)b);
}

PC_INLINE void vf32_add_to(double *sums, vf32_t a)
{
    for (int i = 0; i < VF32_LANES; i++) {
        sums[i] += (double)a[i];
    }
}

PC_INLINE vf64_t vf64_load(const double *p)
{
    vf64_t a;
    memcpy(&a, p, sizeof a);
    return a;
}
PC_INLINE void vf64_store(double *p, vf64_t a) { memcpy(p, &a, sizeof a); }
PC_INLINE vf64_t vf64_load_tail(const double *p, int64_t count)
{
    vf64_t a = {0};
    for (int64_t i = 0; i < count; i++) {
        a[i] = p[i];
    }
    return a;
}
PC_INLINE void vf64_store_tail(double *p, vf64_t a, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        p[i] = a[i];
    }
}
PC_INLINE vf64_t vf64_zero(void) { return (vf64_t){0}; }
PC_INLINE vf64_t vf64_set1(double a) { return (vf64_t){a, a}; }
PC_INLINE vf64_t vf64_add(vf64_t a, vf64_t b) { return a + b; }
PC_INLINE vf64_t vf64_sub(vf64_t a, vf64_t b) { return a - b; }
PC_INLINE vf64_t vf64_div(vf64_t a, vf64_t b) { return a / b; }
PC_INLINE vf64_t vf64_fma(vf64_t a, vf64_t b, vf64_t c)
{
#if PC_ISA_FMA
    vf64_t sum;
    for (int i = 0; i < VF64_LANES; i++) {
        sum[i] = __builtin_fma(a[i], b[i], c[i]);
    }
    return sum;
#else
    return a * b + c;
#endif
}
PC_INLINE vm64_t vf64_gt(vf64_t a, vf64_t b) { return a > b; }
PC_INLINE vm64_t vf64_isnan(vf64_t a) { return a != a; }
PC_INLINE vm64_t vf64_mask_or(vm64_t a, vm64_t b) { return a | b; }
PC_INLINE vm64_t vm64_first(int64_t count) { return (vm64_t){0, 1} < (vm64_t){0} + (int64_t)count; }
PC_INLINE uint64_t vm64_bits(vm64_t mask) { return (uint64_t)((mask[0] & 1) | (mask[1] & 2)); }
PC_INLINE vm64_t vm64_of(uint64_t bits)
{
    const vm64_t lanes = {1, 2};
    return (((vm64_t){0} + (int64_t)bits) & lanes) == lanes;
}
PC_INLINE vi64_t vi64_load(const int64_t *p)
{
    vi64_t a;
    memcpy(&a, p, sizeof a);
    return a;
}
PC_INLINE void vi64_store(int64_t *p, vi64_t a) { memcpy(p, &a, sizeof a); }
PC_INLINE vi64_t vi64_set1(int64_t a) { return (vi64_t){a, a}; }
PC_INLINE vi64_t vi64_select(vm64_t mask, vi64_t a, vi64_t b) { return (a & mask) | (b & ~mask); }
PC_INLINE vf64_t vf64_select(vm64_t mask, vf64_t a, vf64_t b)
{
    return (vf64_t)vi64_select(mask, (vi64_t)a, (vi64_t)b);
}
PC_INLINE void vf64_add_to(double *sums, vf64_t a) { vf64_store(sums, vf64_add(vf64_load(sums), a)); }

#endif
