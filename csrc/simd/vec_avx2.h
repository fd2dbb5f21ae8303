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
PC_INLINE vf32_t vf32_select(vm32_t mask, vf32_t a, vf32_t b) { return _mm256_blendv_ps(b, a, mask); }
PC_INLINE vf32_t vf32_keep(vm32_t mask, vf32_t a) { return _mm256_and_ps(mask, a); }
PC_INLINE vi32_t vi32_load(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
PC_INLINE void vi32_store(int32_t *p, vi32_t a) { _mm256_storeu_si256((__m256i *)p, a); }
PC_INLINE vi32_t vi32_set1(int32_t a) { return _mm256_set1_epi32(a); }
PC_INLINE vi32_t vi32_select(vm32_t mask, vi32_t a, vi32_t b)
{
    return _mm256_blendv_epi8(b, a, _mm256_castps_si256(mask));
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
PC_INLINE vf64_t vf64_select(vm64_t mask, vf64_t a, vf64_t b) { return _mm256_blendv_pd(b, a, mask); }
PC_INLINE vf64_t vf64_keep(vm64_t mask, vf64_t a) { return _mm256_and_pd(mask, a); }
PC_INLINE vi64_t vi64_load(const int64_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
PC_INLINE void vi64_store(int64_t *p, vi64_t a) { _mm256_storeu_si256((__m256i *)p, a); }
PC_INLINE vi64_t vi64_set1(int64_t a) { return _mm256_set1_epi64x(a); }
PC_INLINE vi64_t vi64_select(vm64_t mask, vi64_t a, vi64_t b)
{
    return _mm256_blendv_epi8(b, a, _mm256_castpd_si256(mask));
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

#endif
