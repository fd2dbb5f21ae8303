/* slab.h: a piece of the input, copied so that a kernel never meets a border or a stride. Private to ops/.
 *
 * A sweep slides a window over a source plane. Along one axis, output i at tap k reads source position
 *
 *     i*stride + base + k*delta              (forward: base = -padding, delta = dilation)
 *
 * Split base + k*delta = stride*f + r with 0 <= r < stride: the tap reads element i + f of "phase" r, the source
 * positions r, r + stride, r + 2*stride, ... So with the phases laid out one behind the other, every tap is a fixed
 * offset and neighbouring outputs read neighbouring elements, whatever the stride and the dilation:
 *
 *     source row   a b c d e f g        phase 0   . a c e g .
 *     stride 2, padding 1          ->   phase 1   b d f .            ('.' is the padding's value)
 *
 * Both axes are split so. A channel's slab is [phase of y][phase of x][row][column][sample]; only phases that a tap
 * reads are there. Samples are innermost: for maps of a few pixels, several samples share a vector.
 *
 * An axis may also be *split*: each tap gets a copy of its own, exactly as long as there are outputs. On the x axis of
 * a band of whole rows the outputs then run on from row to row without a gap.
 *
 * A tap that lies wholly outside the source over a band of outputs reads nothing but padding. It is left out where
 * the arithmetic allows it; else its f is moved to just outside the source, where it reads the same padding: so a
 * dilation of a billion costs no memory. */
#ifndef PC_OPS_SLAB_H
#define PC_OPS_SLAB_H

#include "ops/ops.h"

/* One axis of a sweep. `weight_first + k*weight_step` is tap k's place in the weight's axis. */
typedef struct {
    int64_t size; /* of the source */
    int64_t stride;
    int64_t count; /* outputs */
    int64_t taps, base, delta;
    int64_t weight_first, weight_step;
    pc_pad_mode mode;
    bool split; /* every tap is a phase of its own: `count` elements, and the tap's f is 0 */
} pc_axis;

/* A band of outputs of one axis, and what its taps read. */
typedef struct {
    int64_t first, count;   /* outputs */
    int64_t tap, taps;      /* the taps that take part */
    int64_t phases, period; /* distinct phases; tap k reads phase (k - tap) % period */
    int64_t low, extent;    /* smallest f, and elements of a phase that are read */
} pc_span;

typedef struct {
    pc_span y, x;
    int64_t samples;
    int64_t row_step, plane_step, channel_step; /* elements */
} pc_slab;

/* The axis of a forward sweep: every tap, in order. */
pc_axis pc_axis_of(int64_t size, int64_t count, int64_t stride, int64_t pad, int64_t taps, int64_t dilation,
                   pc_pad_mode mode);

/* After how many taps that lie `delta` apart the remainder modulo the stride comes back. */
int64_t pc_tap_period(int64_t stride, int64_t delta);

/* The taps from *tap on that take part in a band: all of them, or (skip) without those at the ends that read only
 * padding. */
int64_t pc_band_taps(const pc_axis *axis, int64_t first, int64_t count, bool skip, int64_t *tap);

pc_span pc_span_of(const pc_axis *axis, int64_t first, int64_t count, bool skip);

/* The largest `phases * extent` that any band of `count` outputs can have. */
int64_t pc_span_most(const pc_axis *axis, int64_t count);

pc_slab pc_slab_of(pc_span y, pc_span x, int64_t samples, pc_dtype dtype);

/* channel_step for a slab whose axes are at most so long; an upper bound for pc_slab_of's. Negative if too large. */
int64_t pc_slab_most(int64_t most_y, int64_t most_x, int64_t samples, pc_dtype dtype);

/* Offsets of the span's taps from the slab's first element: count `span.taps`. */
void pc_slab_rows(const pc_slab *slab, const pc_axis *axis, int64_t *offsets);
void pc_slab_columns(const pc_slab *slab, const pc_axis *axis, int64_t *offsets);

/* The first output of the next band: at most `most` further than `first`. Bands end where a tap enters or leaves the
 * source, if both sides then have `least` outputs; with 1 a tap is wholly inside or wholly outside. 0: they do not. */
int64_t pc_band_end(const pc_axis *axis, int64_t first, int64_t most, int64_t least);

/* Copies `channels` channels from channel `channel` and slab.samples samples from sample `sample` on. Without `rim`,
 * elements outside the source may keep what they hold: an earlier slab of the same shape has left zeros there. */
void pc_slab_pack(const pc_slab *slab, const pc_axis *y, const pc_axis *x, pc_dtype dtype, void *packed,
                  const pc_tensor *source, int64_t sample, int64_t channel, int64_t channels, bool rim);

#endif
