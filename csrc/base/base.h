/* base.h: the few words that every room uses.
 *
 * PC_INLINE     a function that must disappear into its caller
 * PC_UNROLL(n)  before a loop whose trip count is a constant of at most n: unroll it completely
 * PC_ROLLED()   before one that is to stay a loop
 * pc_dtype      the two element types; both are first class everywhere
 */
#ifndef PC_BASE_BASE_H
#define PC_BASE_BASE_H

#include <stddef.h>
#include <stdint.h>

#define PC_INLINE static inline __attribute__((always_inline))
#define PC_COLD __attribute__((cold)) /* a person waits for it: small rather than fast */
#define PC_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define PC_UNROLL(n) PC_PRAGMA(clang loop unroll(full))
#define PC_ROLLED() PC_PRAGMA(clang loop unroll(disable))
#else
#define PC_UNROLL(n) PC_PRAGMA(GCC unroll n)
#define PC_ROLLED() PC_PRAGMA(GCC unroll 1)
#endif

typedef enum { PC_F32, PC_F64 } pc_dtype;

PC_INLINE size_t pc_dtype_size(pc_dtype dtype) { return dtype == PC_F32 ? sizeof(float) : sizeof(double); }

PC_INLINE int64_t pc_min(int64_t a, int64_t b) { return a < b ? a : b; }
PC_INLINE int64_t pc_max(int64_t a, int64_t b) { return a > b ? a : b; }

/* ceil(a / b) for a >= 0, b > 0, without the sum that could overflow */
PC_INLINE int64_t pc_ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

/* floor(a / b) toward minus infinity, b > 0 */
PC_INLINE int64_t pc_floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

#endif
