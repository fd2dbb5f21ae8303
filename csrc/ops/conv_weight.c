/* conv_weight.c: the weight gradient (outer form).
 *
 *     grad_weight[o][c][r][s] = sum over n, y, x of grad_out[n][o][y][x] * in[n][c][y*sh - pt + r*dh][x*sw - pl + s*dw]
 *
 * The lanes of a tile are output channels, its rows are weights (c, r, s), and the depth runs over pixels:
 *
 *     total[c, r, s][o] += in_slab[offset of (c, r, s) + pixel] * panel[pixel][o]
 *
 * where a panel is grad_out of as many channels as a tile is wide, transposed to [pixel][channel], and the slab holds
 * the input (slab.h), so that stride, dilation and padding are offsets. Padding zeros are multiplied.
 *
 * The sum is cut into chunks, by the shape alone: a row of more than 1024 pixels into even parts; else whole rows, as
 * many as make 1024 pixels but at least 4 (fewer would pack each row of a wide map several times); else, where a sample
 * is one chunk, whole samples up to 1024 pixels. Each chunk is one chain of fmas from zero, and the chunks are added in
 * order. So the bits depend on neither threads, nor tiles, nor ISA, and the error grows with the chunk's length plus
 * their number, not with all pixels. The totals of a chunk go through memory between pieces of the panel that fit into
 * L1, which is the same chain.
 *
 *     for each group, share of output channels, share of input channels, range of kernel rows:     an item, one thread
 *         for each chunk:
 *             for each block of input channels:  pack the slab                       (up to 256 KB, half of a small L2)
 *                 for each panel:  transpose it, for the first block          (64 KB; up to 1.6 MB for all)
 *                     for each few weights:
 *                         for each piece of the panel:  the tile                     (16 KB and 16 KB, L1)
 *                         transpose the totals into grad_weight: the first chunk stores, the others add
 *
 * What is not the tile costs, per multiply-add: packing 1/(output channels * taps), transposing 1/(input channels *
 * taps), the totals 1/(pixels of a chunk), with the channels those of an item.
 *
 * A 1x1 window without padding is a product of two matrices. It needs no slab: the tile reads the input where it is.
 * And the input may as well be what is transposed, if it has fewer channels: the lanes are then input channels, the
 * rows output channels, and the products and their order the same. */
#include <assert.h>
#include <string.h>

#include "base/pool.h"
#include "isa/dispatch.h"
#include "ops/call.h"
#include "ops/conv_pixel.h"
#include "ops/conv_rows.h"
#include "ops/conv_rows_weight.h"
#include "ops/slab.h"

enum {
    CHUNK = PC_PIXEL_CHUNK, /* pixels */
    CHUNK_ROWS = 4,         /* at least, where a row fits */
    SLAB_BYTES = 256 << 10,
    PANELS_BYTES = 1600 << 10, /* with the slab, below 2 MB */
    TOTAL_BYTES = 16 << 10,
    PIECE_BYTES = 16 << 10,
    TILES = 4, /* of one call of the kernel */
    GRAIN = 1 << 20,
    LINE = 64,
};

/* The problem as it is computed: see shape_of. */
typedef struct {
    pc_conv_geom geom;
    bool pointwise; /* a product of matrices, where they are */
    bool turned;    /* `in` and `grad_out` are exchanged, and so are ic and oc */
} pc_weight_shape;

typedef struct {
    pc_weight_shape shape;
    pc_tensor grad_out, in;
    char *grad_weight;
    pc_call *call;
} pc_weight_pass;

/* An item has `out_channels` (panels of `lanes`), `in_channels` (blocks of `channels`) and `kernel_rows`; chunks of
 * samples x rows x columns. Only the chunk decides bits, and it looks at nothing but the geometry. */
typedef struct {
    pc_axis y, x;
    int64_t lanes, out_channels, channels, in_channels, kernel_rows;
    int64_t chunk_n, chunk_h, chunk_w;
    int64_t slab_step;                           /* of a sample, in elements */
    int64_t weights;                             /* whose totals are in work at the same time */
    bool keep;                                   /* all panels of a chunk, for the next block */
    int64_t items, oc_parts, ic_parts, kh_parts; /* of all, of a group */
} pc_weight_cut;

/* What an item covers, within its group. `ic, channels` is the block at hand. */
typedef struct {
    int64_t group, oc, out_channels, ic, channels, kh, kernel_rows;
} pc_weight_item;

typedef struct {
    int64_t n, samples, y, rows, x, columns;
    bool first;
} pc_chunk;

/* Where a chunk's pixels and a block's weights are found in the input: element (weight j, line i, pixel t) is
 * data[offset[j] + row[i] + t*pixel_step]. */
typedef struct {
    const char *data;
    const int64_t *offset, *row;
    int64_t weights, lines, length, pixel_step;
} pc_pixels;

typedef struct {
    char *slab, *panel, *total;
    int64_t *tap_row, *tap_column, *offset, *row;
} pc_weight_work;

/* Memory that will be wanted soon: `rows` of `lines` cache lines, `step` bytes apart. Some of it is asked for before
 * each call of the kernel. Reading grad_out and adding to grad_weight are short walks along many rows, which no
 * hardware foresees: 512 channels of 7x7 pixels take 10 % less time so. */
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

/* A 1x1 window without padding looks at every sh-th row: as far as this goes, that is all of a smaller image. (Columns
 * with a stride between them are better packed.) Turned where less is to be transposed then and no lanes are empty; not
 * for few pixels, as the gradient is written in pieces of a few lanes then. */
static pc_weight_shape shape_of(const pc_conv_geom *geom, const pc_kernels *kernels)
{
    pc_weight_shape shape = {.geom = *geom};
    pc_conv_geom *g = &shape.geom;
    shape.pointwise = g->kh * g->kw == 1 && g->sw == 1 && g->pt == 0 && g->pb == 0 && g->pl == 0 && g->pr == 0;
    if (shape.pointwise) {
        shape.turned = g->ic < g->oc && g->ic / g->g >= kernels->tile_columns && g->oh * g->ow >= CHUNK / 2;
        g->sh = 1;
        g->ih = g->oh;
        if (shape.turned) {
            g->ic = geom->oc;
            g->oc = geom->ic;
        }
    }
    return shape;
}

static int64_t slab_bound(const pc_weight_cut *c, pc_dtype dtype)
{
    pc_axis y = c->y;
    y.taps = c->kernel_rows;
    return pc_slab_most(pc_span_most(&y, c->chunk_h), pc_span_most(&c->x, c->chunk_w), 1, dtype);
}

/* Makes the items smaller until there is one for each thread: by input channels, which repeats the transposing, by
 * output channels, which repeats the packing, or by kernel rows. */
static void share(pc_weight_cut *c, const pc_conv_geom *g, int64_t lanes, int threads)
{
    const int64_t ic = g->ic / g->g, oc = g->oc / g->g;
    const int64_t items = g->g * pc_ceil_div(oc, c->out_channels) * pc_ceil_div(g->kh, c->kernel_rows);
    if (threads == 1 || items % threads == 0 || items >= 4 * threads) {
        return;
    }
    if (ic >= 16 * threads) {
        c->in_channels = pc_ceil_div(ic, threads);
    } else if (oc >= threads * lanes) {
        c->out_channels = pc_min(c->out_channels, pc_ceil_div(pc_ceil_div(oc, threads), lanes) * lanes);
    } else if (ic >= threads) {
        c->in_channels = pc_ceil_div(ic, threads);
    } else {
        c->kernel_rows = pc_min(c->kernel_rows, pc_ceil_div(g->kh, threads));
    }
}

static pc_weight_cut cut_of(const pc_weight_shape *shape, const pc_kernels *kernels, pc_dtype dtype, int threads)
{
    const pc_conv_geom *g = &shape->geom;
    const int64_t ic = g->ic / g->g, oc = g->oc / g->g, size = (int64_t)pc_dtype_size(dtype);
    pc_weight_cut c = {.y = pc_axis_of(g->ih, g->oh, g->sh, g->pt, g->kh, g->dh, g->pad_mode),
                       .x = pc_axis_of(g->iw, g->ow, g->sw, g->pl, g->kw, g->dw, g->pad_mode)};
    c.chunk_w = even_part(g->ow, CHUNK, 1);
    c.chunk_h = c.chunk_w < g->ow ? 1 : even_part(g->oh, pc_max(CHUNK_ROWS, CHUNK / g->ow), 1);
    c.chunk_n = c.chunk_h < g->oh ? 1 : even_part(pc_max(1, g->n), CHUNK / (g->oh * g->ow), 1);

    c.kernel_rows = g->kh;
    int64_t step = shape->pointwise ? c.chunk_h * c.chunk_w : slab_bound(&c, dtype);
    while (c.kernel_rows > 1 && step > SLAB_BYTES / size / c.chunk_n) {
        c.kernel_rows = pc_ceil_div(c.kernel_rows, 2);
        step = slab_bound(&c, dtype);
    }
    const int64_t most = step < 0 ? 1 : SLAB_BYTES / size / c.chunk_n / step;
    const int64_t pixels = c.chunk_n * c.chunk_h * c.chunk_w;
    c.in_channels = ic;
    c.out_channels = most >= ic ? oc : even_part(oc, PANELS_BYTES / size / pixels, kernels->tile_columns);
    share(&c, g, kernels->lanes, threads);
    c.channels = even_part(c.in_channels, most, 1);
    c.keep = c.channels < c.in_channels;
    c.lanes = pc_min(even_part(c.out_channels, kernels->tile_columns, kernels->lanes), kernels->tile_columns);
    c.weights = pc_max(1, TOTAL_BYTES / size / c.lanes / kernels->tile_rows) * kernels->tile_rows;
    c.slab_step = shape->pointwise ? 0 : step < 0 ? -1 : step * c.channels;
    c.oc_parts = pc_ceil_div(oc, c.out_channels);
    c.ic_parts = pc_ceil_div(ic, c.in_channels);
    c.kh_parts = pc_ceil_div(g->kh, c.kernel_rows);
    c.items = g->g * c.oc_parts * c.ic_parts * c.kh_parts;
    return c;
}

static pc_weight_work lay_out(pc_slice *slice, const pc_weight_cut *c, const pc_conv_geom *g, pc_dtype dtype)
{
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    const int64_t panels = c->keep ? pc_ceil_div(c->out_channels, c->lanes) : 1;
    if (c->slab_step < 0) {
        slice->used = -1;
    }
    return (pc_weight_work){
        .slab = pc_lay(slice, c->slab_step * c->chunk_n, size),
        .panel = pc_lay(slice, c->chunk_n * c->chunk_h * c->chunk_w * c->lanes * panels, size),
        .total = pc_lay(slice, c->weights * c->lanes, size),
        .tap_row = pc_lay(slice, g->kh, sizeof(int64_t)),
        .tap_column = pc_lay(slice, g->kw, sizeof(int64_t)),
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
    const pc_conv_geom *g = &pass->shape.geom;
    const pc_dtype dtype = pass->call->dtype;
    const int64_t size = (int64_t)pc_dtype_size(dtype), *step = pass->in.step;
    const int64_t ic = item->group * (g->ic / g->g) + item->ic;
    pc_pixels found = {.data = work->slab,
                       .offset = work->offset,
                       .row = work->row,
                       .weights = item->channels * item->kernel_rows * g->kw,
                       .lines = chunk->samples * chunk->rows,
                       .length = chunk->columns,
                       .pixel_step = 1};
    int64_t sample_step, channel_step, row_step;
    if (pass->shape.pointwise) {
        sample_step = step[0];
        channel_step = step[1];
        row_step = step[2];
        found.pixel_step = step[3];
        found.data = (const char *)pass->in.data +
                     (chunk->n * step[0] + ic * step[1] + chunk->y * step[2] + chunk->x * step[3]) * size;
        work->tap_row[0] = work->tap_column[0] = 0;
    } else {
        pc_axis y = cut->y;
        y.base += item->kh * y.delta;
        y.taps = item->kernel_rows;
        const pc_slab slab = pc_slab_of(pc_span_of(&y, chunk->y, chunk->rows, false),
                                        pc_span_of(&cut->x, chunk->x, chunk->columns, false), 1, dtype);
        assert(slab.channel_step * item->channels <= cut->slab_step);
        pc_slab_rows(&slab, &y, work->tap_row);
        pc_slab_columns(&slab, &cut->x, work->tap_column);
        channel_step = slab.channel_step;
        sample_step = channel_step * item->channels;
        row_step = slab.row_step;
        for (int64_t s = 0; s < chunk->samples; s++) {
            pc_slab_pack(&slab, &y, &cut->x, dtype, work->slab + s * sample_step * size, &pass->in, chunk->n + s, ic,
                         item->channels, true);
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
static void sum_pixels(const pc_kernels *kernels, const char *panel, char *total, const pc_pixels *pixels,
                       int64_t first, int64_t weights, int64_t vectors, int64_t size, pc_ahead *ahead, pc_ahead *next)
{
    const int64_t width = vectors * kernels->lanes, most = PIECE_BYTES / (width * size);
    const int64_t length = even_part(pixels->length, most, 1);
    const int64_t lines = length < pixels->length ? 1 : even_part(pixels->lines, most / length, 1);
    const int64_t pieces = pc_ceil_div(pixels->lines, lines) * pc_ceil_div(pixels->length, length);
    const int64_t rows = TILES * kernels->tile_rows;
    ahead->share = pc_ceil_div(ahead->rows * ahead->lines, pieces * pc_ceil_div(weights, rows));
    next->share = pc_ceil_div(next->rows * next->lines, pieces * pc_ceil_div(pixels->weights, rows));
    bool accumulate = false;
    for (int64_t line = 0; line < pixels->lines; line += lines) {
        for (int64_t at = 0; at < pixels->length; at += length) {
            pc_weight_args tile = {
                .vectors = vectors,
                .accumulate = accumulate,
                .vec = panel,
                .scal = pixels->data + at * pixels->pixel_step * size,
                .row_count = pc_min(lines, pixels->lines - line),
                .columns = pc_min(length, pixels->length - at),
                .pixel_step = pixels->pixel_step,
                .row = pixels->row + line,
            };
            for (int64_t j = 0; j < weights; j += rows) {
                tile.out = total + j * width * size;
                tile.offset = pixels->offset + first + j;
                tile.rows = pc_min(rows, weights - j);
                look_ahead(ahead);
                look_ahead(next);
                kernels->weight_tile(&tile);
            }
            panel += tile.row_count * tile.columns * width * size;
            accumulate = true;
        }
    }
}

/* grad_weight of `weights` of the block's weights from `first` on, lanes `oc` and following. Weights of one kernel row
 * range of one channel lie one behind the other, and `first` and `weights` stay within one unless the item has all.
 * Returns where they are, with the first lane's first weight at `data` and `step` bytes to the next lane; turned, to
 * the next weight. */
static pc_ahead place_of(const pc_weight_pass *pass, const pc_weight_item *item, int64_t oc, int64_t lanes,
                         int64_t first, int64_t weights)
{
    const pc_conv_geom *g = &pass->shape.geom;
    const int64_t ic = g->ic / g->g, size = (int64_t)pc_dtype_size(pass->call->dtype);
    if (pass->shape.turned) {
        const int64_t step = g->oc / g->g;
        const int64_t at = (item->group * ic + item->ic + first) * step + oc - item->group * step;
        return (pc_ahead){.data = pass->grad_weight + at * size,
                          .step = step * size,
                          .lines = pc_ceil_div(lanes * size, LINE),
                          .rows = weights};
    }
    const int64_t taps = item->kernel_rows * g->kw;
    const int64_t at = ((oc * ic + item->ic + first / taps) * g->kh + item->kh) * g->kw + first % taps;
    return (pc_ahead){.data = pass->grad_weight + at * size,
                      .step = ic * g->kh * g->kw * size,
                      .lines = pc_ceil_div(weights * size, LINE),
                      .rows = lanes};
}

/* The gradient of a block's weights for `lanes` output channels from `oc` on, over one chunk, from a panel. `next` is
 * what the next panel will read. */
static void run_panel(const pc_weight_pass *pass, const pc_weight_cut *cut, const pc_weight_work *work,
                      const pc_weight_item *item, const pc_chunk *chunk, const pc_pixels *pixels, const char *panel,
                      int64_t oc, int64_t lanes, pc_ahead next)
{
    const pc_conv_geom *g = &pass->shape.geom;
    const pc_dtype dtype = pass->call->dtype;
    const pc_kernels *kernels = pc_kernels_for(dtype);
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    const int64_t vectors = pc_ceil_div(lanes, kernels->lanes), width = vectors * kernels->lanes;
    const int64_t run = item->kernel_rows == g->kh ? pixels->weights : item->kernel_rows * g->kw;
    for (int64_t first = 0, weights; first < pixels->weights; first += weights) {
        weights = pc_min(cut->weights, run - first % run);
        assert(width <= cut->lanes && weights <= cut->weights);
        pc_ahead place = place_of(pass, item, oc, lanes, first, weights), ahead = place;
        sum_pixels(kernels, panel, work->total, pixels, first, weights, vectors, size, &ahead, &next);
        char *grad_weight = (char *)place.data;
        if (!pass->shape.turned) {
            kernels->transpose(&(pc_transpose_args){
                .out = grad_weight,
                .out_step = place.step / size,
                .in = work->total,
                .in_step = width,
                .rows = weights,
                .columns = lanes,
                .add = !chunk->first,
            });
        } else if (dtype == PC_F32) {
            write_f32((float *)grad_weight, place.step / size, (float *)work->total, width, weights, lanes,
                      !chunk->first);
        } else {
            write_f64((double *)grad_weight, place.step / size, (double *)work->total, width, weights, lanes,
                      !chunk->first);
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

static void take_panel(const pc_weight_pass *pass, const pc_chunk *chunk, char *panel, int64_t oc, int64_t lanes)
{
    const pc_kernels *kernels = pc_kernels_for(pass->call->dtype);
    const int64_t width = pc_ceil_div(lanes, kernels->lanes) * kernels->lanes;
    if (width > lanes) { /* lanes without a channel: their sums go nowhere, but must not be slow */
        const int64_t elements = chunk->samples * chunk->rows * chunk->columns * width;
        memset(panel, 0, (size_t)elements * pc_dtype_size(pass->call->dtype));
    }
    if (pass->call->dtype == PC_F32) {
        take_panel_f32(kernels, (float *)panel, width, lanes, &pass->grad_out, oc, chunk);
    } else {
        take_panel_f64(kernels, (double *)panel, width, lanes, &pass->grad_out, oc, chunk);
    }
}

/* What take_panel will read. Of one sample only: several lie too scattered, and are small. */
static pc_ahead panel_ahead(const pc_weight_pass *pass, const pc_chunk *chunk, int64_t oc, int64_t lanes)
{
    const int64_t *step = pass->grad_out.step, size = (int64_t)pc_dtype_size(pass->call->dtype);
    if (chunk->samples > 1 || step[3] != 1 || step[2] < 0) {
        return (pc_ahead){0};
    }
    return (pc_ahead){.data = (const char *)pass->grad_out.data +
                              (chunk->n * step[0] + oc * step[1] + chunk->y * step[2] + chunk->x) * size,
                      .step = step[1] * size,
                      .lines = pc_ceil_div(((chunk->rows - 1) * step[2] + chunk->columns) * size, LINE),
                      .rows = lanes};
}

static void run_item(const pc_weight_pass *pass, const pc_weight_cut *cut, const pc_weight_work *work,
                     pc_weight_item item, int64_t in_channels)
{
    const pc_conv_geom *g = &pass->shape.geom;
    const int64_t chunks =
        pc_ceil_div(g->n, cut->chunk_n) * pc_ceil_div(g->oh, cut->chunk_h) * pc_ceil_div(g->ow, cut->chunk_w);
    const int64_t oc = item.group * (g->oc / g->g) + item.oc, most = pc_min(cut->lanes, item.out_channels);
    const int64_t ic = item.ic, end = ic + in_channels;
    const int64_t panel_bytes =
        cut->chunk_n * cut->chunk_h * cut->chunk_w * cut->lanes * (int64_t)pc_dtype_size(pass->call->dtype);
    for (int64_t i = 0; i < chunks; i++) {
        const pc_chunk chunk = chunk_at(g, cut, i), following = chunk_at(g, cut, (i + 1) % chunks);
        for (item.ic = ic; item.ic < end; item.ic += cut->channels) {
            item.channels = pc_min(cut->channels, end - item.ic);
            const pc_pixels pixels = take_pixels(pass, cut, work, &item, &chunk);
            const bool first = item.ic == ic, last = item.ic + item.channels == end;
            char *panel = work->panel;
            for (int64_t o = 0, lanes; o < item.out_channels; o += lanes, panel += cut->keep ? panel_bytes : 0) {
                lanes = pc_min(cut->lanes, item.out_channels - o);
                assert(panel + panel_bytes <= work->total);
                if (first) {
                    take_panel(pass, &chunk, panel, oc + o, lanes);
                }
                const int64_t more = item.out_channels - o - lanes;
                pc_ahead next = {0};
                if (more > 0 && first) {
                    next = panel_ahead(pass, &chunk, oc + o + lanes, pc_min(cut->lanes, more));
                } else if (more == 0 && last) {
                    next = panel_ahead(pass, &following, oc, most);
                }
                run_panel(pass, cut, work, &item, &chunk, &pixels, panel, oc + o, lanes, next);
                if (pc_poll(pass->call)) {
                    return;
                }
            }
        }
    }
}

static void run_thread(void *context, int index, int count)
{
    const pc_weight_pass *pass = context;
    const pc_conv_geom *g = &pass->shape.geom;
    const pc_dtype dtype = pass->call->dtype;
    const pc_weight_cut cut = cut_of(&pass->shape, pc_kernels_for(dtype), dtype, count);
    pc_slice slice = pc_slice_of(pass->call, index);
    const pc_weight_work work = lay_out(&slice, &cut, g, dtype);
    const int64_t ic = g->ic / g->g, oc = g->oc / g->g;
    for (int64_t i = index; i < cut.items && !pc_stopped(pass->call); i += count) {
        const int64_t row = i % cut.kh_parts * cut.kernel_rows,
                      first = i / cut.kh_parts % cut.ic_parts * cut.in_channels;
        const int64_t share = i / cut.kh_parts / cut.ic_parts;
        pc_weight_item item = {
            .group = share / cut.oc_parts, .oc = share % cut.oc_parts * cut.out_channels, .ic = first, .kh = row};
        item.out_channels = pc_min(cut.out_channels, oc - item.oc);
        item.kernel_rows = pc_min(cut.kernel_rows, g->kh - row);
        run_item(pass, &cut, &work, item, pc_min(cut.in_channels, ic - first));
    }
}

pc_status pc_conv_begin_weight(const pc_conv_geom *geom, pc_dtype dtype, int threads, pc_call *call, pc_error *error)
{
    const double outputs = (double)geom->n * (double)geom->oc * (double)geom->oh * (double)geom->ow;
    const double work = outputs * (double)(geom->ic / geom->g) * (double)geom->kh * (double)geom->kw;
    if (pc_rows_weight_serve(geom, dtype)) {
        threads = pc_settle(threads, work, PC_ROWS_GRAIN);
        return pc_begin(call, dtype, threads, work, pc_rows_weight_bytes(geom, dtype), 0, error);
    }
    const pc_kernels *kernels = pc_kernels_for(dtype);
    threads = pc_settle(threads, work, GRAIN);
    const pc_weight_shape shape = shape_of(geom, kernels);
    const pc_weight_cut cut = cut_of(&shape, kernels, dtype, threads);
    pc_slice slice = {0};
    lay_out(&slice, &cut, &shape.geom, dtype);
    pc_pass pixel;
    int64_t bytes = slice.used;
    if (pc_pixel_weight(geom, dtype, call, &pixel) && bytes >= 0) { /* the input's layout decides */
        bytes = pc_max(bytes, pc_pixel_bytes(&pixel, dtype, threads));
    }
    return pc_begin(call, dtype, threads, work, bytes, 0, error);
}

void pc_conv_backward_weight(const pc_conv_geom *geom, void *grad_weight, const pc_tensor *grad_out,
                             const pc_tensor *in, pc_call *call)
{
    if (pc_rows_weight_serve(geom, call->dtype)) {
        pc_rows_weight_run(geom, grad_weight, grad_out, in, call);
        return;
    }
    if (geom->n == 0) { /* a sum of nothing */
        const int64_t weights = geom->oc * (geom->ic / geom->g) * geom->kh * geom->kw;
        memset(grad_weight, 0, (size_t)weights * pc_dtype_size(call->dtype));
        return;
    }
    pc_pass pixel;
    if (pc_pixel_weight(geom, call->dtype, call, &pixel) &&
        pc_pixel_run_weight(&pixel, geom, grad_weight, grad_out, in)) {
        return;
    }
    pc_weight_pass pass = {shape_of(geom, pc_kernels_for(call->dtype)), *grad_out, *in, grad_weight, call};
    if (pass.shape.pointwise) {
        pass.in.step[2] *= geom->sh;
    }
    if (pass.shape.turned) {
        pass.grad_out = pass.in;
        pass.in = *grad_out;
    }
    pc_pool_run(call->threads, run_thread, &pass);
}

void pc_conv_explain_weight(const pc_conv_geom *geom, pc_call *call, pc_plan *plan)
{
    if (pc_rows_weight_serve(geom, call->dtype)) {
        pc_rows_weight_explain(geom, call, plan);
        return;
    }
    if (geom->n == 0) {
        return;
    }
    pc_pass pixel;
    if (pc_pixel_weight(geom, call->dtype, call, &pixel)) {
        pc_pixel_explain(&pixel, plan);
        return;
    }
    const pc_kernels *kernels = pc_kernels_for(call->dtype);
    const pc_weight_shape shape = shape_of(geom, kernels);
    const pc_weight_cut c = cut_of(&shape, kernels, call->dtype, call->threads);
    plan->family = "weight tile";
    plan->form = shape.turned ? "input in place, turned" : shape.pointwise ? "input in place" : "input packed";
    plan->kernel = "weight_tile";
    plan->phases = 1;
    plan->tile_rows = kernels->tile_rows;
    plan->tile_vectors = pc_ceil_div(pc_min(c.lanes, c.out_channels), kernels->lanes);
    plan->items = c.items;
    pc_plan_add(plan, "chunk_samples", c.chunk_n);
    pc_plan_add(plan, "chunk_rows", c.chunk_h);
    pc_plan_add(plan, "chunk_columns", c.chunk_w);
    pc_plan_add(plan, "lanes", c.lanes);
    pc_plan_add(plan, "out_channels", c.out_channels);
    pc_plan_add(plan, "in_channels", c.in_channels);
    pc_plan_add(plan, "channels", c.channels);
    pc_plan_add(plan, "kernel_rows", c.kernel_rows);
    pc_plan_add(plan, "weights", c.weights);
    pc_plan_add(plan, "panels_kept", c.keep);
}
