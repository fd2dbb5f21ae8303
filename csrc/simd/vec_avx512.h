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
 * and the sizes: VF<b>_LANES, the tile PC_TILE_ROWS x PC_TILE_VECTORS.
 *
 * 8 x 3: 24 accumulators, 3 loads and a broadcast fill 28 of the 32 registers. */
#ifndef PC_SIMD_VEC_H
#define PC_SIMD_VEC_H

#include <immintrin.h>

#include "base/base.h"

#define PC_TILE_ROWS 8
#define PC_TILE_VECTORS 3
#define VF32_LANES 16
#define VF64_LANES 8

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
PC_INLINE vm32_t vf32_gt(vf32_t a, vf32_t b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
PC_INLINE vm32_t vf32_isnan(vf32_t a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
PC_INLINE vm32_t vf32_mask_or(vm32_t a, vm32_t b) { return (vm32_t)(a | b); }
PC_INLINE vm32_t vm32_first(int64_t count) { return vf32_first(count); }
PC_INLINE uint64_t vm32_bits(vm32_t mask) { return mask; }
PC_INLINE vm32_t vm32_of(uint64_t bits) { return (vm32_t)bits; }
PC_INLINE vf32_t vf32_select(vm32_t mask, vf32_t a, vf32_t b) { return _mm512_mask_blend_ps(mask, b, a); }
PC_INLINE vi32_t vi32_load(const int32_t *p) { return _mm512_loadu_si512(p); }
PC_INLINE void vi32_store(int32_t *p, vi32_t a) { _mm512_storeu_si512(p, a); }
PC_INLINE vi32_t vi32_set1(int32_t a) { return _mm512_set1_epi32(a); }
PC_INLINE vi32_t vi32_select(vm32_t mask, vi32_t a, vi32_t b) { return _mm512_mask_blend_epi32(mask, b, a); }

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
PC_INLINE vm64_t vf64_gt(vf64_t a, vf64_t b) { return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ); }
PC_INLINE vm64_t vf64_isnan(vf64_t a) { return _mm512_cmp_pd_mask(a, a, _CMP_UNORD_Q); }
PC_INLINE vm64_t vf64_mask_or(vm64_t a, vm64_t b) { return (vm64_t)(a | b); }
PC_INLINE vm64_t vm64_first(int64_t count) { return vf64_first(count); }
PC_INLINE uint64_t vm64_bits(vm64_t mask) { return mask; }
PC_INLINE vm64_t vm64_of(uint64_t bits) { return (vm64_t)bits; }
PC_INLINE vf64_t vf64_select(vm64_t mask, vf64_t a, vf64_t b) { return _mm512_mask_blend_pd(mask, b, a); }
PC_INLINE vi64_t vi64_load(const int64_t *p) { return _mm512_loadu_si512(p); }
PC_INLINE void vi64_store(int64_t *p, vi64_t a) { _mm512_storeu_si512(p, a); }
PC_INLINE vi64_t vi64_set1(int64_t a) { return _mm512_set1_epi64(a); }
PC_INLINE vi64_t vi64_select(vm64_t mask, vi64_t a, vi64_t b) { return _mm512_mask_blend_epi64(mask, b, a); }
PC_INLINE void vf64_add_to(double *sums, vf64_t a) { vf64_store(sums, vf64_add(vf64_load(sums), a)); }

#endif
