/* axis.h: what the files of this room share, and nobody else includes: words for messages, and the three sums that
 * both the checks of construction and the sizes need.
 */
#ifndef PC_GEOM_AXIS_H
#define PC_GEOM_AXIS_H

#include <inttypes.h>

#include "base/checked.h"
#include "geom/geom.h"

/* for pc_fail's formats: one size, a pair, a shape */
#define PC_D "%" PRId64
#define PC_PAIR "(" PC_D ", " PC_D ")"
#define PC_SHAPE "[" PC_D ", " PC_D ", " PC_D ", " PC_D "]"
#define PC_SHAPE_OF(shape) (shape)[0], (shape)[1], (shape)[2], (shape)[3]

PC_INLINE const char *pc_axis_name(int axis) { return axis == 0 ? "height" : "width"; }

/* Span and padding of an axis. Only for a window that pc_window_check accepted: then neither overflows. */
PC_INLINE int64_t pc_axis_span(const pc_window *window, int axis)
{
    return window->dilation[axis] * (window->kernel[axis] - 1) + 1;
}

PC_INLINE int64_t pc_axis_pad(const pc_window *window, int axis) { return window->pad[axis][0] + window->pad[axis][1]; }

/* Whether the bytes of an array fit, with an empty batch counted as one sample. The other sizes are at least 1. */
PC_INLINE bool pc_bytes_fit(int64_t n, int64_t channels, int64_t height, int64_t width)
{
    int64_t bytes;
    return !(pc_mul(&bytes, pc_max(n, 1), 8) || pc_mul(&bytes, bytes, channels) || pc_mul(&bytes, bytes, height) ||
             pc_mul(&bytes, bytes, width));
}

#endif
