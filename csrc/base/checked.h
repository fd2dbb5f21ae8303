/* checked.h: arithmetic on sizes that says when it overflowed.
 *
 * Each function stores the wrapped result and returns true on overflow, so a chain of them reads
 *     bad = pc_mul(&bytes, n, size) | pc_add(&bytes, bytes, extra);
 */
#ifndef PC_BASE_CHECKED_H
#define PC_BASE_CHECKED_H

#include <stdbool.h>

#include "base/base.h"

PC_INLINE bool pc_add(int64_t *out, int64_t a, int64_t b) { return __builtin_add_overflow(a, b, out); }
PC_INLINE bool pc_sub(int64_t *out, int64_t a, int64_t b) { return __builtin_sub_overflow(a, b, out); }
PC_INLINE bool pc_mul(int64_t *out, int64_t a, int64_t b) { return __builtin_mul_overflow(a, b, out); }

#endif
