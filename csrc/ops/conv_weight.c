/* conv_weight.c: the weight gradient (outer form), and channel sums for bias gradients.
 *
 *     grad_weight[o][c][r][s] = sum over n, y, x of grad_out[n][o][y][x] * in[n][c][y*sh - pt + r*dh][x*sw - pl + s*dw]
 *
 * The lanes of a tile are output channels, its rows are weights (c, r, s), and the depth runs over pixels:
 *
 *     total[c, r, s][o] += in_slab[offset of (c, r, s) + pixel] * grad[pixel][o]
 *
 * where `grad` is a panel of grad_out, a tile wide, transposed to [pixel][channel], and the slab holds the input
 * (slab.h), so that stride, dilation and padding are offsets. Padding zeros are multiplied.
 *
 * The sum is cut into chunks, by the shape alone: a row of more than 1024 pixels into even parts; else whole rows, as
 * many as make 1024 pixels but at least 4 (fewer would pack each row of a wide map several times); else, where a sample
 * is one chunk, whole samples up to 1024 pixels. Each chunk is one chain of fmas from zero, and the chunks are added in
 * order. So the bits depend on neither threads, nor tiles, nor ISA, and the error grows with the chunk's length plus
 * their number, not with all pixels. The totals of a chunk go through memory between pieces of the panel that fit into
 * L1, which is the same chain.
 *
 *     for each group, share of output channels, block of input channels, range of kernel rows:     an item, one thread
 *         for each chunk:  pack the slab                                       (128-256 KB, stays in L2)
 *             for each panel of output channels:  transpose grad_out           (64 KB, L2)
 *                 for each piece of the panel, 6 weights:  the tile            (16 KB, L1)
 *                 transpose the totals into grad_weight: the first chunk stores, the others add
 *
 * What is not the tile costs, per multiply-add: packing 1/(output channels of the item * taps), transposing
 * 1/(input channels of the item * taps), the totals 1/(pixels of a chunk).
 *
 * A 1x1 window without padding and stride needs no slab: the tile reads the input where it is. */
#include <string.h>

#include "base/pool.h"
#include "isa/dispatch.h"
#include "ops/call.h"
#include "ops/slab.h"

enum {
    CHUNK = 1024,   /* pixels */
    CHUNK_ROWS = 4, /* at least, where a row fits */
    SLAB_BYTES = 256 << 10,
    TOTAL_BYTES = 16 << 10,
    PIECE_BYTES = 16 << 10, /* of the panel under the tiles */
    GRAIN = 1 << 20,
    LINE = 64,
};

typedef struct {
    const pc_conv_geom *geom;
    const pc_tensor *grad_out, *in;
    char *grad_weight;
    pc_call *call;
} pc_weight_pass;

/* An item has `out_channels` (panels of `lanes`), `channels` and `kernel_rows`; chunks of samples x rows x columns. Only
 * the chunk decides bits, and it looks at nothing but the geometry. */
typedef struct {
    pc_axis y, x;
    int64_t lanes, out_channels, channels, kernel_rows;
    int64_t chunk_n, chunk_h, chunk_w;
    int64_t slab_step; /* of a sample, in elements */
    int64_t weights;   /* whose totals are in work at the same time */
    int64_t taps;      /* in the longest list */
} pc_weight_cut;

typedef struct {
    int64_t group, oc, out_channels, ic, channels, kh, kernel_rows; /* what an item covers, within its group */
} pc_weight_item;

typedef struct {
    int64_t n, samples, y, rows, x, columns;
    bool first;
} pc_chunk;

/* Where a chunk's pixels and an item's weights are found in the input: element (weight j, line i, pixel t) is
 * data[offset[j] + row[i] + t*pixel_step]. */
typedef struct {
    const char *data;
    const int64_t *offset, *row;
    int64_t weights, lines, length, pixel_step;
} pc_pixels;

typedef struct {
    void *slab, *panel, *total;
    int64_t *tap_row, *tap_column, *offset, *row;
} pc_weight_work;

/* Memory that will be wanted soon: `rows` of `lines` cache lines, `step` bytes apart. Some of it is asked for before
 * each tile. Reading grad_out and adding to grad_weight are short walks along many rows, which no hardware foresees. */
typedef struct {
    const char *data;
    int64_t step, lines, rows;
    int64_t share;     /* lines to ask for at a time */
    int64_t line, row; /* the next one */
} pc_ahead;

static void look_ahead(pc_ahead *ahead)
{
    for (int64_t i = 0; i < ahead->share && ahead->row < ahead->rows; i++) {
        __builtin_prefetch(ahead->data + ahead->row * ahead->step + ahead->line * LINE, 0, 2);
        if (++ahead->line == ahead->lines) {
            ahead->line = 0;
            ahead->row++;
        }
    }
}

/* Divides `all` into parts of at most `most`, as even as whole units allow. */
static int64_t even_part(int64_t all, int64_t most, int64_t unit)
{
    const int64_t units = pc_ceil_div(all, unit);
    const int64_t parts = pc_ceil_div(units, pc_max(1, most / unit));
    return pc_ceil_div(units, parts) * unit;
}

static bool in_place(const pc_conv_geom *g)
{
    return g->kh * g->kw == 1 && g->sw == 1 && g->pt == 0 && g->pb == 0 && g->pl == 0 && g->pr == 0;
}

static int64_t slab_bound(const pc_weight_cut *c, pc_dtype dtype)
{
    pc_axis y = c->y;
    y.taps = c->kernel_rows;
    return pc_slab_most(pc_span_most(&y, c->chunk_h), pc_span_most(&c->x, c->chunk_w), 1, dtype);
}

/* Makes the item smaller until there is one for each thread: by input channels, which repeats the transposing, by
 * output channels, which repeats the packing, or by kernel rows. */
static void share(pc_weight_cut *c, const pc_conv_geom *g, int64_t lanes, int threads)
{
    const int64_t ic = g->ic / g->g, oc = g->oc / g->g;
    const int64_t blocks = pc_ceil_div(ic, c->channels);
    const int64_t items = g->g * blocks * pc_ceil_div(g->kh, c->kernel_rows);
    if (threads == 1 || items % threads == 0 || items >= 4 * threads) {
        return;
    }
    const int64_t wanted = pc_ceil_div(blocks, threads) * threads;
    if (ic >= 16 * wanted) {
        c->channels = pc_ceil_div(ic, wanted);
    } else if (oc >= threads * lanes) {
        c->out_channels = pc_ceil_div(pc_ceil_div(oc, threads), lanes) * lanes;
    } else if (ic >= wanted) {
        c->channels = pc_ceil_div(ic, wanted);
    } else {
        c->kernel_rows = pc_min(c->kernel_rows, pc_ceil_div(g->kh, threads));
    }
}

static pc_weight_cut cut_of(const pc_conv_geom *g, const pc_kernels *kernels, pc_dtype dtype, int threads)
{
    const int64_t ic = g->ic / g->g, oc = g->oc / g->g, size = (int64_t)pc_dtype_size(dtype);
    pc_weight_cut c = {.y = pc_axis_of(g->ih, g->oh, g->sh, g->pt, g->kh, g->dh, g->pad_mode),
                       .x = pc_axis_of(g->iw, g->ow, g->sw, g->pl, g->kw, g->dw, g->pad_mode)};
    c.chunk_w = even_part(g->ow, CHUNK, 1);
    c.chunk_h = c.chunk_w < g->ow ? 1 : even_part(g->oh, pc_max(CHUNK_ROWS, CHUNK / g->ow), 1);
    c.chunk_n = c.chunk_h < g->oh ? 1 : even_part(pc_max(1, g->n), CHUNK / (g->oh * g->ow), 1);

    c.out_channels = oc;
    c.kernel_rows = g->kh;
    int64_t step = in_place(g) ? c.chunk_h * c.chunk_w : slab_bound(&c, dtype);
    while (c.kernel_rows > 1 && step > SLAB_BYTES / size / c.chunk_n) {
        c.kernel_rows = pc_ceil_div(c.kernel_rows, 2);
        step = slab_bound(&c, dtype);
    }
    const int64_t most = step < 0 ? 1 : SLAB_BYTES / size / c.chunk_n / step;
    c.channels = even_part(ic, most, 1);
    share(&c, g, kernels->lanes, threads);
    c.lanes = pc_min(even_part(c.out_channels, kernels->tile_columns, kernels->lanes), kernels->tile_columns);
    c.weights = pc_max(1, TOTAL_BYTES / size / c.lanes / kernels->tile_rows) * kernels->tile_rows;
    c.slab_step = in_place(g) ? 0 : step < 0 ? -1 : step * c.channels;
    c.taps = pc_max(g->kh, g->kw);
    return c;
}

static pc_weight_work lay_out(pc_slice *slice, const pc_weight_cut *c, const pc_conv_geom *g, pc_dtype dtype)
{
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    if (c->slab_step < 0) {
        slice->used = -1;
    }
    return (pc_weight_work){
        .slab = pc_lay(slice, c->slab_step * c->chunk_n, size),
        .panel = pc_lay(slice, c->chunk_n * c->chunk_h * c->chunk_w * c->lanes, size),
        .total = pc_lay(slice, c->weights * c->lanes, size),
        .tap_row = pc_lay(slice, c->taps, sizeof(int64_t)),
        .tap_column = pc_lay(slice, c->taps, sizeof(int64_t)),
        .offset = pc_lay(slice, c->channels * c->kernel_rows * g->kw, sizeof(int64_t)),
        .row = pc_lay(slice, c->chunk_n * c->chunk_h, sizeof(int64_t)),
    };
}

#define T float
#define PC_LOCAL(name) name##_f32
#include "ops/conv_weight.inc.h"
#undef T
#undef PC_LOCAL
#define T double
#define PC_LOCAL(name) name##_f64
#include "ops/conv_weight.inc.h"
#undef T
#undef PC_LOCAL

/* Packs the chunk's slab, or finds the input where it is, and writes the lists. */
static pc_pixels take_pixels(const pc_weight_pass *pass, const pc_weight_cut *cut, const pc_weight_work *work,
                             const pc_weight_item *item, const pc_chunk *chunk)
{
    const pc_conv_geom *g = pass->geom;
    const pc_dtype dtype = pass->call->dtype;
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    const int64_t ic = item->group * (g->ic / g->g) + item->ic;
    pc_pixels found = {.data = work->slab,
                       .offset = work->offset,
                       .row = work->row,
                       .weights = item->channels * item->kernel_rows * g->kw,
                       .lines = chunk->samples * chunk->rows,
                       .length = chunk->columns,
                       .pixel_step = 1};
    int64_t sample_step, channel_step, row_step;
    if (in_place(g)) {
        const int64_t *step = pass->in->step;
        sample_step = step[0];
        channel_step = step[1];
        row_step = g->sh * step[2];
        found.pixel_step = g->sw * step[3];
        found.data = (const char *)pass->in->data +
                     (chunk->n * step[0] + ic * step[1] + chunk->y * row_step + chunk->x * found.pixel_step) * size;
        work->tap_row[0] = work->tap_column[0] = 0;
    } else {
        pc_axis y = cut->y;
        y.base += item->kh * y.delta;
        y.taps = item->kernel_rows;
        const pc_slab slab = pc_slab_of(pc_span_of(&y, chunk->y, chunk->rows, false),
                                        pc_span_of(&cut->x, chunk->x, chunk->columns, false), 1, dtype);
        pc_slab_rows(&slab, &y, work->tap_row);
        pc_slab_columns(&slab, &cut->x, work->tap_column);
        channel_step = slab.channel_step;
        sample_step = channel_step * item->channels;
        row_step = slab.row_step;
        for (int64_t s = 0; s < chunk->samples; s++) {
            pc_slab_pack(&slab, &y, &cut->x, dtype, (char *)work->slab + s * sample_step * size, pass->in, chunk->n + s,
                         ic, item->channels, 0.0);
        }
    }
    for (int64_t c = 0, j = 0; c < item->channels; c++) {
        for (int64_t r = 0; r < item->kernel_rows; r++) {
            for (int64_t t = 0; t < g->kw; t++, j++) {
                work->offset[j] = c * channel_step + work->tap_row[r] + work->tap_column[t];
            }
        }
    }
    for (int64_t s = 0, i = 0; s < chunk->samples; s++) {
        for (int64_t j = 0; j < chunk->rows; j++, i++) {
            work->row[i] = s * sample_step + j * row_step;
        }
    }
    if (chunk->samples == 1 && row_step == chunk->columns * found.pixel_step) { /* rows without a gap are one line */
        found.length *= chunk->rows;
        found.lines = 1;
    }
    return found;
}

/* total[weight][lane] = the chain over all of the chunk's pixels, for `weights` weights from `first` on. */
static void sum_pixels(const pc_kernels *kernels, const pc_weight_work *work, const pc_pixels *pixels, int64_t first,
                       int64_t weights, int64_t vectors, int64_t size, pc_ahead *grad_weight, pc_ahead *panel)
{
    const int64_t width = vectors * kernels->lanes, most = PIECE_BYTES / (width * size);
    const int64_t length = even_part(pixels->length, most, 1);
    const int64_t lines = length < pixels->length ? 1 : even_part(pixels->lines, most / length, 1);
    const int64_t pieces = pc_ceil_div(pixels->lines, lines) * pc_ceil_div(pixels->length, length);
    const int64_t tiles = pc_ceil_div(weights, kernels->tile_rows);
    grad_weight->share = pc_ceil_div(grad_weight->rows * grad_weight->lines, pieces * tiles);
    panel->share = pc_ceil_div(panel->rows * panel->lines, pieces * pc_ceil_div(pixels->weights, kernels->tile_rows));
    const char *vec = work->panel;
    bool accumulate = false;
    for (int64_t line = 0; line < pixels->lines; line += lines) {
        for (int64_t at = 0; at < pixels->length; at += length) {
            pc_weight_args tile = {
                .out = work->total,
                .vectors = vectors,
                .accumulate = accumulate,
                .vec = vec,
                .scal = pixels->data + at * pixels->pixel_step * size,
                .row_count = pc_min(lines, pixels->lines - line),
                .columns = pc_min(length, pixels->length - at),
                .pixel_step = pixels->pixel_step,
                .row = pixels->row + line,
            };
            for (int64_t j = 0; j < weights; j += kernels->tile_rows) {
                tile.offset = pixels->offset + first + j;
                tile.rows = pc_min(kernels->tile_rows, weights - j);
                look_ahead(grad_weight);
                look_ahead(panel);
                kernels->weight_tile(&tile);
                tile.out = (char *)tile.out + tile.rows * width * size;
            }
            vec += tile.row_count * tile.columns * width * size;
            accumulate = true;
        }
    }
}

/* The gradient of an item's weights for `lanes` output channels from `oc` on, over one chunk. `next` is what the next
 * panel will read. */
static void run_panel(const pc_weight_pass *pass, const pc_weight_cut *cut, const pc_weight_work *work,
                      const pc_weight_item *item, const pc_chunk *chunk, const pc_pixels *pixels, int64_t oc,
                      int64_t lanes, pc_ahead next)
{
    const pc_conv_geom *g = pass->geom;
    const pc_dtype dtype = pass->call->dtype;
    const pc_kernels *kernels = pc_kernels_for(dtype);
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    const int64_t vectors = pc_ceil_div(lanes, kernels->lanes), width = vectors * kernels->lanes;
    if (width > lanes) { /* lanes without a channel: their sums go nowhere, but must not be slow */
        memset(work->panel, 0, (size_t)(chunk->samples * chunk->rows * chunk->columns * width * size));
    }
    if (dtype == PC_F32) {
        take_panel_f32(kernels, work->panel, width, lanes, pass->grad_out, oc, chunk);
    } else {
        take_panel_f64(kernels, work->panel, width, lanes, pass->grad_out, oc, chunk);
    }
    /* The weights of one lane lie one behind the other, but for other items' kernel rows between two channels. */
    const int64_t oc_step = g->ic / g->g * g->kh * g->kw, taps = item->kernel_rows * g->kw;
    const int64_t run = item->kernel_rows == g->kh ? pixels->weights : taps;
    char *grad_weight = pass->grad_weight + (oc * oc_step + (item->ic * g->kh + item->kh) * g->kw) * size;
    for (int64_t first = 0; first < pixels->weights; first += run, grad_weight += g->kh * g->kw * size) {
        for (int64_t j = 0; j < run; j += cut->weights) {
            const int64_t weights = pc_min(cut->weights, run - j);
            pc_ahead ahead = {.data = grad_weight + j * size,
                              .step = oc_step * size,
                              .lines = pc_ceil_div(weights * size, LINE),
                              .rows = lanes};
            sum_pixels(kernels, work, pixels, first + j, weights, vectors, size, &ahead, &next);
            kernels->transpose(&(pc_transpose_args){
                .out = grad_weight + j * size,
                .out_step = oc_step,
                .in = work->total,
                .in_step = width,
                .rows = weights,
                .columns = lanes,
                .add = !chunk->first,
            });
        }
    }
}

static pc_chunk chunk_at(const pc_conv_geom *g, const pc_weight_cut *cut, int64_t index)
{
    const int64_t across = pc_ceil_div(g->ow, cut->chunk_w), down = pc_ceil_div(g->oh, cut->chunk_h);
    pc_chunk c = {.first = index == 0,
                  .n = index / across / down * cut->chunk_n,
                  .y = index / across % down * cut->chunk_h,
                  .x = index % across * cut->chunk_w};
    c.samples = pc_min(cut->chunk_n, g->n - c.n);
    c.rows = pc_min(cut->chunk_h, g->oh - c.y);
    c.columns = pc_min(cut->chunk_w, g->ow - c.x);
    return c;
}

/* What take_panel will read. Of one sample only: several lie too scattered, and are small. */
static pc_ahead panel_ahead(const pc_weight_pass *pass, const pc_chunk *chunk, int64_t oc, int64_t lanes)
{
    const int64_t *step = pass->grad_out->step, size = (int64_t)pc_dtype_size(pass->call->dtype);
    if (chunk->samples > 1 || step[3] != 1 || step[2] < 0) {
        return (pc_ahead){0};
    }
    return (pc_ahead){.data = (const char *)pass->grad_out->data +
                              (chunk->n * step[0] + oc * step[1] + chunk->y * step[2] + chunk->x) * size,
                      .step = step[1] * size,
                      .lines = pc_ceil_div(((chunk->rows - 1) * step[2] + chunk->columns) * size, LINE),
                      .rows = lanes};
}

static void run_item(const pc_weight_pass *pass, const pc_weight_cut *cut, const pc_weight_work *work,
                     const pc_weight_item *item)
{
    const pc_conv_geom *g = pass->geom;
    const int64_t chunks =
        pc_ceil_div(g->n, cut->chunk_n) * pc_ceil_div(g->oh, cut->chunk_h) * pc_ceil_div(g->ow, cut->chunk_w);
    const int64_t oc = item->group * (g->oc / g->g) + item->oc;
    for (int64_t i = 0; i < chunks; i++) {
        const pc_chunk chunk = chunk_at(g, cut, i), following = chunk_at(g, cut, (i + 1) % chunks);
        const pc_pixels pixels = take_pixels(pass, cut, work, item, &chunk);
        for (int64_t o = 0, next = 0, lanes = pc_min(cut->lanes, item->out_channels); lanes > 0; o = next) {
            next = o + lanes;
            const int64_t more = pc_min(cut->lanes, item->out_channels - next);
            const pc_ahead ahead = more > 0 ? panel_ahead(pass, &chunk, oc + next, more)
                                            : panel_ahead(pass, &following, oc, pc_min(cut->lanes, item->out_channels));
            run_panel(pass, cut, work, item, &chunk, &pixels, oc + o, lanes, ahead);
            if (pc_poll(pass->call)) {
                return;
            }
            lanes = more;
        }
    }
}

static void run_thread(void *context, int index, int count)
{
    const pc_weight_pass *pass = context;
    const pc_conv_geom *g = pass->geom;
    const pc_dtype dtype = pass->call->dtype;
    const pc_weight_cut cut = cut_of(g, pc_kernels_for(dtype), dtype, count);
    pc_slice slice = pc_slice_of(pass->call, index);
    const pc_weight_work work = lay_out(&slice, &cut, g, dtype);
    const int64_t ic = g->ic / g->g, oc = g->oc / g->g;
    int64_t number = 0;
    pc_weight_item item;
    for (item.group = 0; item.group < g->g; item.group++) {
        for (item.oc = 0; item.oc < oc; item.oc += cut.out_channels) {
            item.out_channels = pc_min(cut.out_channels, oc - item.oc);
            for (item.ic = 0; item.ic < ic; item.ic += cut.channels) {
                item.channels = pc_min(cut.channels, ic - item.ic);
                for (item.kh = 0; item.kh < g->kh; item.kh += cut.kernel_rows) {
                    item.kernel_rows = pc_min(cut.kernel_rows, g->kh - item.kh);
                    if (number++ % count != index) {
                        continue;
                    }
                    run_item(pass, &cut, &work, &item);
                    if (pc_stopped(pass->call)) {
                        return;
                    }
                }
            }
        }
    }
}

pc_status pc_conv_begin_weight(const pc_conv_geom *geom, pc_dtype dtype, int threads, pc_call *call, pc_error *error)
{
    const double outputs = (double)geom->n * (double)geom->oc * (double)geom->oh * (double)geom->ow;
    const double work = outputs * (double)(geom->ic / geom->g) * (double)geom->kh * (double)geom->kw;
    threads = pc_settle(threads, work, GRAIN);
    const pc_weight_cut cut = cut_of(geom, pc_kernels_for(dtype), dtype, threads);
    pc_slice slice = {NULL, 0};
    lay_out(&slice, &cut, geom, dtype);
    return pc_begin(call, dtype, threads, work, slice.used, 0, error);
}

void pc_conv_backward_weight(const pc_conv_geom *geom, void *grad_weight, const pc_tensor *grad_out,
                             const pc_tensor *in, pc_call *call)
{
    if (geom->n == 0) { /* a sum of nothing */
        const int64_t weights = geom->oc * (geom->ic / geom->g) * geom->kh * geom->kw;
        memset(grad_weight, 0, (size_t)weights * pc_dtype_size(call->dtype));
        return;
    }
    pc_weight_pass pass = {geom, grad_out, in, grad_weight, call};
    pc_pool_run(call->threads, run_thread, &pass);
}

/* ---- channel sums ---------------------------------------------------------------------------------------------- */

typedef struct {
    const int64_t *shape;
    void *sums;
    const pc_tensor *tensor;
    pc_call *call;
} pc_sum_pass;

static void sum_thread(void *context, int index, int count)
{
    const pc_sum_pass *pass = context;
    for (int64_t c = index; c < pass->shape[1] && !pc_poll(pass->call); c += count) {
        if (pass->call->dtype == PC_F32) {
            ((float *)pass->sums)[c] = channel_sum_f32(pass->shape, pass->tensor, c);
        } else {
            ((double *)pass->sums)[c] = channel_sum_f64(pass->shape, pass->tensor, c);
        }
    }
}

pc_status pc_channel_sum_begin(const int64_t shape[4], pc_dtype dtype, int threads, pc_call *call, pc_error *error)
{
    const double work = (double)shape[0] * (double)shape[1] * (double)shape[2] * (double)shape[3];
    return pc_begin(call, dtype, pc_settle(threads, work, GRAIN), work, 0, 0, error);
}

void pc_channel_sum(const int64_t shape[4], void *sums, const pc_tensor *tensor, pc_call *call)
{
    pc_sum_pass pass = {shape, sums, tensor, call};
    pc_pool_run(call->threads, sum_thread, &pass);
}
