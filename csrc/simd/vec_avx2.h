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
PC_INLINE vi32_t vi32_load(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
PC_INLINE void vi32_store(int32_t *p, vi32_t a) { _mm256_storeu_si256((__m256i *)p, a); }
PC_INLINE vi32_t vi32_set1(int32_t a) { return _mm256_set1_epi32(a); }
PC_INLINE vi32_t vi32_select(vm32_t mask, vi32_t a, vi32_t b)
{
    return _mm256_blendv_epi8(b, a, _mm256_castps_si256(mask));
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
PC_INLINE vi64_t vi64_load(const int64_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
PC_INLINE void vi64_store(int64_t *p, vi64_t a) { _mm256_storeu_si256((__m256i *)p, a); }
PC_INLINE vi64_t vi64_set1(int64_t a) { return _mm256_set1_epi64x(a); }
PC_INLINE vi64_t vi64_select(vm64_t mask, vi64_t a, vi64_t b)
{
    return _mm256_blendv_epi8(b, a, _mm256_castpd_si256(mask));
}
PC_INLINE void vf64_add_to(double *sums, vf64_t a) { vf64_store(sums, vf64_add(vf64_load(sums), a)); }

#endif
