/* vec_portable.h: the words of simd/ (listed in vec_avx512.h), in the compiler's vector extensions, 128 bits wide.
 *
 * Serves the x86-64 baseline (SSE2) and NEON alike: both are 128 bits, and both compilers turn these into the plain
 * instructions. They differ in fma: aarch64 has it, SSE2 has not, so the ISA file says which by PC_ISA_FMA. Tails go
 * lane by lane; they are the last vector of a row. 6 x 2 fits 16 registers, 8 x 3 fits 32. */
#ifndef PC_SIMD_VEC_H
#define PC_SIMD_VEC_H

#include <string.h>

#include "base/base.h"

#define PC_MASKS_COST 1
#if defined(__aarch64__)
#define PC_TILE_ROWS 8
#define PC_TILE_VECTORS 3
/* dense_tile: so many vectors a row, the fewer the rows the more, in 32 registers. */
#define PC_DENSE_ROWS 8
#define PC_DENSE_WIDEST 8
#define PC_DENSE_VECTORS(rows) ((rows) <= 3 ? 8 : (rows) == 4 ? 6 : (rows) == 5 ? 5 : (rows) == 6 ? 4 : 3)
#define PC_DENSE_PAIRS(rows) 0
#define v_pin(a) __asm__("" : "+w"(a))
#else
#define PC_TILE_ROWS 6
#define PC_TILE_VECTORS 2
/* dense_tile: so many vectors a row, the fewer the rows the more: 12 accumulators, or 8 of a latency of 4. */
#define PC_DENSE_ROWS 6
#define PC_DENSE_WIDEST 8
#define PC_DENSE_VECTORS(rows) ((rows) == 1 ? 8 : (rows) == 2 ? 6 : (rows) == 3 ? 4 : (rows) == 4 ? 3 : 2)
#define PC_DENSE_PAIRS(rows) ((rows) == 1 || (rows) > 4)
#define v_pin(a) __asm__("" : "+x"(a))
#endif
#define PC_DENSE_BESIDE(rows) 0
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
PC_INLINE vf32_t vf32_even(vf32_t a, vf32_t b) { return (vf32_t){a[0], a[2], b[0], b[2]}; }
PC_INLINE vf32_t vf32_odd(vf32_t a, vf32_t b) { return (vf32_t){a[1], a[3], b[1], b[3]}; }
PC_INLINE vf32_t vf32_zip_low(vf32_t a, vf32_t b) { return (vf32_t){a[0], b[0], a[1], b[1]}; }
PC_INLINE vf32_t vf32_zip_high(vf32_t a, vf32_t b) { return (vf32_t){a[2], b[2], a[3], b[3]}; }
PC_INLINE vm32_t vf32_gt(vf32_t a, vf32_t b) { return a > b; }
PC_INLINE vm32_t vf32_isnan(vf32_t a) { return a != a; }
PC_INLINE vm32_t vf32_mask_or(vm32_t a, vm32_t b) { return a | b; }
PC_INLINE vf32_t vf32_keep(vm32_t mask, vf32_t a) { return (vf32_t)((vi32_t)a & mask); }
PC_INLINE vf32_t vf32_load_where(vm32_t mask, const float *p)
{
    vf32_t a = {0};
    for (int i = 0; i < VF32_LANES; i++) {
        if (mask[i]) {
            a[i] = p[i];
        }
    }
    return a;
}
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
PC_INLINE void vf32_transpose(vf32_t x[VF32_LANES])
{
    PC_UNROLL(4)
    for (int i = 0; i < VF32_LANES; i++) {
        PC_UNROLL(4)
        for (int j = 0; j < i; j++) {
            float a = x[i][j];
            x[i][j] = x[j][i];
            x[j][i] = a;
        }
    }
}
PC_INLINE int vf32_any(vm32_t a) { return (a[0] | a[1] | a[2] | a[3]) != 0; }
PC_INLINE vf32_t vf32_max_number(vf32_t best, vf32_t x) { return vf32_select(x > best, x, best); }
PC_INLINE vf32_t vf32_max(vf32_t best, vf32_t x) { return vf32_select((x > best) | (x != x), x, best); }
PC_INLINE vf32_t vf32_load_or(const float *p, int64_t count, vf32_t fill)
{
    for (int64_t i = 0; i < count; i++) {
        fill[i] = p[i];
    }
    return fill;
}
PC_INLINE vf32_t vf32_evens(vf32_t a, vf32_t b) { return (vf32_t){a[0], a[2], b[0], b[2]}; }
PC_INLINE vf32_t vf32_odds(vf32_t a, vf32_t b) { return (vf32_t){a[1], a[3], b[1], b[3]}; }
PC_INLINE vi32_t vi32_in_order(vi32_t a) { return a; }
PC_INLINE vf32_t vf32_in_order(vf32_t a) { return a; }
PC_INLINE vf32_t vf32_load_step(const float *p, int64_t step)
{
    return (vf32_t){p[0], p[step], p[2 * step], p[3 * step]};
}
PC_INLINE vi32_t vi32_add(vi32_t a, vi32_t b) { return a + b; }
PC_INLINE vi32_t vi32_max(vi32_t a, vi32_t b) { return vi32_select(a > b, a, b); }
PC_INLINE void vi32_store_wide(int64_t *p, vi32_t a, int64_t base)
{
    for (int i = 0; i < VF32_LANES; i++) {
        p[i] = base + a[i];
    }
}
PC_INLINE void vi32_store_wide_evens(int64_t *p, vi32_t a, int64_t base) { vi32_store_wide(p, vi32_in_order(a), base); }
PC_INLINE int vf32_all(vm32_t a) { return (a[0] & a[1] & a[2] & a[3]) != 0; }
PC_INLINE vm32_t vf32_mask_and(vm32_t a, vm32_t b) { return a & b; }
PC_INLINE vm32_t vi32_eq(vi32_t a, vi32_t b) { return a == b; }
PC_INLINE vi32_t vi32_load_narrow(const int64_t *p, vm32_t *fit)
{
    vi32_t a = {(int32_t)p[0], (int32_t)p[1], (int32_t)p[2], (int32_t)p[3]};
    *fit = (vm32_t){(int32_t)(p[0] >> 32), (int32_t)(p[1] >> 32), (int32_t)(p[2] >> 32), (int32_t)(p[3] >> 32)} == 0;
    return a;
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
PC_INLINE vf64_t vf64_even(vf64_t a, vf64_t b) { return (vf64_t){a[0], b[0]}; }
PC_INLINE vf64_t vf64_odd(vf64_t a, vf64_t b) { return (vf64_t){a[1], b[1]}; }
PC_INLINE vf64_t vf64_zip_low(vf64_t a, vf64_t b) { return (vf64_t){a[0], b[0]}; }
PC_INLINE vf64_t vf64_zip_high(vf64_t a, vf64_t b) { return (vf64_t){a[1], b[1]}; }
PC_INLINE vm64_t vf64_gt(vf64_t a, vf64_t b) { return a > b; }
PC_INLINE vm64_t vf64_isnan(vf64_t a) { return a != a; }
PC_INLINE vm64_t vf64_mask_or(vm64_t a, vm64_t b) { return a | b; }
PC_INLINE vf64_t vf64_keep(vm64_t mask, vf64_t a) { return (vf64_t)((vi64_t)a & mask); }
PC_INLINE vf64_t vf64_load_where(vm64_t mask, const double *p)
{
    vf64_t a = {0};
    for (int i = 0; i < VF64_LANES; i++) {
        if (mask[i]) {
            a[i] = p[i];
        }
    }
    return a;
}
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
PC_INLINE void vf64_transpose(vf64_t x[VF64_LANES])
{
    PC_UNROLL(4)
    for (int i = 0; i < VF64_LANES; i++) {
        PC_UNROLL(4)
        for (int j = 0; j < i; j++) {
            double a = x[i][j];
            x[i][j] = x[j][i];
            x[j][i] = a;
        }
    }
}
PC_INLINE int vf64_any(vm64_t a) { return (a[0] | a[1]) != 0; }
PC_INLINE vf64_t vf64_max_number(vf64_t best, vf64_t x) { return vf64_select(x > best, x, best); }
PC_INLINE vf64_t vf64_max(vf64_t best, vf64_t x) { return vf64_select((x > best) | (x != x), x, best); }
PC_INLINE vf64_t vf64_load_or(const double *p, int64_t count, vf64_t fill)
{
    for (int64_t i = 0; i < count; i++) {
        fill[i] = p[i];
    }
    return fill;
}
PC_INLINE vf64_t vf64_evens(vf64_t a, vf64_t b) { return (vf64_t){a[0], b[0]}; }
PC_INLINE vf64_t vf64_odds(vf64_t a, vf64_t b) { return (vf64_t){a[1], b[1]}; }
PC_INLINE vi64_t vi64_in_order(vi64_t a) { return a; }
PC_INLINE vf64_t vf64_in_order(vf64_t a) { return a; }
PC_INLINE vf64_t vf64_load_step(const double *p, int64_t step) { return (vf64_t){p[0], p[step]}; }
PC_INLINE vi64_t vi64_add(vi64_t a, vi64_t b) { return a + b; }
PC_INLINE vi64_t vi64_max(vi64_t a, vi64_t b) { return vi64_select(a > b, a, b); }
PC_INLINE void vi64_store_wide(int64_t *p, vi64_t a, int64_t base)
{
    for (int i = 0; i < VF64_LANES; i++) {
        p[i] = base + a[i];
    }
}
PC_INLINE void vi64_store_wide_evens(int64_t *p, vi64_t a, int64_t base) { vi64_store_wide(p, vi64_in_order(a), base); }
PC_INLINE int vf64_all(vm64_t a) { return (a[0] & a[1]) != 0; }
PC_INLINE vm64_t vf64_mask_and(vm64_t a, vm64_t b) { return a & b; }
PC_INLINE vm64_t vi64_eq(vi64_t a, vi64_t b) { return a == b; }
PC_INLINE vi64_t vi64_load_narrow(const int64_t *p, vm64_t *fit)
{
    vi64_t a = vi64_load(p);
    *fit = vi64_eq(a, a);
    return a;
}
PC_INLINE void vf64_add_to(double *sums, vf64_t a) { vf64_store(sums, vf64_add(vf64_load(sums), a)); }

#endif
