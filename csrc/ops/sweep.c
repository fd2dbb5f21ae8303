#include "ops/sweep.h"

enum {
    SLAB_BYTES = 256 << 10, /* a quarter of the smallest L2 we care for; 160 to 300 KB measure alike */
    TINY = 32,              /* outputs, and taps, of an axis that is worth counting out */
};

/* ---- sweeps -------------------------------------------------------------------------------------------------- */

int64_t pc_remainders(int64_t stride, int64_t dilation, int64_t taps)
{
    return pc_min(pc_tap_period(stride, dilation), taps);
}

/* The sublattice of grad_in that the taps k0, k0 + period, ... reach; its first pixel goes into *first. */
static pc_axis backward_axis(int64_t k0, int64_t size, int64_t pixels, int64_t stride, int64_t pad, int64_t taps,
                             int64_t dilation, int64_t *first)
{
    int64_t period = pc_tap_period(stride, dilation);
    int64_t remainder = (k0 * dilation - pad) % stride;
    *first = remainder < 0 ? remainder + stride : remainder;
    pc_axis axis = {.size = size,
                    .stride = 1,
                    .count = *first < pixels ? (pixels - 1 - *first) / stride + 1 : 0,
                    .taps = (taps - 1 - k0) / period + 1,
                    .base = (*first + pad - k0 * dilation) / stride,
                    .weight_first = k0,
                    .weight_step = period,
                    .mode = PC_PAD_ZEROS};
    axis.delta = axis.taps > 1 ? -(period * dilation / stride) : 0;
    return axis;
}

int64_t pc_sweep_count(const pc_conv_geom *g, bool forward)
{
    return forward ? 1 : pc_remainders(g->sh, g->dh, g->kh) * pc_remainders(g->sw, g->dw, g->kw);
}

pc_sweep pc_sweep_at(const pc_conv_geom *g, bool forward, int64_t index)
{
    pc_sweep s = {.y_step = 1, .x_step = 1};
    if (forward) {
        s.y = pc_axis_of(g->ih, g->oh, g->sh, g->pt, g->kh, g->dh, g->pad_mode);
        s.x = pc_axis_of(g->iw, g->ow, g->sw, g->pl, g->kw, g->dw, g->pad_mode);
        return s;
    }
    int64_t across = pc_remainders(g->sw, g->dw, g->kw);
    s.y = backward_axis(index / across, g->oh, g->ih, g->sh, g->pt, g->kh, g->dh, &s.y0);
    s.x = backward_axis(index % across, g->ow, g->iw, g->sw, g->pl, g->kw, g->dw, &s.x0);
    s.y_step = g->sh;
    s.x_step = g->sw;
    return s;
}

static bool axis_leaves(const pc_axis *axis)
{
    const int64_t last = axis->base + (axis->taps - 1) * axis->delta;
    return pc_min(axis->base, last) < 0 || (axis->count - 1) * axis->stride + pc_max(axis->base, last) >= axis->size;
}

bool pc_sweep_leaves(const pc_sweep *sweep)
{
    return sweep->y.count > 0 && sweep->x.count > 0 && (axis_leaves(&sweep->y) || axis_leaves(&sweep->x));
}

/* ---- the cut ------------------------------------------------------------------------------------------------- */

/* Vectors that a run of outputs costs, for the better of the two ways to run: row by row, or on through the gaps
 * between the rows of the slab. */
static int64_t run_vectors(int64_t rows, int64_t width, int64_t extent, int64_t samples, int64_t lanes)
{
    int64_t flat = pc_ceil_div(((rows - 1) * extent + width) * samples, lanes);
    int64_t by_row = rows * pc_ceil_div(width * samples, lanes);
    return pc_min(flat, by_row);
}

static int64_t slab_elements(const pc_sweep *s, const pc_cut *c, pc_dtype dtype)
{
    int64_t step = pc_slab_most(pc_span_most(&s->y, c->band_h), pc_span_most(&s->x, c->band_w), c->samples, dtype);
    return step < 0 || step > INT64_MAX / 16 / c->channels ? INT64_MAX / 16 : step * c->channels;
}

/* The share of an axis' taps that read the source, over all outputs; for short axes only, 1 for long ones. */
static double inside(const pc_axis *axis)
{
    if (axis->count > TINY || axis->taps > TINY) {
        return 1;
    }
    int64_t taps = 0;
    for (int64_t i = 0; i < axis->count; i++) {
        for (int64_t k = 0; k < axis->taps; k++) {
            const int64_t at = i * axis->stride + axis->base + k * axis->delta;
            taps += at >= 0 && at < axis->size;
        }
    }
    return (double)taps / (double)(axis->count * axis->taps);
}

pc_cut pc_cut_of(const pc_conv_geom *g, const pc_sweep *s, bool skip, int64_t depth, int64_t rows,
                 const pc_kernels *kernels, pc_dtype dtype, int threads)
{
    const int64_t budget = SLAB_BYTES / (int64_t)pc_dtype_size(dtype);
    const int64_t lanes = kernels->lanes;
    const int64_t pixels = s->y.count * pc_min(s->x.count, 4 * kernels->tile_columns);
    pc_cut c = {.samples = 1, .channels = depth, .band_h = s->y.count, .band_w = s->x.count, .shares = 1};

    /* A tiny map under a large window reads mostly padding (a generator's first layer: 1x1 to 4x4, one tap of 16 per
     * pixel): then every pixel is a band of its own, and the samples fill the vectors. */
    if (skip && pixels < 4 * kernels->tile_columns && inside(&s->y) * inside(&s->x) < 0.4) {
        c.exact = true;
        c.samples = pc_max(1, pc_min(g->n, kernels->tile_columns));
    }

    /* Maps of a few pixels: let samples fill the vectors when that saves at least a tenth. */
    if (!c.exact && g->n > 1 && pixels < 4 * kernels->tile_columns) {
        int64_t extent = pc_span_most(&s->x, s->x.count) / pc_max(1, pc_min(s->x.stride, s->x.taps));
        int64_t best = run_vectors(s->y.count, s->x.count, extent, 1, lanes) * 9;
        for (int64_t samples = pc_min(g->n, lanes / 2); samples <= pc_min(g->n, 2 * lanes); samples += lanes / 2) {
            int64_t vectors = run_vectors(s->y.count, s->x.count, extent, samples, lanes) * 10;
            if (vectors * c.samples < best * samples) {
                best = vectors;
                c.samples = samples;
            }
        }
    }

    /* Shrink to the budget: first to bands of rows that still hold a few tiles, then fewer channels, then columns. */
    const int64_t least_h = pc_min(s->y.count, pc_max(4, pc_ceil_div(2 * kernels->tile_columns, s->x.count)));
    while (slab_elements(s, &c, dtype) > budget) {
        if (c.band_h > least_h) {
            c.band_h = pc_max(least_h, pc_ceil_div(c.band_h, 2));
        } else if (c.channels > 16) {
            c.channels = pc_ceil_div(c.channels, 2);
        } else if (c.band_w > 4 * kernels->tile_columns) {
            c.band_w = pc_max(4 * kernels->tile_columns, pc_ceil_div(c.band_w, 2));
        } else if (c.band_h > 1) {
            c.band_h = pc_ceil_div(c.band_h, 2);
        } else if (c.channels > 1) {
            c.channels = pc_ceil_div(c.channels, 2);
        } else {
            break;
        }
    }
    c.channels = pc_ceil_div(depth, pc_ceil_div(depth, c.channels)); /* blocks of one size */

    /* Enough items for the threads: first more bands, then shares of p, which pack the same slab once each. */
    int64_t blocks = pc_ceil_div(g->n, c.samples) * g->g;
    int64_t bands = pc_ceil_div(s->y.count, c.band_h) * pc_ceil_div(s->x.count, c.band_w);
    if (blocks * bands % threads != 0 && blocks * bands < 8 * threads) {
        int64_t wanted = pc_ceil_div(bands, threads) * threads;
        if (c.band_w == s->x.count && s->y.count >= wanted * least_h) {
            c.band_h = pc_ceil_div(s->y.count, wanted);
        } else if (blocks * bands < 2 * threads) {
            c.shares = pc_min(threads, pc_ceil_div(rows, kernels->tile_rows));
        }
    }
    c.list = pc_max(pc_max(s->y.taps, s->x.taps), FLAT_CHAIN * c.channels);
    /* The last vector of the last row may read past the slab's end. */
    c.slab_elements = slab_elements(s, &c, dtype) + kernels->tile_columns + lanes;
    return c;
}
