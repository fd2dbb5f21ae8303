/* vec_avx2.h: the words of simd/ (listed in vec_avx512.h), in AVX2 and FMA3.
 *
 * Masks are vectors here: all bits of a lane, or none. 6 x 2: 12 accumulators, 2 loads and a broadcast are 15 of the
 * 16 registers. */
#ifndef PC_SIMD_VEC_H
#define PC_SIMD_VEC_H

#include <immintrin.h>

#include "base/base.h"

#define PC_TILE_ROWS 6
#define PC_TILE_VECTORS 2
#define PC_MASKS_COST 1
/* dense_tile: so many vectors a row, the fewer the rows the more: 12 accumulators, or 8 of a latency of 4. */
#define PC_DENSE_ROWS 6
#define PC_DENSE_WIDEST 8
#define PC_DENSE_VECTORS(rows) ((rows) == 1 ? 8 : (rows) == 2 ? 6 : (rows) == 3 ? 4 : (rows) == 4 ? 3 : 2)
#define PC_DENSE_PAIRS(rows) ((rows) == 1 || (rows) > 4)
#define PC_DENSE_BESIDE(rows) 0
#define VF32_LANES 8
#define VF64_LANES 4
#define v_pin(a) __asm__("" : "+x"(a))

typedef __m256 vf32_t;
typedef __m256i vi32_t;
typedef __m256 vm32_t;
typedef __m256d vf64_t;
typedef __m256i vi64_t;
typedef __m256d vm64_t;

PC_INLINE vf32_t vf32_load(const float *p) { return _mm256_loadu_ps(p); }
PC_INLINE void vf32_store(float *p, vf32_t a) { _mm256_storeu_ps(p, a); }
PC_INLINE vi32_t vf32_first(int64_t count)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
PC_INLINE vf32_t vf32_load_tail(const float *p, int64_t count) { return _mm256_maskload_ps(p, vf32_first(count)); }
PC_INLINE void vf32_store_tail(float *p, vf32_t a, int64_t count) { _mm256_maskstore_ps(p, vf32_first(count), a); }
PC_INLINE vf32_t vf32_zero(void) { return _mm256_setzero_ps(); }
PC_INLINE vf32_t vf32_set1(float a) { return _mm256_set1_ps(a); }
PC_INLINE vf32_t vf32_add(vf32_t a, vf32_t b) { return _mm256_add_ps(a, b); }
PC_INLINE vf32_t vf32_sub(vf32_t a, vf32_t b) { return _mm256_sub_ps(a, b); }
PC_INLINE vf32_t vf32_div(vf32_t a, vf32_t b) { return _mm256_div_ps(a, b); }
PC_INLINE vf32_t vf32_fma(vf32_t a, vf32_t b, vf32_t c) { return _mm256_fmadd_ps(a, b, c); }
PC_INLINE vf32_t vf32_order(vf32_t a) /* the quarters 0 2 1 3 */
{
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(a), 0xD8));
}
PC_INLINE vf32_t vf32_even(vf32_t a, vf32_t b) { return vf32_order(_mm256_shuffle_ps(a, b, 0x88)); }
PC_INLINE vf32_t vf32_odd(vf32_t a, vf32_t b) { return vf32_order(_mm256_shuffle_ps(a, b, 0xDD)); }
PC_INLINE vf32_t vf32_zip_low(vf32_t a, vf32_t b)
{
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
}
PC_INLINE vf32_t vf32_zip_high(vf32_t a, vf32_t b)
{
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
}
PC_INLINE vm32_t vf32_gt(vf32_t a, vf32_t b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
PC_INLINE vm32_t vf32_isnan(vf32_t a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
PC_INLINE vm32_t vf32_mask_or(vm32_t a, vm32_t b) { return _mm256_or_ps(a, b); }
PC_INLINE vm32_t vm32_first(int64_t count) { return _mm256_castsi256_ps(vf32_first(count)); }
PC_INLINE uint64_t vm32_bits(vm32_t mask) { return (uint64_t)_mm256_movemask_ps(mask); }
PC_INLINE vm32_t vm32_of(uint64_t bits)
{
    const __m256i lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), lanes), lanes));
}
PC_INLINE vf32_t vf32_select(vm32_t mask, vf32_t a, vf32_t b) { return _mm256_blendv_ps(b, a, mask); }
PC_INLINE vf32_t vf32_keep(vm32_t mask, vf32_t a) { return _mm256_and_ps(mask, a); }
PC_INLINE vf32_t vf32_load_where(vm32_t mask, const float *p)
{
    return _mm256_maskload_ps(p, _mm256_castps_si256(mask));
}
PC_INLINE vi32_t vi32_load(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
PC_INLINE void vi32_store(int32_t *p, vi32_t a) { _mm256_storeu_si256((__m256i *)p, a); }
PC_INLINE vi32_t vi32_set1(int32_t a) { return _mm256_set1_epi32(a); }
PC_INLINE vi32_t vi32_select(vm32_t mask, vi32_t a, vi32_t b)
{
    return _mm256_blendv_epi8(b, a, _mm256_castps_si256(mask));
}
PC_INLINE int vf32_any(vm32_t a) { return _mm256_movemask_ps(a) != 0; }
PC_INLINE vf32_t vf32_max_number(vf32_t best, vf32_t x) { return _mm256_max_ps(x, best); }
PC_INLINE vf32_t vf32_max(vf32_t best, vf32_t x)
{
    return _mm256_blendv_ps(_mm256_max_ps(x, best), x, vf32_isnan(x)); /* maxps: `best` if equal or either is NaN */
}
PC_INLINE vf32_t vf32_load_or(const float *p, int64_t count, vf32_t fill)
{
    vi32_t mask = vf32_first(count);
    return _mm256_blendv_ps(fill, _mm256_maskload_ps(p, mask), _mm256_castsi256_ps(mask));
}
PC_INLINE vf32_t vf32_evens(vf32_t a, vf32_t b) { return _mm256_shuffle_ps(a, b, 0x88); }
PC_INLINE vf32_t vf32_odds(vf32_t a, vf32_t b) { return _mm256_shuffle_ps(a, b, 0xdd); }
PC_INLINE vi32_t vi32_in_order(vi32_t a) { return _mm256_permute4x64_epi64(a, 0xd8); }
PC_INLINE vf32_t vf32_in_order(vf32_t a) { return _mm256_castsi256_ps(vi32_in_order(_mm256_castps_si256(a))); }
PC_INLINE vf32_t vf32_load_step(const float *p, int64_t step)
{
    return _mm256_setr_ps(p[0], p[step], p[2 * step], p[3 * step], p[4 * step], p[5 * step], p[6 * step], p[7 * step]);
}
PC_INLINE vi32_t vi32_add(vi32_t a, vi32_t b) { return _mm256_add_epi32(a, b); }
PC_INLINE vi32_t vi32_max(vi32_t a, vi32_t b) { return _mm256_max_epi32(a, b); }
PC_INLINE void vi32_store_wide(int64_t *p, vi32_t a, int64_t base)
{
    __m256i add = _mm256_set1_epi64x(base);
    __m256i low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(a));
    __m256i high = _mm256_cvtepi32_epi64(_mm256_extracti128_si256(a, 1));
    _mm256_storeu_si256((__m256i *)p, _mm256_add_epi64(low, add));
    _mm256_storeu_si256((__m256i *)(p + 4), _mm256_add_epi64(high, add));
}
/* 0 1 4 5 2 3 6 7 unpack to 0 1 2 3, 4 5 6 7 */
PC_INLINE void vi32_store_wide_evens(int64_t *p, vi32_t a, int64_t base)
{
    const __m256i add = _mm256_set1_epi64x(base), zero = _mm256_setzero_si256();
    _mm256_storeu_si256((__m256i *)p, _mm256_add_epi64(_mm256_unpacklo_epi32(a, zero), add));
    _mm256_storeu_si256((__m256i *)(p + 4), _mm256_add_epi64(_mm256_unpackhi_epi32(a, zero), add));
}
PC_INLINE int vf32_all(vm32_t a) { return _mm256_movemask_ps(a) == 0xff; }
PC_INLINE vm32_t vf32_mask_and(vm32_t a, vm32_t b) { return _mm256_and_ps(a, b); }
PC_INLINE vm32_t vi32_eq(vi32_t a, vi32_t b) { return _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b)); }
PC_INLINE vi32_t vi32_load_narrow(const int64_t *p, vm32_t *fit)
{
    __m256 low = _mm256_loadu_ps((const float *)p), high = _mm256_loadu_ps((const float *)(p + 4));
    *fit = vi32_eq(_mm256_castps_si256(_mm256_shuffle_ps(low, high, 0xdd)), _mm256_setzero_si256());
    *fit = _mm256_castsi256_ps(vi32_in_order(_mm256_castps_si256(*fit)));
    return vi32_in_order(_mm256_castps_si256(_mm256_shuffle_ps(low, high, 0x88)));
}

/* Pairs of lanes within a half, then fours, then the halves. */
PC_INLINE void vf32_transpose(vf32_t x[VF32_LANES])
{
    vf32_t y[VF32_LANES];
    PC_UNROLL(2)
    for (int i = 0; i < 8; i += 4) {
        vf32_t a = _mm256_unpacklo_ps(x[i], x[i + 1]), b = _mm256_unpacklo_ps(x[i + 2], x[i + 3]);
        vf32_t c = _mm256_unpackhi_ps(x[i], x[i + 1]), d = _mm256_unpackhi_ps(x[i + 2], x[i + 3]);
        y[i] = _mm256_shuffle_ps(a, b, 0x44);
        y[i + 1] = _mm256_shuffle_ps(a, b, 0xee);
        y[i + 2] = _mm256_shuffle_ps(c, d, 0x44);
        y[i + 3] = _mm256_shuffle_ps(c, d, 0xee);
    }
    PC_UNROLL(4)
    for (int i = 0; i < 4; i++) {
        x[i] = _mm256_permute2f128_ps(y[i], y[i + 4], 0x20);
        x[i + 4] = _mm256_permute2f128_ps(y[i], y[i + 4], 0x31);
    }
}

PC_INLINE void vf32_add_to(double *sums, vf32_t a)
{
    __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(a)), high = _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1));
    _mm256_storeu_pd(sums, _mm256_add_pd(_mm256_loadu_pd(sums), low));
    _mm256_storeu_pd(sums + 4, _mm256_add_pd(_mm256_loadu_pd(sums + 4), high));
}

PC_INLINE vf64_t vf64_load(const double *p) { return _mm256_loadu_pd(p); }
PC_INLINE void vf64_store(double *p, vf64_t a) { _mm256_storeu_pd(p, a); }
PC_INLINE vi64_t vf64_first(int64_t count)
{
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
PC_INLINE vf64_t vf64_load_tail(const double *p, int64_t count) { return _mm256_maskload_pd(p, vf64_first(count)); }
PC_INLINE void vf64_store_tail(double *p, vf64_t a, int64_t count) { _mm256_maskstore_pd(p, vf64_first(count), a); }
PC_INLINE vf64_t vf64_zero(void) { return _mm256_setzero_pd(); }
PC_INLINE vf64_t vf64_set1(double a) { return _mm256_set1_pd(a); }
PC_INLINE vf64_t vf64_add(vf64_t a, vf64_t b) { return _mm256_add_pd(a, b); }
PC_INLINE vf64_t vf64_sub(vf64_t a, vf64_t b) { return _mm256_sub_pd(a, b); }
PC_INLINE vf64_t vf64_div(vf64_t a, vf64_t b) { return _mm256_div_pd(a, b); }
PC_INLINE vf64_t vf64_fma(vf64_t a, vf64_t b, vf64_t c) { return _mm256_fmadd_pd(a, b, c); }
PC_INLINE vf64_t vf64_even(vf64_t a, vf64_t b) { return _mm256_permute4x64_pd(_mm256_unpacklo_pd(a, b), 0xD8); }
PC_INLINE vf64_t vf64_odd(vf64_t a, vf64_t b) { return _mm256_permute4x64_pd(_mm256_unpackhi_pd(a, b), 0xD8); }
PC_INLINE vf64_t vf64_zip_low(vf64_t a, vf64_t b)
{
    return _mm256_permute2f128_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b), 0x20);
}
PC_INLINE vf64_t vf64_zip_high(vf64_t a, vf64_t b)
{
    return _mm256_permute2f128_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b), 0x31);
}
PC_INLINE vm64_t vf64_gt(vf64_t a, vf64_t b) { return _mm256_cmp_pd(a, b, _CMP_GT_OQ); }
PC_INLINE vm64_t vf64_isnan(vf64_t a) { return _mm256_cmp_pd(a, a, _CMP_UNORD_Q); }
PC_INLINE vm64_t vf64_mask_or(vm64_t a, vm64_t b) { return _mm256_or_pd(a, b); }
PC_INLINE vm64_t vm64_first(int64_t count) { return _mm256_castsi256_pd(vf64_first(count)); }
PC_INLINE uint64_t vm64_bits(vm64_t mask) { return (uint64_t)_mm256_movemask_pd(mask); }
PC_INLINE vm64_t vm64_of(uint64_t bits)
{
    const __m256i lanes = _mm256_setr_epi64x(1, 2, 4, 8);
    return _mm256_castsi256_pd(_mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x((int64_t)bits), lanes), lanes));
}
PC_INLINE vf64_t vf64_select(vm64_t mask, vf64_t a, vf64_t b) { return _mm256_blendv_pd(b, a, mask); }
PC_INLINE vf64_t vf64_keep(vm64_t mask, vf64_t a) { return _mm256_and_pd(mask, a); }
PC_INLINE vf64_t vf64_load_where(vm64_t mask, const double *p)
{
    return _mm256_maskload_pd(p, _mm256_castpd_si256(mask));
}
PC_INLINE vi64_t vi64_load(const int64_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
PC_INLINE void vi64_store(int64_t *p, vi64_t a) { _mm256_storeu_si256((__m256i *)p, a); }
PC_INLINE vi64_t vi64_set1(int64_t a) { return _mm256_set1_epi64x(a); }
PC_INLINE vi64_t vi64_select(vm64_t mask, vi64_t a, vi64_t b)
{
    return _mm256_blendv_epi8(b, a, _mm256_castpd_si256(mask));
}
PC_INLINE int vf64_any(vm64_t a) { return _mm256_movemask_pd(a) != 0; }
PC_INLINE vf64_t vf64_max_number(vf64_t best, vf64_t x) { return _mm256_max_pd(x, best); }
PC_INLINE vf64_t vf64_max(vf64_t best, vf64_t x) { return _mm256_blendv_pd(_mm256_max_pd(x, best), x, vf64_isnan(x)); }
PC_INLINE vf64_t vf64_load_or(const double *p, int64_t count, vf64_t fill)
{
    vi64_t mask = vf64_first(count);
    return _mm256_blendv_pd(fill, _mm256_maskload_pd(p, mask), _mm256_castsi256_pd(mask));
}
PC_INLINE vf64_t vf64_evens(vf64_t a, vf64_t b) { return _mm256_unpacklo_pd(a, b); }
PC_INLINE vf64_t vf64_odds(vf64_t a, vf64_t b) { return _mm256_unpackhi_pd(a, b); }
PC_INLINE vi64_t vi64_in_order(vi64_t a) { return _mm256_permute4x64_epi64(a, 0xd8); }
PC_INLINE vf64_t vf64_in_order(vf64_t a) { return _mm256_permute4x64_pd(a, 0xd8); }
PC_INLINE vf64_t vf64_load_step(const double *p, int64_t step)
{
    return _mm256_setr_pd(p[0], p[step], p[2 * step], p[3 * step]);
}
PC_INLINE vi64_t vi64_add(vi64_t a, vi64_t b) { return _mm256_add_epi64(a, b); }
PC_INLINE vi64_t vi64_max(vi64_t a, vi64_t b) { return _mm256_blendv_epi8(b, a, _mm256_cmpgt_epi64(a, b)); }
PC_INLINE void vi64_store_wide(int64_t *p, vi64_t a, int64_t base)
{
    _mm256_storeu_si256((__m256i *)p, _mm256_add_epi64(a, _mm256_set1_epi64x(base)));
}
PC_INLINE void vi64_store_wide_evens(int64_t *p, vi64_t a, int64_t base) { vi64_store_wide(p, vi64_in_order(a), base); }
PC_INLINE int vf64_all(vm64_t a) { return _mm256_movemask_pd(a) == 0xf; }
PC_INLINE vm64_t vf64_mask_and(vm64_t a, vm64_t b) { return _mm256_and_pd(a, b); }
PC_INLINE vm64_t vi64_eq(vi64_t a, vi64_t b) { return _mm256_castsi256_pd(_mm256_cmpeq_epi64(a, b)); }
PC_INLINE vi64_t vi64_load_narrow(const int64_t *p, vm64_t *fit)
{
    vi64_t a = vi64_load(p);
    *fit = vi64_eq(a, a);
    return a;
}

PC_INLINE void vf64_transpose(vf64_t x[VF64_LANES])
{
    vf64_t a = _mm256_unpacklo_pd(x[0], x[1]), b = _mm256_unpacklo_pd(x[2], x[3]);
    vf64_t c = _mm256_unpackhi_pd(x[0], x[1]), d = _mm256_unpackhi_pd(x[2], x[3]);
    x[0] = _mm256_permute2f128_pd(a, b, 0x20);
    x[1] = _mm256_permute2f128_pd(c, d, 0x20);
    x[2] = _mm256_permute2f128_pd(a, b, 0x31);
    x[3] = _mm256_permute2f128_pd(c, d, 0x31);
}
PC_INLINE void vf64_add_to(double *sums, vf64_t a) { vf64_store(sums, vf64_add(vf64_load(sums), a)); }

#endif
