/* vec_avx512.h: the words of simd/, in AVX-512 (F, BW, DQ, VL).
 *
 * THE VOCABULARY, the same in each file of this room (b is 32 or 64):
 *   vf<b>_t, vi<b>_t, vm<b>_t      a vector of floats, one of integers as wide, a mask
 *   load, store                    whole vectors, any alignment
 *   load_tail, store_tail(count)   the first `count` lanes, 0 <= count <= lanes; touch no other memory; the rest are 0
 *   zero, set1, add, sub, div      lane by lane
 *   fma(a, b, c)                   a*b + c, rounded once where the ISA has it (PC_ISA_FMA)
 *   add_to(sums, a)                sums[lane] += a, in double: `sums` is an array of `lanes` doubles
 *   gt(a, b), isnan(a), mask_or    masks; a comparison with NaN is false
 *   mask_first(count)              the mask of the first `count` lanes
 *   mask_bits, mask_of             a mask as an integer, lane 0 the lowest bit, and back; higher bits are 0, ignored
 *   select(mask, a, b)             a where the mask holds, else b
 *   transpose(x)                   x[i] lane j <-> x[j] lane i, of as many vectors as there are lanes
 *   keep(mask, a)                  a where the mask holds, else 0
 *   load_where(mask, p)            p[lane] where the mask holds, else 0; touches no other memory
 *   even(a, b), odd(a, b)          every second lane of a, then of b
 *   zip_low, zip_high(a, b)        a0 b0 a1 b1 ...: the first half of them, the second half
 *   v_pin(a)                       a is computed here: the compiler does not move it elsewhere
 *   max_number(best, x)            x where it is larger, else best
 *   any(mask), all(mask)           does it hold in some lane, in all; mask_and
 *   max(best, x)                   x where it is larger or NaN, else best: the last NaN, or the first of the largest
 *   load_or(p, count, fill)        the first `count` lanes from memory, the rest from `fill`; 0 <= count <= lanes
 *   evens(a, b), odds(a, b)        every second one of the 2*lanes elements of a, then b. In an order of the ISA's own,
 *                                  lane by lane the same in both; in_order(x) puts them back, once, at the end, and
 *                                  what is in order into that order
 *   load_step(p, step)             p[0], p[step], p[2*step], ...: whole vectors of any step, one element at a time
 *   vi add, max, eq                as it says; eq is a mask
 *   store_wide(p, a, base)         p[i] = base + a[i] as int64
 *   store_wide_evens               the same of lanes in evens' order, put in order; 0 <= a[i]
 *   load_narrow(p, &fit)           int64 to vi's width (lanes that do not fit hold anything), and where 0 <= p[i] < 2^32
 *                                  (vi64: everywhere)
 * and the sizes: VF<b>_LANES, the tile PC_TILE_ROWS x PC_TILE_VECTORS.
 *
 * 8 x 3: 24 accumulators, 3 loads and a broadcast fill 28 of the 32 registers; a column beside them takes two. */
#ifndef PC_SIMD_VEC_H
#define PC_SIMD_VEC_H

#include <immintrin.h>

#include "base/base.h"

#define PC_TILE_ROWS 8
#define PC_TILE_VECTORS 3
/* dense_tile: so many vectors a row, the fewer the rows the more, in 32 registers. */
#define PC_DENSE_ROWS 8
#define PC_DENSE_WIDEST 8
#define PC_DENSE_VECTORS(rows) ((rows) == 1 ? 8 : (rows) == 2 ? 6 : (rows) <= 4 ? 5 : (rows) <= 6 ? 4 : 3)
#define PC_DENSE_PAIRS(rows) 0
#define PC_MASKS_COST 0 /* a masked load is a load: code without masks beside it wins nothing */
#define PC_DENSE_BESIDE(rows) ((rows) == PC_DENSE_ROWS) /* registers for a column beside the tile */
#define VF32_LANES 16
#define VF64_LANES 8
#define v_pin(a) __asm__("" : "+v"(a))

typedef __m512 vf32_t;
typedef __m512i vi32_t;
typedef __mmask16 vm32_t;
typedef __m512d vf64_t;
typedef __m512i vi64_t;
typedef __mmask8 vm64_t;

PC_INLINE vf32_t vf32_load(const float *p) { return _mm512_loadu_ps(p); }
PC_INLINE void vf32_store(float *p, vf32_t a) { _mm512_storeu_ps(p, a); }
PC_INLINE vm32_t vf32_first(int64_t count) { return (vm32_t)((1u << count) - 1u); }
PC_INLINE vf32_t vf32_load_tail(const float *p, int64_t count) { return _mm512_maskz_loadu_ps(vf32_first(count), p); }
PC_INLINE void vf32_store_tail(float *p, vf32_t a, int64_t count) { _mm512_mask_storeu_ps(p, vf32_first(count), a); }
PC_INLINE vf32_t vf32_zero(void) { return _mm512_setzero_ps(); }
PC_INLINE vf32_t vf32_set1(float a) { return _mm512_set1_ps(a); }
PC_INLINE vf32_t vf32_add(vf32_t a, vf32_t b) { return _mm512_add_ps(a, b); }
PC_INLINE vf32_t vf32_sub(vf32_t a, vf32_t b) { return _mm512_sub_ps(a, b); }
PC_INLINE vf32_t vf32_div(vf32_t a, vf32_t b) { return _mm512_div_ps(a, b); }
PC_INLINE vf32_t vf32_fma(vf32_t a, vf32_t b, vf32_t c) { return _mm512_fmadd_ps(a, b, c); }
PC_INLINE vf32_t vf32_even(vf32_t a, vf32_t b)
{
    const __m512i lanes = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(a, lanes, b);
}
PC_INLINE vf32_t vf32_odd(vf32_t a, vf32_t b)
{
    const __m512i lanes = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return _mm512_permutex2var_ps(a, lanes, b);
}
PC_INLINE vf32_t vf32_zip_low(vf32_t a, vf32_t b)
{
    const __m512i lanes = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return _mm512_permutex2var_ps(a, lanes, b);
}
PC_INLINE vf32_t vf32_zip_high(vf32_t a, vf32_t b)
{
    const __m512i lanes = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return _mm512_permutex2var_ps(a, lanes, b);
}
PC_INLINE vm32_t vf32_gt(vf32_t a, vf32_t b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
PC_INLINE vm32_t vf32_isnan(vf32_t a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
PC_INLINE vm32_t vf32_mask_or(vm32_t a, vm32_t b) { return (vm32_t)(a | b); }
PC_INLINE vm32_t vm32_first(int64_t count) { return vf32_first(count); }
PC_INLINE uint64_t vm32_bits(vm32_t mask) { return mask; }
PC_INLINE vm32_t vm32_of(uint64_t bits) { return (vm32_t)bits; }
PC_INLINE vf32_t vf32_select(vm32_t mask, vf32_t a, vf32_t b) { return _mm512_mask_blend_ps(mask, b, a); }
PC_INLINE vf32_t vf32_keep(vm32_t mask, vf32_t a) { return _mm512_maskz_mov_ps(mask, a); }
PC_INLINE vf32_t vf32_load_where(vm32_t mask, const float *p) { return _mm512_maskz_loadu_ps(mask, p); }
PC_INLINE vi32_t vi32_load(const int32_t *p) { return _mm512_loadu_si512(p); }
PC_INLINE void vi32_store(int32_t *p, vi32_t a) { _mm512_storeu_si512(p, a); }
PC_INLINE vi32_t vi32_set1(int32_t a) { return _mm512_set1_epi32(a); }
PC_INLINE vi32_t vi32_select(vm32_t mask, vi32_t a, vi32_t b) { return _mm512_mask_blend_epi32(mask, b, a); }
PC_INLINE int vf32_any(vm32_t a) { return a != 0; }
PC_INLINE vf32_t vf32_max_number(vf32_t best, vf32_t x) { return _mm512_max_ps(x, best); }
PC_INLINE vf32_t vf32_max(vf32_t best, vf32_t x)
{
    return _mm512_mask_mov_ps(_mm512_max_ps(x, best), vf32_isnan(x), x); /* max: `best` if equal or either is NaN */
}
PC_INLINE vf32_t vf32_load_or(const float *p, int64_t count, vf32_t fill)
{
    return _mm512_mask_loadu_ps(fill, vf32_first(count), p);
}
PC_INLINE vf32_t vf32_evens(vf32_t a, vf32_t b)
{
    return _mm512_permutex2var_ps(a, _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30), b);
}
PC_INLINE vf32_t vf32_odds(vf32_t a, vf32_t b)
{
    return _mm512_permutex2var_ps(a, _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31), b);
}
PC_INLINE vi32_t vi32_in_order(vi32_t a) { return a; }
PC_INLINE vf32_t vf32_in_order(vf32_t a) { return a; }
PC_INLINE vf32_t vf32_load_step(const float *p, int64_t step)
{
    return _mm512_setr_ps(p[0], p[step], p[2 * step], p[3 * step], p[4 * step], p[5 * step], p[6 * step], p[7 * step],
                          p[8 * step], p[9 * step], p[10 * step], p[11 * step], p[12 * step], p[13 * step],
                          p[14 * step], p[15 * step]);
}
PC_INLINE vi32_t vi32_add(vi32_t a, vi32_t b) { return _mm512_add_epi32(a, b); }
PC_INLINE vi32_t vi32_max(vi32_t a, vi32_t b) { return _mm512_max_epi32(a, b); }
PC_INLINE void vi32_store_wide(int64_t *p, vi32_t a, int64_t base)
{
    const __m512i add = _mm512_set1_epi64(base);
    __m512i low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(a));
    __m512i high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(a, 1));
    _mm512_storeu_si512(p, _mm512_add_epi64(low, add));
    _mm512_storeu_si512(p + 8, _mm512_add_epi64(high, add));
}
PC_INLINE void vi32_store_wide_evens(int64_t *p, vi32_t a, int64_t base) { vi32_store_wide(p, vi32_in_order(a), base); }
PC_INLINE int vf32_all(vm32_t a) { return a == (vm32_t)-1; }
PC_INLINE vm32_t vf32_mask_and(vm32_t a, vm32_t b) { return (vm32_t)(a & b); }
PC_INLINE vm32_t vi32_eq(vi32_t a, vi32_t b) { return _mm512_cmpeq_epi32_mask(a, b); }
PC_INLINE vi32_t vi32_load_narrow(const int64_t *p, vm32_t *fit)
{
    __m512i low = _mm512_loadu_si512(p), high = _mm512_loadu_si512(p + 8);
    const __m512i limit = _mm512_set1_epi64(0xffffffff);
    *fit = (vm32_t)(_mm512_cmple_epu64_mask(low, limit) | _mm512_cmple_epu64_mask(high, limit) << 8);
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi64_epi32(low)), _mm512_cvtepi64_epi32(high), 1);
}

/* Pairs of lanes within a quarter, then fours, then the quarters. */
PC_INLINE void vf32_transpose(vf32_t x[VF32_LANES])
{
    vf32_t y[VF32_LANES];
    PC_UNROLL(4)
    for (int i = 0; i < 16; i += 4) {
        vf32_t a = _mm512_unpacklo_ps(x[i], x[i + 1]), b = _mm512_unpacklo_ps(x[i + 2], x[i + 3]);
        vf32_t c = _mm512_unpackhi_ps(x[i], x[i + 1]), d = _mm512_unpackhi_ps(x[i + 2], x[i + 3]);
        y[i] = _mm512_shuffle_ps(a, b, 0x44);
        y[i + 1] = _mm512_shuffle_ps(a, b, 0xee);
        y[i + 2] = _mm512_shuffle_ps(c, d, 0x44);
        y[i + 3] = _mm512_shuffle_ps(c, d, 0xee);
    }
    PC_UNROLL(4)
    for (int i = 0; i < 4; i++) {
        vf32_t a = _mm512_shuffle_f32x4(y[i], y[i + 4], 0x88), b = _mm512_shuffle_f32x4(y[i + 8], y[i + 12], 0x88);
        vf32_t c = _mm512_shuffle_f32x4(y[i], y[i + 4], 0xdd), d = _mm512_shuffle_f32x4(y[i + 8], y[i + 12], 0xdd);
        x[i] = _mm512_shuffle_f32x4(a, b, 0x88);
        x[i + 4] = _mm512_shuffle_f32x4(c, d, 0x88);
        x[i + 8] = _mm512_shuffle_f32x4(a, b, 0xdd);
        x[i + 12] = _mm512_shuffle_f32x4(c, d, 0xdd);
    }
}

PC_INLINE void vf32_add_to(double *sums, vf32_t a)
{
    __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(a)), high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
    _mm512_storeu_pd(sums, _mm512_add_pd(_mm512_loadu_pd(sums), low));
    _mm512_storeu_pd(sums + 8, _mm512_add_pd(_mm512_loadu_pd(sums + 8), high));
}

PC_INLINE vf64_t vf64_load(const double *p) { return _mm512_loadu_pd(p); }
PC_INLINE void vf64_store(double *p, vf64_t a) { _mm512_storeu_pd(p, a); }
PC_INLINE vm64_t vf64_first(int64_t count) { return (vm64_t)((1u << count) - 1u); }
PC_INLINE vf64_t vf64_load_tail(const double *p, int64_t count) { return _mm512_maskz_loadu_pd(vf64_first(count), p); }
PC_INLINE void vf64_store_tail(double *p, vf64_t a, int64_t count) { _mm512_mask_storeu_pd(p, vf64_first(count), a); }
PC_INLINE vf64_t vf64_zero(void) { return _mm512_setzero_pd(); }
PC_INLINE vf64_t vf64_set1(double a) { return _mm512_set1_pd(a); }
PC_INLINE vf64_t vf64_add(vf64_t a, vf64_t b) { return _mm512_add_pd(a, b); }
PC_INLINE vf64_t vf64_sub(vf64_t a, vf64_t b) { return _mm512_sub_pd(a, b); }
PC_INLINE vf64_t vf64_div(vf64_t a, vf64_t b) { return _mm512_div_pd(a, b); }
PC_INLINE vf64_t vf64_fma(vf64_t a, vf64_t b, vf64_t c) { return _mm512_fmadd_pd(a, b, c); }
PC_INLINE vf64_t vf64_even(vf64_t a, vf64_t b)
{
    const __m512i lanes = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    return _mm512_permutex2var_pd(a, lanes, b);
}
PC_INLINE vf64_t vf64_odd(vf64_t a, vf64_t b)
{
    const __m512i lanes = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
    return _mm512_permutex2var_pd(a, lanes, b);
}
PC_INLINE vf64_t vf64_zip_low(vf64_t a, vf64_t b)
{
    const __m512i lanes = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    return _mm512_permutex2var_pd(a, lanes, b);
}
PC_INLINE vf64_t vf64_zip_high(vf64_t a, vf64_t b)
{
    const __m512i lanes = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    return _mm512_permutex2var_pd(a, lanes, b);
}
PC_INLINE vm64_t vf64_gt(vf64_t a, vf64_t b) { return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ); }
PC_INLINE vm64_t vf64_isnan(vf64_t a) { return _mm512_cmp_pd_mask(a, a, _CMP_UNORD_Q); }
PC_INLINE vm64_t vf64_mask_or(vm64_t a, vm64_t b) { return (vm64_t)(a | b); }
PC_INLINE vm64_t vm64_first(int64_t count) { return vf64_first(count); }
PC_INLINE uint64_t vm64_bits(vm64_t mask) { return mask; }
PC_INLINE vm64_t vm64_of(uint64_t bits) { return (vm64_t)bits; }
PC_INLINE vf64_t vf64_select(vm64_t mask, vf64_t a, vf64_t b) { return _mm512_mask_blend_pd(mask, b, a); }
PC_INLINE vf64_t vf64_keep(vm64_t mask, vf64_t a) { return _mm512_maskz_mov_pd(mask, a); }
PC_INLINE vf64_t vf64_load_where(vm64_t mask, const double *p) { return _mm512_maskz_loadu_pd(mask, p); }
PC_INLINE vi64_t vi64_load(const int64_t *p) { return _mm512_loadu_si512(p); }
PC_INLINE void vi64_store(int64_t *p, vi64_t a) { _mm512_storeu_si512(p, a); }
PC_INLINE vi64_t vi64_set1(int64_t a) { return _mm512_set1_epi64(a); }
PC_INLINE vi64_t vi64_select(vm64_t mask, vi64_t a, vi64_t b) { return _mm512_mask_blend_epi64(mask, b, a); }
PC_INLINE int vf64_any(vm64_t a) { return a != 0; }
PC_INLINE vf64_t vf64_max_number(vf64_t best, vf64_t x) { return _mm512_max_pd(x, best); }
PC_INLINE vf64_t vf64_max(vf64_t best, vf64_t x)
{
    return _mm512_mask_mov_pd(_mm512_max_pd(x, best), vf64_isnan(x), x); /* max: `best` if equal or either is NaN */
}
PC_INLINE vf64_t vf64_load_or(const double *p, int64_t count, vf64_t fill)
{
    return _mm512_mask_loadu_pd(fill, vf64_first(count), p);
}
PC_INLINE vf64_t vf64_evens(vf64_t a, vf64_t b)
{
    return _mm512_permutex2var_pd(a, _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), b);
}
PC_INLINE vf64_t vf64_odds(vf64_t a, vf64_t b)
{
    return _mm512_permutex2var_pd(a, _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15), b);
}
PC_INLINE vi64_t vi64_in_order(vi64_t a) { return a; }
PC_INLINE vf64_t vf64_in_order(vf64_t a) { return a; }
PC_INLINE vf64_t vf64_load_step(const double *p, int64_t step)
{
    return _mm512_setr_pd(p[0], p[step], p[2 * step], p[3 * step], p[4 * step], p[5 * step], p[6 * step], p[7 * step]);
}
PC_INLINE vi64_t vi64_add(vi64_t a, vi64_t b) { return _mm512_add_epi64(a, b); }
PC_INLINE vi64_t vi64_max(vi64_t a, vi64_t b) { return _mm512_max_epi64(a, b); }
PC_INLINE void vi64_store_wide(int64_t *p, vi64_t a, int64_t base)
{
    _mm512_storeu_si512(p, _mm512_add_epi64(a, _mm512_set1_epi64(base)));
}
PC_INLINE void vi64_store_wide_evens(int64_t *p, vi64_t a, int64_t base) { vi64_store_wide(p, vi64_in_order(a), base); }
PC_INLINE int vf64_all(vm64_t a) { return a == (vm64_t)-1; }
PC_INLINE vm64_t vf64_mask_and(vm64_t a, vm64_t b) { return (vm64_t)(a & b); }
PC_INLINE vm64_t vi64_eq(vi64_t a, vi64_t b) { return _mm512_cmpeq_epi64_mask(a, b); }
PC_INLINE vi64_t vi64_load_narrow(const int64_t *p, vm64_t *fit)
{
    vi64_t a = vi64_load(p);
    *fit = vi64_eq(a, a);
    return a;
}

PC_INLINE void vf64_transpose(vf64_t x[VF64_LANES])
{
    vf64_t y[VF64_LANES];
    PC_UNROLL(4)
    for (int i = 0; i < 8; i += 2) {
        y[i] = _mm512_unpacklo_pd(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_pd(x[i], x[i + 1]);
    }
    PC_UNROLL(2)
    for (int i = 0; i < 2; i++) {
        vf64_t a = _mm512_shuffle_f64x2(y[i], y[i + 2], 0x88), b = _mm512_shuffle_f64x2(y[i + 4], y[i + 6], 0x88);
        vf64_t c = _mm512_shuffle_f64x2(y[i], y[i + 2], 0xdd), d = _mm512_shuffle_f64x2(y[i + 4], y[i + 6], 0xdd);
        x[i] = _mm512_shuffle_f64x2(a, b, 0x88);
        x[i + 2] = _mm512_shuffle_f64x2(c, d, 0x88);
        x[i + 4] = _mm512_shuffle_f64x2(a, b, 0xdd);
        x[i + 6] = _mm512_shuffle_f64x2(c, d, 0xdd);
    }
}
PC_INLINE void vf64_add_to(double *sums, vf64_t a) { vf64_store(sums, vf64_add(vf64_load(sums), a)); }

#endif
