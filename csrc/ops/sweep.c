#include "ops/sweep.h"

#include <math.h>

#include "base/checked.h"

enum {
    SLAB_BYTES = 256 << 10, /* half of the smallest L2 we care for; 160 to 300 KB measure alike */
    STEP_BYTES = 24 << 10,  /* a tile's columns, in whole lines, and its scalars, through one block of channels: L1 */
    TILES = 8,              /* at least that a block's weights serve, one after the other: 1.03 times as fast as one */
    LINE = 64,
    WEIGHT_BYTES = 160 << 10, /* of packed weights: a part of L2 */
    PANEL_BYTES = 512 << 10,  /* of outputs that are not neighbours in memory, before they go there */
    LIST = 48,                /* steps that a list should have at least, for the loop around it to cost nothing */
    CHAINS = 8,               /* of multiply-adds that keep a core busy */
    LEAST = 4,                /* outputs of a band that leaves taps out; fewer go with their neighbours */
    TINY = 32,                /* outputs, and taps, of an axis that is worth counting out */
    SMALL = 128,              /* outputs of a map that shares its tiles with other samples, */
    ENOUGH = 256,             /* until there are so many */
    ALIKE = 2048,             /* outputs that share packed weights: enough to forget what those cost, */
    MOST_PARTS = 256,         /* in so many parts */
};
#define PACKING 128.0
#define WEIGHT_COST 2.5 /* measured; see cost_of */
#define PANEL_COST 16
#define MOST_TAPS ((int64_t)1 << 48)

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

/* The bands of an axis that leave taps out. */
typedef struct {
    int64_t bands, taps;       /* of all */
    int64_t outputs, elements; /* of one and of its slab, at most */
} pc_bands;

static pc_bands bands_of(const pc_axis *axis, int64_t least)
{
    pc_bands all = {0};
    for (int64_t first = 0, end; first < axis->count; first = end) {
        end = pc_band_end(axis, first, axis->count, least);
        const pc_span span = pc_span_of(axis, first, end - first, true);
        all.bands++;
        all.taps += span.taps;
        all.outputs = pc_max(all.outputs, span.count);
        all.elements = pc_max(all.elements, span.phases * span.extent);
    }
    return all;
}

static int64_t slab_elements(const pc_sweep *s, const pc_cut *c, pc_dtype dtype)
{
    const bool fewer = c->least_x > 1; /* taps, so much so that pc_span_most would be a few times too large */
    const int64_t most_y = fewer ? bands_of(&s->y, c->least_y).elements : pc_span_most(&s->y, c->band_h);
    const int64_t most_x = fewer ? bands_of(&s->x, c->least_x).elements : pc_span_most(&s->x, c->band_w);
    int64_t step = pc_slab_most(most_y, most_x, c->samples, dtype);
    return step < 0 || step > INT64_MAX / 16 / c->channels ? INT64_MAX / 16 : step * c->channels;
}

/* The share of an axis' taps that read the source, over all outputs; 1 for long windows, which are not counted out. */
static double inside(const pc_axis *axis)
{
    if (axis->taps > TINY) {
        return 1;
    }
    double taps = 0;
    for (int64_t k = 0; k < axis->taps; k++) {
        const int64_t offset = axis->base + k * axis->delta;
        const int64_t enters = -pc_floor_div(offset, axis->stride);
        const int64_t leaves = -pc_floor_div(offset - axis->size, axis->stride);
        taps += (double)pc_max(0, pc_min(leaves, axis->count) - pc_max(enters, 0));
    }
    return taps / ((double)axis->count * (double)axis->taps);
}

/* Are tiles that end with each row so much emptier than tiles that run on, that a copy for each column tap pays?
 * A row of the slab serves y.taps * rows multiply-adds an element, a copy costs about one vector's load and store. A tile
 * of a single vector is as slow as one of eight rows, which wait for each other: on rows of 8 and 24, AVX2, running on is
 * 1.24 and 1.11 times as fast; and rows that fill no tile leave more of its costs to each element (1.07 where one vector
 * of three is full, 1.03 where two are, AVX-512). */
static bool runs_on(const pc_sweep *s, int64_t rows, int64_t lanes, int64_t tile, int64_t tall)
{
    const int64_t width = s->x.count, copies = s->x.taps - pc_min(s->x.taps, pc_tap_period(s->x.stride, s->x.delta));
    const int64_t vectors = pc_ceil_div(width, lanes);
    const double alone =
        tile > lanes && (vectors * lanes) % tile == lanes ? fmax(0, (double)CHAINS / (double)tall - 1) : 0;
    const double idle = width < tile ? 0.18 - 0.12 * (double)(vectors * lanes) / (double)tile : 0;
    const double waste = ((double)vectors + alone) * (double)lanes / (double)width - 1 + idle;
    const double cost = (double)(copies * lanes) / ((double)s->x.taps * (double)s->y.taps * (double)rows);
    return copies == 0 || (s->x.taps <= TINY && waste > 0.03 + cost);
}

/* What a sample costs, in vectors of multiply-adds of one channel and one block of rows p. To pack a vector of a slab,
 * which serves all blocks, costs as much as PACKING multiply-adds, the weights of a tap, which each band packs anew,
 * WEIGHT_COST times that, and the panel, which serves all channels, PANEL_COST times. */
static double cost_of(const pc_sweep *s, const pc_cut *c, int64_t depth, int64_t lanes, int64_t tall)
{
    const double packing = PACKING / (double)(lanes * tall);
    double cost = 0;
    for (int64_t j = 0, below; j < s->y.count; j = below) {
        below = pc_band_end(&s->y, j, s->y.count, c->least_y);
        const pc_span y = pc_span_of(&s->y, j, below - j, true);
        for (int64_t i = 0, right; i < s->x.count; i = right) {
            right = pc_band_end(&s->x, i, s->x.count, c->least_x);
            const pc_span x = pc_span_of(&s->x, i, right - i, true);
            const int64_t rows = c->flat ? 1 : y.count, width = c->flat ? y.count * x.count : x.count;
            const double vectors = (double)rows * (double)pc_ceil_div(width, lanes);
            const double slab = (double)(y.phases * y.extent) * (double)(x.phases * x.extent) / (double)lanes;
            cost += (double)(y.taps * x.taps) * (vectors + WEIGHT_COST * packing) + slab * packing / (double)c->blocks;
            cost += c->least_x > 0 ? vectors * PANEL_COST * packing / (double)depth : 0;
        }
    }
    return cost;
}

/* Bands of columns that leave taps out, or of rows and columns, if that is faster: their outputs run on and go through
 * the panel. 2048 channels of 33 x 33 to 256, 3 x 3, take 0.51, 0.70 and 0.93 of the time at dilations of 18, 12 and 6,
 * 512 channels at 4 0.96; at 3 and 2 nothing is to be had. */
static void leave_columns_out(pc_sweep *s, pc_cut *c, double taps, int64_t depth, int64_t lanes, int64_t tall,
                              pc_dtype dtype)
{
    double best = 0.98 * cost_of(s, c, depth, lanes, tall);
    pc_cut other = *c;
    pc_sweep split = *s;
    split.x.split = other.flat = true;
    other.channels = pc_min(depth, (int64_t)ceil(LIST / taps));
    other.least_x = LEAST;
    for (other.least_y = 0; other.least_y <= LEAST; other.least_y += LEAST) {
        const double cost = cost_of(&split, &other, depth, lanes, tall);
        if (cost < best && slab_elements(&split, &other, dtype) <= SLAB_BYTES / (int64_t)pc_dtype_size(dtype)) {
            best = cost;
            *c = other;
            *s = split;
        }
    }
}

/* What a tile of columns touches of a channel's slab, about: each row of it, of each copy, begins and ends somewhere in
 * a line. Lines count, not elements: with all that one expects in L1, twice as much is there, and it does not stay. */
static double tile_bytes(const pc_sweep *s, int64_t samples, int64_t columns, int64_t size)
{
    const pc_axis *x = &s->x;
    const int64_t period = pc_min(x->taps, pc_tap_period(x->stride, x->delta));
    const int64_t copies = x->split ? x->taps : period, each = pc_ceil_div(x->taps, copies);
    const double apart = fabs((double)x->delta) * (double)period / (double)x->stride * (double)samples;
    const double row =
        fmin((double)each * (double)columns, (double)columns + (double)(each - 1) * apart) * (double)size;
    const bool aligned = x->taps == 1 && s->y.taps == 1;
    const double apart_y = fabs((double)s->y.delta) / (double)s->y.stride * (double)(x->count * samples * size);
    const double rows = (double)s->y.taps * (row + (aligned ? 0 : LINE));
    /* Where rows run on and are short, those of neighbouring taps overlap: 76 of 144 elements for 14 x 14, tiles of 48. */
    const double together = row + (double)(s->y.taps - 1) * apart_y + LINE;
    return (double)copies * (x->split && s->y.stride == 1 ? fmin(rows, together) : rows);
}

/* The product. A window of more has no weight in memory, and no list. */
static int64_t taps_of(int64_t rows, int64_t columns)
{
    int64_t taps;
    return pc_mul(&taps, pc_max(1, rows), pc_max(1, columns)) ? MOST_TAPS : pc_min(taps, MOST_TAPS);
}

/* A sweep as large as the largest of a range, of one or of all: the first one has the most taps. */
static pc_sweep largest(const pc_conv_geom *g, bool forward, pc_range range)
{
    pc_sweep s = pc_sweep_at(g, forward, range.first);
    if (range.end - range.first > 1) {
        s.y.count = pc_ceil_div(g->ih, g->sh);
        s.x.count = pc_ceil_div(g->iw, g->sw);
    }
    s.y.count = pc_max(1, s.y.count); /* one that has no outputs has no items */
    s.x.count = pc_max(1, s.x.count);
    return s;
}

bool pc_next_range(const pc_conv_geom *g, bool forward, int64_t rows, pc_dtype dtype, pc_range *range)
{
    const int64_t sweeps = pc_sweep_count(g, forward);
    const double panel = (double)g->ih * (double)g->iw * (double)rows * (double)pc_dtype_size(dtype);
    const bool all = !forward && (sweeps == taps_of(g->kh, g->kw) || panel <= PANEL_BYTES);
    *range = (pc_range){.first = range->end, .end = all ? sweeps : pc_min(range->end + 1, sweeps)};
    return range->first < range->end;
}

int64_t pc_together(const pc_cut *cut, int64_t taps)
{
    return pc_max(1, pc_min(cut->channels, LIST / pc_max(1, taps)));
}

pc_cut pc_cut_of(const pc_conv_geom *g, bool forward, pc_range range, bool skip, bool spread, int64_t depth,
                 int64_t rows, const pc_kernels *kernels, pc_dtype dtype, int threads)
{
    pc_sweep s = largest(g, forward, range);
    const int64_t sweeps = range.end - range.first;
    const int64_t size = (int64_t)pc_dtype_size(dtype), lanes = kernels->lanes, tall = kernels->dense_rows;
    const int64_t blocks = pc_ceil_div(rows, tall);
    const int64_t tile = kernels->dense_vectors[pc_ceil_div(rows, blocks) - 1] * lanes;
    const double pixels = (double)s.y.count * (double)s.x.count;
    const int64_t taps = taps_of(s.y.taps, s.x.taps);
    pc_cut c = {
        .samples = 1, .band_h = s.y.count, .band_w = s.x.count, .blocks = blocks, .shares = 1, .spread = spread};

    /* A tiny map under a large window reads mostly padding (a generator's first layer: 1x1 to 4x4, one tap of 16 per
     * pixel): then every pixel is a band of its own, and the samples fill the vectors. Other maps of a few pixels
     * let samples share their tiles, which fills the vectors and uses each packed weight more often. */
    const double inside_y = inside(&s.y), share = inside_y * inside(&s.x);
    c.exact = skip && pixels < (double)(4 * tile) && share < 0.4;
    if (c.exact) {
        c.samples = pc_min(g->n, tile);
    } else if (pixels <= SMALL && s.x.taps <= TINY) {
        c.samples = pc_min(g->n, pc_ceil_div(pc_ceil_div(ENOUGH, (int64_t)pixels), lanes) * lanes);
    }
    /* Strong dilation: whole bands read nothing but padding with some tap. They are worth bands of their own. */
    const bool rows_only = skip && c.samples == 1 && inside_y < 0.9 && pixels >= (double)(8 * s.y.taps * tile);
    c.least_y = c.exact ? 1 : rows_only ? LEAST : 0;
    c.least_x = c.exact;
    c.flat = s.x.split = c.exact || c.samples > 1 || runs_on(&s, rows, lanes, tile, pc_ceil_div(rows, blocks));
    if (skip && c.samples == 1 && !c.exact && !spread && sweeps == 1 && share < 0.95 && s.x.count >= 2 * LEAST &&
        pc_max(s.y.taps, s.x.taps) <= TINY && depth >= PANEL_COST) {
        leave_columns_out(&s, &c, (double)taps * share, depth, lanes, tall, dtype);
    }
    const bool columns_too = c.least_x > 1;

    /* Channels: as many as stay in L1. */
    int64_t usual = sweeps > 1 ? taps_of(g->kh, g->kw) / sweeps : taps;
    usual = pc_max(1, c.exact ? (int64_t)ceil((double)taps * share) : usual);
    const int64_t budget = SLAB_BYTES / size;
    const double channel_bytes = tile_bytes(&s, c.samples, tile, size) + (double)(taps * tall * size);
    c.channels = pc_min(depth, (int64_t)(STEP_BYTES / channel_bytes * (double)taps / (double)usual));
    if (columns_too) { /* and in the slab: whole bands are worth more than whole blocks */
        const int64_t most = c.channels;
        c.channels = 1;
        c.channels = pc_min(most, budget / slab_elements(&s, &c, dtype));
    }
    c.channels = pc_max(1, c.channels);
    c.channels = pc_ceil_div(depth, pc_ceil_div(depth, c.channels)); /* blocks of one size */

    /* Bands of rows that still hold a few tiles; then narrow ones, for images of endless width. */
    const int64_t narrow = 4 * tile;
    const int64_t least_h = pc_min(s.y.count, pc_max(4, pc_ceil_div(2 * tile, s.x.count)));
    while (slab_elements(&s, &c, dtype) > budget) {
        if (c.band_h > least_h) {
            c.band_h = pc_max(least_h, pc_ceil_div(c.band_h, 2));
        } else if (c.samples > lanes && !c.exact) {
            c.samples = pc_max(lanes, c.samples / 2);
        } else if (c.channels * usual > 64 && c.channels > 1) {
            c.channels = pc_ceil_div(c.channels, 2);
        } else if (c.flat && c.samples == 1 && !c.exact) {
            c.flat = s.x.split = false; /* the band may become narrower then */
        } else if (!c.flat && c.band_w > narrow) {
            c.band_w = pc_max(narrow, pc_ceil_div(c.band_w, 2));
        } else if (c.band_h > 1) {
            c.band_h = pc_ceil_div(c.band_h, 2);
        } else if (c.channels > 1) {
            c.channels = pc_ceil_div(c.channels, 2);
        } else {
            break;
        }
    }
    c.channels = pc_ceil_div(depth, pc_ceil_div(depth, c.channels));
    c.band_h = pc_ceil_div(s.y.count, pc_ceil_div(s.y.count, c.band_h));

    /* Parts that share packed weights, until those cost next to nothing, and whose panels hold all rows; but enough
     * items for the threads: first more bands, then shares of p, which pack the same slab once each. */
    const int64_t h = c.exact ? 1 : c.band_h, w = c.exact ? 1 : c.band_w;
    const int64_t bands = pc_ceil_div(s.y.count, h) * pc_ceil_div(s.x.count, w);
    const int64_t parts = pc_ceil_div(g->n, c.samples) * bands * sweeps;
    const bool apart = c.samples > 1 || s.x_step > 1 || c.exact || spread;
    const int64_t most = apart ? pc_min(ALIKE, PANEL_BYTES / size / tall / blocks) : ALIKE;
    c.run = pc_max(1, pc_min(pc_min(parts / threads, MOST_PARTS), most / (h * w * c.samples)));
    c.run = pc_ceil_div(parts, pc_ceil_div(pc_ceil_div(parts, c.run), threads) * threads);
    const int64_t items = pc_ceil_div(parts, c.run) * g->g;
    if (!c.exact && (c.least_y > 0 || columns_too)) {
        c.shares = pc_min(threads, blocks); /* bands differ too much */
    } else if (items % threads != 0 && items < 8 * threads) {
        const int64_t wanted = pc_ceil_div(bands, threads) * threads;
        if (c.band_w == s.x.count && s.y.count >= wanted * least_h) {
            c.band_h = pc_ceil_div(s.y.count, wanted);
        } else if (items < 2 * threads) {
            c.shares = pc_min(threads, blocks);
        }
    }

    /* Two phases of columns alternate in the output, so a pair of them is written in whole vectors: the gradient of 16
     * channels of 32 x 32 takes 0.7 of the time. But an item then has the weights of all sweeps to pack, for fewer
     * samples: where they are many (256 channels of 28 x 28), 1.06 of it. */
    const bool alternate = sweeps > 1 && s.x_step == 2 && pc_remainders(g->sw, g->dw, g->kw) == 2 && g->iw % 2 == 0;
    c.paired = alternate && !spread && c.least_y == 0 && c.least_x == 0 && c.samples == 1 && c.run > 1 &&
               c.band_h == s.y.count && c.band_w == s.x.count &&
               (g->n == 1 || pixels * (double)c.run >= (double)taps_of(g->kh, g->kw) * (double)depth);
    /* An item has as many sets of taps as have each tap of the window once between them. */
    c.window = taps_of(g->kh, g->kw);
    c.item_taps = pc_min(sweeps > 1 || c.exact ? c.window : taps, taps * c.run);
    c.outputs = c.band_h * c.band_w * c.samples * (c.exact ? 1 : c.run);
    int64_t panel_bytes = PANEL_BYTES;
    if (columns_too) { /* all bands in one item, so that each weight is read once; a second round would pack again */
        const pc_bands y = bands_of(&s.y, c.least_y), x = bands_of(&s.x, c.least_x);
        c.run = pc_min(MOST_PARTS, taps_of(y.bands * x.bands, g->n));
        c.item_taps = y.taps * x.taps;
        c.outputs = pc_max(y.outputs * x.outputs, pc_min(ALIKE, taps_of(s.y.count * s.x.count, g->n)));
        panel_bytes *= 2;
    }
    c.taps_y = s.y.taps;
    c.taps_x = s.x.taps;
    c.list = pc_max(LIST, taps);
    c.tile = tile;
    c.columns = pc_max(TILES, (int64_t)(STEP_BYTES / channel_bytes / (double)c.channels)) * tile;
    c.chunk = pc_max(1, pc_min(blocks, WEIGHT_BYTES / size / (c.channels * c.item_taps) / tall));
    /* packing writes whole vectors, so there is room for one behind each part's weights */
    c.weight_elements = c.chunk * (c.channels * c.item_taps * tall + c.run * lanes);
    /* The last tile of the last row may read past the slab's end. */
    c.slab_elements = slab_elements(&s, &c, dtype) + c.columns + tile + lanes;
    c.slots = pc_max(1, pc_min(c.run, budget / c.slab_elements));
    c.panel = blocks;
    if (c.flat || s.x_step > 1 || spread) {
        /* An eighth more rather than another round for a block or two. */
        const int64_t most_blocks = pc_max(1, panel_bytes * 9 / 8 / size / tall / c.outputs);
        c.panel = pc_ceil_div(blocks, pc_ceil_div(blocks, most_blocks));
        c.panel_elements = c.panel * tall * c.outputs + 2 * lanes; /* join_rows reads whole vectors */
    }
    return c;
}
