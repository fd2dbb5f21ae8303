/* conv.c: forward and input gradient of the convolution, and so both of the transposed one.
 *
 * Both passes are *sweeps*. A sweep is a dense correlation of a source plane with the taps of a weight,
 *
 *     out[p][j][i] = init[p] + sum over (c, r, s) of W(p, c, r, s) * source[c][y(j, r)][x(i, s)]
 *
 * where y and x are the two axes of slab.h. The forward pass is one sweep over the input. In the input gradient,
 * pixel y of grad_in meets kernel row k only if y + pt - k*dh is a multiple of sh; the pixels with one remainder form
 * a sublattice with kernel rows of their own, and on it the source grad_out is read with stride 1:
 *
 *     y = y0 + j*sh,   k = k0 + m*period:    grad_out row = j + (y0 + pt - k0*dh)/sh - m*(period*dh/sh)
 *
 * So there are at most min(sh, kh) * min(sw, kw) sweeps, none with a wasted tap; pixels that no tap reaches are the
 * bias alone. Weights stay where they are: the tile broadcasts them, `p_step` apart.
 *
 *     for each sweep, band of outputs, block of samples, group, share of rows p:        an item, one thread
 *         for each block of channels:  pack the slab, about 256 KB, a part of L2
 *             for each 8 rows of p:    their weights stay in L1
 *                 for each run of pixels: the tile
 *
 * The chain of one output is (bias, then channel, kernel row, kernel column), one fma each, whatever the bands,
 * blocks, tiles and threads: between blocks of channels the accumulators are stored and loaded again, never added.
 *
 * Padding: forward multiplies its zeros, unless all weights are finite: then a product with zero adds nothing and
 * taps that read only padding are left out. In the input gradient there are no taps outside grad_out. Finite weights
 * may meet zeros there instead; weights that are not finite get bands within which every tap is wholly inside or
 * wholly outside (`exact`), and the outside ones are left out. */
#include "base/checked.h"
#include "base/pool.h"
#include "isa/dispatch.h"
#include "ops/call.h"
#include "ops/conv_rows.h"
#include "ops/sweep.h"

enum {
    GRAIN = 1 << 20,        /* multiply-adds below which a second thread costs more than it brings */
    PADDED_BYTES = 1 << 20, /* of a padded gradient, unless a single channel is larger */
    WIDE_PADDING = 4        /* from here on a forward pass asks whether taps in padding may be left out */
};

/* What both passes share, and what their names for it are. */
typedef struct {
    const pc_conv_geom *geom;
    const pc_tensor *source;
    const char *weight, *init;
    char *out;
    pc_call *call;
    const pc_kernels *kernels;
    bool forward;
    bool skip, exact;
    int64_t rows, depth; /* outputs and source channels of a group */
    int64_t out_h, out_w;
    int64_t p_step, c_step; /* in the weight */
} pc_pass;

/* One thread's memory. Called once to count and once to use. */
typedef struct {
    void *slab, *tile;
    int64_t *vec_row, *vec_col, *scal_row, *scal_col;
} pc_workspace;

static pc_workspace lay_out(pc_slice *slice, const pc_cut *c, const pc_kernels *kernels, pc_dtype dtype)
{
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    return (pc_workspace){
        .slab = pc_lay(slice, c->slab_elements, size),
        .tile = pc_lay(slice, kernels->tile_rows * kernels->tile_columns, size),
        .vec_row = pc_lay(slice, c->list, sizeof(int64_t)),
        .vec_col = pc_lay(slice, c->list, sizeof(int64_t)),
        .scal_row = pc_lay(slice, c->list, sizeof(int64_t)),
        .scal_col = pc_lay(slice, c->list, sizeof(int64_t)),
    };
}

/* ---- one item ------------------------------------------------------------------------------------------------ */

/* Where a run's columns lie in the output (tile_copy.inc.h). */
typedef struct {
    int64_t samples, extent, width;
    int64_t sample_step, row_step, y_step, x_step, tile_step;
} pc_tile_place;

#define T float
#define PC_LOCAL(name) name##_f32
#include "ops/tile_copy.inc.h"
#undef T
#undef PC_LOCAL
#define T double
#define PC_LOCAL(name) name##_f64
#include "ops/tile_copy.inc.h"
#undef T
#undef PC_LOCAL

typedef struct {
    const pc_pass *pass;
    const pc_sweep *sweep;
    const pc_cut *cut;
    pc_workspace work;
    pc_slab slab;
} pc_item;

/* The runs of one block of p rows: `first` element of the band's output, tiles of the tables' width. */
static void run_tiles(const pc_item *b, pc_tile_args *tile, char *out, pc_tile_place *place)
{
    const pc_pass *pass = b->pass;
    const pc_dtype dtype = pass->call->dtype;
    const int64_t size = (int64_t)pc_dtype_size(dtype), lanes = pass->kernels->lanes;
    const pc_slab *slab = &b->slab;
    const int64_t rows = slab->y.count, width = slab->x.count, samples = slab->samples;
    const bool flat = rows > 1 && pc_ceil_div(((rows - 1) * slab->x.extent + width) * samples, lanes) <
                                      rows * pc_ceil_div(width * samples, lanes);
    /* Columns may go straight to memory when they are neighbours there. */
    const bool neighbours = samples == 1 && place->x_step == 1;
    const bool direct = neighbours && (!flat || (slab->x.extent == width && place->y_step == width));
    const char *slab_data = tile->vec;

    place->extent = flat ? slab->x.extent : width;
    for (int64_t j = 0; j < (flat ? 1 : rows); j++) {
        char *line = out + j * place->y_step * size;
        const char *source = slab_data + j * slab->row_step * size;
        const int64_t length = flat ? ((rows - 1) * slab->x.extent + width) * samples : width * samples;
        /* tiles of one width, in whole vectors */
        const int64_t tiles = pc_ceil_div(length, pass->kernels->tile_columns);
        const int64_t step = pc_ceil_div(pc_ceil_div(length, tiles), lanes) * lanes;
        for (int64_t q = 0; q < length; q += step) {
            tile->columns = pc_min(step, length - q);
            tile->vec = source + q * size;
            if (direct) {
                tile->out = line + q * size;
                tile->out_step = place->row_step;
                pass->kernels->conv_tile(tile);
                continue;
            }
            tile->out = b->work.tile;
            tile->out_step = place->tile_step;
            if (tile->accumulate) {
                if (dtype == PC_F32) {
                    tile_copy_f32(place, b->work.tile, (float *)line, tile->rows, q, tile->columns, true);
                } else {
                    tile_copy_f64(place, b->work.tile, (double *)line, tile->rows, q, tile->columns, true);
                }
            }
            pass->kernels->conv_tile(tile);
            if (dtype == PC_F32) {
                tile_copy_f32(place, b->work.tile, (float *)line, tile->rows, q, tile->columns, false);
            } else {
                tile_copy_f64(place, b->work.tile, (double *)line, tile->rows, q, tile->columns, false);
            }
        }
    }
    tile->vec = slab_data;
}

/* Rows p_first .. p_end of one group, one band, one block of samples. */
static void run_item(const pc_item *b, int64_t sample, int64_t group, int64_t p_first, int64_t p_end)
{
    const pc_pass *pass = b->pass;
    const pc_sweep *s = b->sweep;
    const pc_slab *slab = &b->slab;
    const int64_t size = (int64_t)pc_dtype_size(pass->call->dtype);
    const int64_t plane = pass->out_h * pass->out_w;
    const int64_t channels_out = pass->rows * pass->geom->g;
    char *out = pass->out + ((sample * channels_out + group * pass->rows) * plane +
                             (s->y0 + slab->y.first * s->y_step) * pass->out_w + s->x0 + slab->x.first * s->x_step) *
                                size;
    pc_tile_place place = {.samples = slab->samples,
                           .width = slab->x.count,
                           .sample_step = channels_out * plane,
                           .row_step = plane,
                           .y_step = s->y_step * pass->out_w,
                           .x_step = s->x_step,
                           .tile_step = pass->kernels->tile_columns};
    /* Weight (oc, ic/g, kh, kw): a group's outputs are its slice of oc forward, its sources are backward. */
    const int64_t group_step = pass->forward ? pass->rows * pass->p_step : pass->depth * pass->c_step;
    const char *weight = pass->weight + group * group_step * size;

    for (int64_t c = 0; c < pass->depth; c += b->cut->channels) {
        const int64_t channels = pc_min(b->cut->channels, pass->depth - c);
        pc_slab_pack(slab, &s->y, &s->x, pass->call->dtype, b->work.slab, pass->source, sample, group * pass->depth + c,
                     channels, 0.0);
        pc_tile_args tile = {
            .vec = b->work.slab,
            .init_step = 1,
            .accumulate = c > 0,
            .outer = channels,
            .vec_outer = slab->channel_step,
            .scal_outer = pass->c_step,
            .row_count = slab->y.taps,
            .col_count = slab->x.taps,
            .vec_row = b->work.vec_row,
            .vec_col = b->work.vec_col,
            .scal_row = b->work.scal_row,
            .scal_col = b->work.scal_col,
            .scal_step = pass->p_step,
        };
        const int64_t taps = slab->y.taps * slab->x.taps;
        if (taps > 0 && taps <= FLAT_CHAIN) {
            tile.outer = 1;
            tile.row_count = 1;
            tile.col_count = channels * taps;
        }
        for (int64_t p = p_first; p < p_end; p += pass->kernels->tile_rows) {
            if (pc_poll(pass->call)) {
                return;
            }
            tile.rows = pc_min(pass->kernels->tile_rows, p_end - p);
            tile.scal = weight + (p * pass->p_step + c * pass->c_step) * size;
            tile.init = pass->init ? pass->init + (group * pass->rows + p) * size : NULL;
            run_tiles(b, &tile, out + p * plane * size, &place);
        }
    }
}

/* The lists of one band. With few taps, channels and taps become one list and the rows' list is a single zero. */
static void fill_lists(pc_item *b)
{
    const pc_slab *slab = &b->slab;
    const pc_axis *y = &b->sweep->y, *x = &b->sweep->x;
    pc_workspace *work = &b->work;
    pc_slab_rows(slab, y, work->vec_row);
    pc_slab_columns(slab, x, work->vec_col);
    for (int64_t r = 0; r < slab->y.taps; r++) {
        work->scal_row[r] = (y->weight_first + (slab->y.tap + r) * y->weight_step) * b->pass->geom->kw;
    }
    for (int64_t t = 0; t < slab->x.taps; t++) {
        work->scal_col[t] = x->weight_first + (slab->x.tap + t) * x->weight_step;
    }
    const int64_t taps = slab->y.taps * slab->x.taps;
    if (taps == 0 || taps > FLAT_CHAIN) {
        return;
    }
    int64_t vec[FLAT_CHAIN], scal[FLAT_CHAIN], n = 0;
    for (int64_t r = 0; r < slab->y.taps; r++) {
        for (int64_t t = 0; t < slab->x.taps; t++, n++) {
            vec[n] = work->vec_row[r] + work->vec_col[t];
            scal[n] = work->scal_row[r] + work->scal_col[t];
        }
    }
    for (int64_t c = 0; c < b->cut->channels; c++) {
        for (int64_t k = 0; k < taps; k++) {
            work->vec_col[c * taps + k] = c * slab->channel_step + vec[k];
            work->scal_col[c * taps + k] = c * b->pass->c_step + scal[k];
        }
    }
    work->vec_row[0] = work->scal_row[0] = 0;
}

/* ---- a thread's share ---------------------------------------------------------------------------------------- */

/* Items are counted through all sweeps; thread `index` takes every count-th. */
static void run_sweep(const pc_pass *pass, const pc_sweep *s, int index, int count, int64_t *item)
{
    if (pass->geom->n == 0 || s->y.count == 0 || s->x.count == 0) {
        return;
    }
    const pc_dtype dtype = pass->call->dtype;
    const pc_conv_geom *g = pass->geom;
    const pc_cut c = pc_cut_of(g, s, pass->skip, pass->depth, pass->rows, pass->kernels, dtype, count);
    pc_slice slice = pc_slice_of(pass->call, index);
    pc_item b = {.pass = pass, .sweep = s, .cut = &c, .work = lay_out(&slice, &c, pass->kernels, dtype)};
    const int64_t share =
        pc_ceil_div(pc_ceil_div(pass->rows, c.shares), pass->kernels->tile_rows) * pass->kernels->tile_rows;

    const bool exact = c.exact || pass->exact;
    for (int64_t y = 0, y_end; y < s->y.count; y = y_end) {
        y_end = pc_band_end(&s->y, y, c.band_h, exact);
        for (int64_t x = 0, x_end; x < s->x.count; x = x_end) {
            x_end = pc_band_end(&s->x, x, c.band_w, exact);
            bool listed = false;
            for (int64_t n = 0; n < g->n; n += c.samples) {
                for (int64_t group = 0; group < g->g; group++) {
                    for (int64_t p = 0; p < pass->rows; p += share) {
                        if ((*item)++ % count != index) {
                            continue;
                        }
                        if (!listed || b.slab.samples != pc_min(c.samples, g->n - n)) {
                            b.slab = pc_slab_of(pc_span_of(&s->y, y, y_end - y, pass->skip),
                                                pc_span_of(&s->x, x, x_end - x, pass->skip),
                                                pc_min(c.samples, g->n - n), dtype);
                            fill_lists(&b);
                            listed = true;
                        }
                        run_item(&b, n, group, p, pc_min(p + share, pass->rows));
                        if (pc_stopped(pass->call)) {
                            return;
                        }
                    }
                }
            }
        }
    }
}

static bool reached(int64_t pixel, int64_t stride, int64_t pad, int64_t taps, int64_t dilation)
{
    int64_t count = pc_remainders(stride, dilation, taps);
    for (int64_t k = 0; k < count; k++) {
        if ((pixel + pad - k * dilation) % stride == 0) {
            return true;
        }
    }
    return false;
}

/* Input gradient: the pixels between the sublattices, where the stride jumps over whole pixels. */
static void fill_unreached(const pc_pass *pass, int index, int count)
{
    const pc_conv_geom *g = pass->geom;
    if (pass->forward || (pc_remainders(g->sh, g->dh, g->kh) == g->sh && pc_remainders(g->sw, g->dw, g->kw) == g->sw)) {
        return;
    }
    for (int64_t plane = index; plane < g->n * g->ic; plane += count) {
        for (int64_t y = 0; y < g->ih; y++) {
            const bool row = reached(y, g->sh, g->pt, g->kh, g->dh);
            for (int64_t x = 0; x < g->iw; x++) {
                if (row && reached(x, g->sw, g->pl, g->kw, g->dw)) {
                    continue;
                }
                const int64_t at = (plane * g->ih + y) * g->iw + x;
                if (pass->call->dtype == PC_F32) {
                    ((float *)pass->out)[at] = pass->init ? ((const float *)pass->init)[plane % g->ic] : 0;
                } else {
                    ((double *)pass->out)[at] = pass->init ? ((const double *)pass->init)[plane % g->ic] : 0;
                }
            }
        }
        if (pc_poll(pass->call)) {
            return;
        }
    }
}

static void run_thread(void *context, int index, int count)
{
    const pc_pass *pass = context;
    int64_t item = 0;
    for (int64_t i = 0; i < pc_sweep_count(pass->geom, pass->forward) && !pc_stopped(pass->call); i++) {
        const pc_sweep s = pc_sweep_at(pass->geom, pass->forward, i);
        run_sweep(pass, &s, index, count, &item);
    }
    fill_unreached(pass, index, count);
}

/* ---- the doors ------------------------------------------------------------------------------------------------ */

/* Adding x - x of every weight leaves 0 exactly when all are finite; sixteen sums keep the loop off its latency. */
static bool all_finite(const void *weight, int64_t count, pc_dtype dtype)
{
    double sums[16] = {0};
    if (dtype == PC_F32) {
        const float *w = weight;
        float partial[16] = {0};
        for (int64_t i = 0; i + 16 <= count; i += 16) {
            for (int k = 0; k < 16; k++) {
                partial[k] += w[i + k] - w[i + k];
            }
        }
        for (int64_t i = count - count % 16; i < count; i++) {
            partial[0] += w[i] - w[i];
        }
        for (int k = 0; k < 16; k++) {
            sums[k] = (double)partial[k];
        }
    } else {
        const double *w = weight;
        for (int64_t i = 0; i + 16 <= count; i += 16) {
            for (int k = 0; k < 16; k++) {
                sums[k] += w[i + k] - w[i + k];
            }
        }
        for (int64_t i = count - count % 16; i < count; i++) {
            sums[0] += w[i] - w[i];
        }
    }
    for (int k = 0; k < 16; k++) {
        if (sums[k] != 0.0) { /* NaN */
            return false;
        }
    }
    return true;
}

/* Bytes of one thread's workspace, for sweeps with `rows` outputs and `depth` sources. Negative: too large. */
static int64_t workspace_bytes(const pc_conv_geom *geom, bool forward, int64_t rows, int64_t depth, pc_dtype dtype,
                               int threads)
{
    const pc_kernels *kernels = pc_kernels_for(dtype);
    int64_t bytes = 0;
    for (int64_t i = 0; geom->n > 0 && i < pc_sweep_count(geom, forward); i++) {
        const pc_sweep s = pc_sweep_at(geom, forward, i);
        if (s.y.count == 0 || s.x.count == 0) {
            continue;
        }
        for (int skip = forward ? 0 : 1; skip < 2; skip++) { /* forward: the weights, not seen yet, decide */
            const pc_cut c = pc_cut_of(geom, &s, skip, depth, rows, kernels, dtype, threads);
            pc_slice slice = {NULL, 0};
            lay_out(&slice, &c, kernels, dtype);
            bytes = slice.used < 0 || bytes < 0 ? -1 : pc_max(bytes, slice.used);
        }
    }
    return bytes;
}

/* The input gradient under a padding that repeats the input is taken in two steps: that of the padded input, without
 * padding, and then every padded cell is added to the one it was read from. A block of channels of one sample at a
 * time, so the padded gradient stays small: its geometry, with as many input channels as a block has. */
static pc_conv_geom padded_block(const pc_conv_geom *geom, pc_dtype dtype)
{
    pc_conv_geom block = *geom;
    block.n = 1;
    block.g = 1;
    block.oc = geom->oc / geom->g;
    block.ih = geom->ih + geom->pt + geom->pb;
    block.iw = geom->iw + geom->pl + geom->pr;
    block.pt = block.pb = block.pl = block.pr = 0;
    block.pad_mode = PC_PAD_ZEROS;
    int64_t plane;
    if (pc_mul(&plane, block.ih, block.iw) || pc_mul(&plane, plane, (int64_t)pc_dtype_size(dtype))) {
        plane = INT64_MAX; /* one channel is too much already, which pc_conv_begin finds out */
    }
    block.ic = pc_max(1, pc_min(geom->ic / geom->g, PADDED_BYTES / plane));
    return block;
}

pc_status pc_conv_begin(const pc_conv_geom *geom, pc_conv_pass pass, pc_dtype dtype, int threads, pc_call *call,
                        pc_error *error)
{
    if (pass == PC_CONV_BACKWARD_WEIGHT) {
        return pc_conv_begin_weight(geom, dtype, threads, call, error);
    }
    const double outputs = (double)geom->n * (double)geom->oc * (double)geom->oh * (double)geom->ow;
    const double work = outputs * (double)(geom->ic / geom->g) * (double)geom->kh * (double)geom->kw;
    const bool by_rows = pc_rows_serve(geom, pass, dtype);
    threads = pc_settle(threads, work, by_rows ? PC_ROWS_GRAIN : GRAIN);
    const bool forward = pass == PC_CONV_FORWARD;
    int64_t rows = (forward ? geom->oc : geom->ic) / geom->g, depth = (forward ? geom->ic : geom->oc) / geom->g;
    int64_t shared = 0;
    pc_conv_geom swept = *geom;
    if (!forward && geom->pad_mode != PC_PAD_ZEROS) {
        swept = padded_block(geom, dtype);
        rows = swept.ic;
        if (pc_mul(&shared, swept.ih, swept.iw) || pc_mul(&shared, shared, rows * (int64_t)pc_dtype_size(dtype))) {
            shared = -1;
        }
    }
    int64_t bytes = by_rows && forward ? 0 : workspace_bytes(&swept, forward, rows, depth, dtype, threads);
    if (by_rows && bytes >= 0) {
        bytes = pc_max(bytes, pc_rows_bytes(geom, pass, dtype));
    }
    return pc_begin(call, dtype, threads, work, bytes, shared, error);
}

void pc_conv_forward(const pc_conv_geom *geom, void *out, const pc_tensor *in, const void *weight, const void *bias,
                     pc_call *call)
{
    if (pc_rows_serve(geom, PC_CONV_FORWARD, call->dtype)) {
        pc_rows_run(geom, PC_CONV_FORWARD, out, in, weight, bias, call);
        return;
    }
    pc_pass pass = {.geom = geom,
                    .source = in,
                    .weight = weight,
                    .init = bias,
                    .out = out,
                    .call = call,
                    .kernels = pc_kernels_for(call->dtype),
                    .forward = true,
                    .rows = geom->oc / geom->g,
                    .depth = geom->ic / geom->g,
                    .out_h = geom->oh,
                    .out_w = geom->ow,
                    .c_step = geom->kh * geom->kw};
    pass.p_step = pass.depth * pass.c_step;
    const int64_t padding = pc_max(pc_max(geom->pt, geom->pb), pc_max(geom->pl, geom->pr));
    pass.skip = geom->pad_mode == PC_PAD_ZEROS && padding >= WIDE_PADDING &&
                all_finite(weight, geom->oc * pass.p_step, call->dtype);
    pc_pool_run(call->threads, run_thread, &pass);
}

/* The weight's channels lie c_step apart: geom->ic of them may be a block of more. */
static void backward_input(const pc_conv_geom *geom, void *grad_in, const pc_tensor *grad_out, const void *weight,
                           int64_t c_step, const void *bias, pc_call *call)
{
    pc_pass pass = {.geom = geom,
                    .source = grad_out,
                    .weight = weight,
                    .init = bias,
                    .out = grad_in,
                    .call = call,
                    .kernels = pc_kernels_for(call->dtype),
                    .skip = true,
                    .rows = geom->ic / geom->g,
                    .depth = geom->oc / geom->g,
                    .out_h = geom->ih,
                    .out_w = geom->iw,
                    .p_step = geom->kh * geom->kw,
                    .c_step = c_step};
    bool leaves = false;
    for (int64_t i = 0; i < pc_sweep_count(geom, false); i++) {
        const pc_sweep s = pc_sweep_at(geom, false, i);
        leaves = leaves || pc_sweep_leaves(&s);
    }
    for (int64_t o = 0; leaves && !pass.exact && o < geom->oc; o++) {
        pass.exact = !all_finite((const char *)weight + o * c_step * (int64_t)pc_dtype_size(call->dtype),
                                 pass.rows * pass.p_step, call->dtype);
    }
    pc_pool_run(call->threads, run_thread, &pass);
}

typedef struct {
    const pc_conv_geom *geom, *block;
    const char *padded;
    char *grad_in; /* of the block's first channel */
    pc_dtype dtype;
    int64_t channels;
} pc_fold;

#define T float
#define PC_LOCAL(name) name##_f32
#include "ops/fold.inc.h"
#undef T
#undef PC_LOCAL
#define T double
#define PC_LOCAL(name) name##_f64
#include "ops/fold.inc.h"
#undef T
#undef PC_LOCAL

static void run_fold(void *context, int index, int count)
{
    const pc_fold *f = context;
    for (int64_t c = index; c < f->channels; c += count) {
        if (f->dtype == PC_F32) {
            fold_f32(f, c);
        } else {
            fold_f64(f, c);
        }
    }
}

static void backward_padded(const pc_conv_geom *geom, char *grad_in, const pc_tensor *grad_out, const char *weight,
                            pc_call *call)
{
    const int64_t size = (int64_t)pc_dtype_size(call->dtype);
    const int64_t ic = geom->ic / geom->g, oc = geom->oc / geom->g, window = geom->kh * geom->kw;
    pc_conv_geom block = padded_block(geom, call->dtype);
    const int64_t most = block.ic;
    for (int64_t plane = 0; plane < geom->n * geom->ic; plane += block.ic) {
        const int64_t n = plane / geom->ic, group = plane % geom->ic / ic, first = plane % ic;
        block.ic = pc_min(most, ic - first);
        pc_tensor source = *grad_out;
        source.data = (const char *)source.data + (n * source.step[0] + group * oc * source.step[1]) * size;
        backward_input(&block, call->shared, &source, weight + (group * oc * ic + first) * window * size, ic * window,
                       NULL, call);
        if (pc_poll(call)) {
            return;
        }
        pc_fold fold = {.geom = geom,
                        .block = &block,
                        .padded = call->shared,
                        .grad_in = grad_in + plane * geom->ih * geom->iw * size,
                        .dtype = call->dtype,
                        .channels = block.ic};
        pc_pool_run(call->threads, run_fold, &fold);
    }
}

void pc_conv_backward_input(const pc_conv_geom *geom, void *grad_in, const pc_tensor *grad_out, const void *weight,
                            const void *bias, pc_call *call)
{
    if (pc_rows_serve(geom, PC_CONV_BACKWARD_INPUT, call->dtype) &&
        all_finite(weight, geom->oc * (geom->ic / geom->g) * geom->kh * geom->kw, call->dtype)) {
        pc_rows_run(geom, PC_CONV_BACKWARD_INPUT, grad_in, grad_out, weight, bias, call);
        return;
    }
    if (geom->pad_mode == PC_PAD_ZEROS) {
        backward_input(geom, grad_in, grad_out, weight, geom->ic / geom->g * geom->kh * geom->kw, bias, call);
    } else { /* only Conv2d has the other modes, and its gradient has no bias */
        backward_padded(geom, grad_in, grad_out, weight, call);
    }
}
