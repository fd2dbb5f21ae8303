/* conv_weight.c: the weight gradient (outer form), and channel sums for bias gradients.
 *
 *     grad_weight[o][c][r][s] = sum over n, y, x of grad_out[n][o][y][x] * in[n][c][y*sh - pt + r*dh][x*sw - pl + s*dw]
 *
 * The lanes are output channels, the tile's rows input channels, and the depth runs over pixels: for one tap (r, s)
 *
 *     acc[c][o] += in_slab[c][pixel + tap offset] * grad[pixel][o]
 *
 * which is the forward's tile with other lists: `vec` is grad_out transposed to [pixel][channel], `scal` the slab of
 * the input (slab.h), so that stride, dilation and padding are offsets here as well. Padding zeros are multiplied.
 *
 * The sum is cut into chunks of about 512 pixels (rows, columns or whole samples), fixed by the shape alone. Each
 * chunk is one chain of fmas from zero, and the chunks are added in order. So the bits depend on neither threads, nor
 * tiles, nor ISA, and the error grows with the chunk's length plus their number, not with all pixels.
 *
 * A 1x1 window without padding needs no slab: `scal` is read element by element, so the input is read where it is.
 *
 *     for each group, block of output channels, block of input channels, range of kernel rows:     an item, one thread
 *         for each chunk:  transpose grad_out, pack the slab
 *             for each tap, 8 input channels:  the tile, added to the item's totals
 *         write the totals out */
#include <string.h>

#include "base/pool.h"
#include "isa/dispatch.h"
#include "ops/call.h"
#include "ops/conv_rows.h"
#include "ops/slab.h"

enum {
    CHUNK = 512, /* pixels; also what one transposed block and a slab channel hold */
    SLAB_BYTES = 512 << 10,
    TOTAL_BYTES = 1 << 20,
    BLOCK_BYTES = 16 << 10, /* of the transposed block while the lanes go over it: half of L1 */
    GRAIN = 1 << 20,
};

typedef struct {
    const pc_conv_geom *geom;
    const pc_tensor *grad_out, *in;
    char *grad_weight;
    pc_call *call;
} pc_weight_pass;

/* `lanes` output channels, `channels` input channels, `kernel_rows` kernel rows an item; chunks of samples x rows x
 * columns. Only the chunk decides bits, and it looks at nothing but the geometry. */
typedef struct {
    pc_axis y, x;
    int64_t lanes, channels, kernel_rows;
    int64_t chunk_n, chunk_h, chunk_w;
    int64_t slab_step; /* of a sample, in elements */
    int64_t list;
} pc_weight_cut;

typedef struct {
    int64_t group, oc, lanes, ic, channels, kh, kernel_rows; /* what an item covers, within its group */
} pc_weight_item;

typedef struct {
    int64_t n, samples, y, rows, x, columns;
} pc_chunk;

typedef struct {
    void *slab, *grad, *total, *tile;
    int64_t *tap_row, *tap_column, *vec_row, *scal_row, *vec_column, *scal_column;
} pc_weight_work;

/* Divides `all` into parts of at most `most`, as even as whole units allow. */
static int64_t even_part(int64_t all, int64_t most, int64_t unit)
{
    const int64_t units = pc_ceil_div(all, unit);
    const int64_t parts = pc_ceil_div(units, pc_max(1, most / unit));
    return pc_ceil_div(units, parts) * unit;
}

static bool in_place(const pc_conv_geom *g)
{
    return g->kh * g->kw == 1 && g->pt == 0 && g->pb == 0 && g->pl == 0 && g->pr == 0;
}

static int64_t slab_bound(const pc_weight_cut *c, pc_dtype dtype)
{
    pc_axis y = c->y;
    y.taps = c->kernel_rows;
    return pc_slab_most(pc_span_most(&y, c->chunk_h), pc_span_most(&c->x, c->chunk_w), 1, dtype);
}

static pc_weight_cut cut_of(const pc_conv_geom *g, const pc_kernels *kernels, pc_dtype dtype, int threads)
{
    const int64_t ic = g->ic / g->g, oc = g->oc / g->g, size = (int64_t)pc_dtype_size(dtype);
    pc_weight_cut c = {.y = pc_axis_of(g->ih, g->oh, g->sh, g->pt, g->kh, g->dh, g->pad_mode),
                       .x = pc_axis_of(g->iw, g->ow, g->sw, g->pl, g->kw, g->dw, g->pad_mode)};
    c.chunk_w = even_part(g->ow, CHUNK, 1);
    c.chunk_h = c.chunk_w < g->ow ? 1 : pc_min(g->oh, pc_max(1, CHUNK / g->ow));
    c.chunk_n = c.chunk_h < g->oh ? 1 : pc_max(1, pc_min(g->n, CHUNK / (g->oh * g->ow)));

    c.lanes = pc_min(even_part(oc, kernels->tile_columns, kernels->lanes), kernels->tile_columns);
    c.kernel_rows = pc_max(1, pc_min(g->kh, TOTAL_BYTES / (c.lanes * g->kw * size)));
    int64_t step = in_place(g) ? 1 : slab_bound(&c, dtype);
    while (step * c.chunk_n > SLAB_BYTES / size && c.kernel_rows > 1) {
        c.kernel_rows = pc_ceil_div(c.kernel_rows, 2);
        step = slab_bound(&c, dtype);
    }
    int64_t most = TOTAL_BYTES / (c.lanes * c.kernel_rows * g->kw * size);
    most = step < 0 ? 1 : pc_max(1, pc_min(most, SLAB_BYTES / size / c.chunk_n / step));
    const int64_t items = g->g * pc_ceil_div(oc, c.lanes);
    if (items % threads != 0 && items < 4 * threads) {
        most = pc_min(most, pc_ceil_div(ic, threads));
    }
    c.channels = even_part(ic, most, pc_min(most, kernels->tile_rows));
    c.slab_step = step < 0 ? -1 : step * c.channels;
    c.list = pc_max(pc_max(g->kh, g->kw), pc_max(c.chunk_n * c.chunk_h, c.chunk_w));
    return c;
}

static pc_weight_work lay_out(pc_slice *slice, const pc_weight_cut *c, const pc_conv_geom *g, const pc_kernels *kernels,
                              pc_dtype dtype)
{
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    const int64_t taps = c->kernel_rows * g->kw;
    if (c->slab_step < 0) {
        slice->used = -1;
    }
    return (pc_weight_work){
        .slab = pc_lay(slice, c->slab_step * c->chunk_n, size),
        .grad = pc_lay(slice, c->chunk_n * c->chunk_h * c->chunk_w * c->lanes, size),
        .total = pc_lay(slice, taps * c->channels * c->lanes, size),
        .tile = pc_lay(slice, kernels->tile_rows * kernels->tile_columns, size),
        .tap_row = pc_lay(slice, c->list, sizeof(int64_t)),
        .tap_column = pc_lay(slice, c->list, sizeof(int64_t)),
        .vec_row = pc_lay(slice, c->list, sizeof(int64_t)),
        .scal_row = pc_lay(slice, c->list, sizeof(int64_t)),
        .vec_column = pc_lay(slice, c->list, sizeof(int64_t)),
        .scal_column = pc_lay(slice, c->list, sizeof(int64_t)),
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

/* Runs the tile; its row p goes to (first chunk) or is added to totals[at + p*step]. */
static void run_tile(const pc_call *call, const pc_weight_work *work, pc_tile_args *tile, int64_t at, int64_t step,
                     bool first)
{
    const pc_kernels *kernels = pc_kernels_for(call->dtype);
    const int64_t lanes = tile->columns;
    char *total = (char *)work->total + at * (int64_t)pc_dtype_size(call->dtype);
    tile->out = first ? total : work->tile;
    tile->out_step = first ? step : lanes;
    kernels->conv_tile(tile);
    for (int64_t p = 0; !first && p < tile->rows; p++) {
        if (call->dtype == PC_F32) {
            add_f32((float *)total + p * step, (float *)work->tile + p * lanes, lanes);
        } else {
            add_f64((double *)total + p * step, (double *)work->tile + p * lanes, lanes);
        }
    }
}

static void run_chunk(const pc_weight_pass *pass, const pc_weight_cut *cut, const pc_weight_work *work,
                      const pc_weight_item *item, const pc_chunk *chunk, bool first)
{
    const pc_conv_geom *g = pass->geom;
    const pc_kernels *kernels = pc_kernels_for(pass->call->dtype);
    const pc_dtype dtype = pass->call->dtype;
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    const int64_t oc = item->group * (g->oc / g->g) + item->oc, ic = item->group * (g->ic / g->g) + item->ic;

    /* Where the tile finds the input: of a sample, a channel, an output row, an output column. */
    const char *source = work->slab;
    int64_t sample_step, channel_step, row_step, column_step = 1;
    if (in_place(g)) {
        const int64_t *step = pass->in->step;
        sample_step = step[0];
        channel_step = step[1];
        row_step = g->sh * step[2];
        column_step = g->sw * step[3];
        source = (const char *)pass->in->data +
                 (chunk->n * step[0] + ic * step[1] + chunk->y * row_step + chunk->x * column_step) * size;
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
    if (dtype == PC_F32) {
        transpose_f32(work->grad, cut->lanes, item->lanes, pass->grad_out, oc, chunk);
    } else {
        transpose_f64(work->grad, cut->lanes, item->lanes, pass->grad_out, oc, chunk);
    }

    /* The pixels' lists: a row of the kernel's loops is a row of a sample, its columns are columns. */
    for (int64_t s = 0, i = 0; s < chunk->samples; s++) {
        for (int64_t j = 0; j < chunk->rows; j++, i++) {
            work->vec_row[i] = i * chunk->columns * cut->lanes;
            work->scal_row[i] = s * sample_step + j * row_step;
        }
    }
    for (int64_t i = 0; i < chunk->columns; i++) {
        work->vec_column[i] = i * cut->lanes;
        work->scal_column[i] = i * column_step;
    }

    pc_tile_args tile = {
        .columns = cut->lanes,
        .vec = work->grad,
        .outer = 1,
        .row_count = chunk->samples * chunk->rows,
        .col_count = chunk->columns,
        .vec_row = work->vec_row,
        .vec_col = work->vec_column,
        .scal_row = work->scal_row,
        .scal_col = work->scal_column,
        .scal_step = channel_step,
    };
    if (item->channels * 2 > kernels->tile_rows || g->kw <= item->channels) {
        for (int64_t k = 0; k < item->kernel_rows * g->kw; k++) {
            const int64_t tap = work->tap_row[k / g->kw] + work->tap_column[k % g->kw];
            for (int64_t c = 0; c < item->channels; c += kernels->tile_rows) {
                tile.rows = pc_min(kernels->tile_rows, item->channels - c);
                tile.scal = source + (tap + c * channel_step) * size;
                run_tile(pass->call, work, &tile, (k * item->channels + c) * cut->lanes, cut->lanes, first);
            }
        }
        return;
    }
    /* Few channels: the tile's rows are taps of one kernel row instead. In the slab those of one phase lie evenly
     * spaced, but for taps that were moved because they read padding alone: a tile ends there. */
    const int64_t period = pc_span_of(&cut->x, chunk->x, chunk->columns, false).period;
    const int64_t *column = work->tap_column;
    for (int64_t r = 0; r < item->kernel_rows; r++) {
        for (int64_t phase = 0; phase < pc_min(period, g->kw); phase++) {
            for (int64_t t = phase, next; t < g->kw; t = next) {
                tile.rows = 1;
                tile.scal_step = t + period < g->kw ? column[t + period] - column[t] : 0;
                for (next = t + period; next < g->kw && tile.rows < kernels->tile_rows &&
                                        column[next] - column[next - period] == tile.scal_step;
                     next += period) {
                    tile.rows++;
                }
                for (int64_t c = 0; c < item->channels; c++) {
                    tile.scal = source + (work->tap_row[r] + column[t] + c * channel_step) * size;
                    run_tile(pass->call, work, &tile, ((r * g->kw + t) * item->channels + c) * cut->lanes,
                             period * item->channels * cut->lanes, first);
                }
            }
        }
    }
}

static void run_item(const pc_weight_pass *pass, const pc_weight_cut *cut, const pc_weight_work *work,
                     const pc_weight_item *item)
{
    const pc_conv_geom *g = pass->geom;
    bool first = true;
    /* Lanes without a channel stay zero through all chunks. */
    memset(work->grad, 0,
           (size_t)(cut->chunk_n * cut->chunk_h * cut->chunk_w * cut->lanes) * pc_dtype_size(pass->call->dtype));
    for (int64_t n = 0; n < g->n; n += cut->chunk_n) {
        for (int64_t y = 0; y < g->oh; y += cut->chunk_h) {
            for (int64_t x = 0; x < g->ow; x += cut->chunk_w) {
                const pc_chunk chunk = {n, pc_min(cut->chunk_n, g->n - n), y, pc_min(cut->chunk_h, g->oh - y),
                                        x, pc_min(cut->chunk_w, g->ow - x)};
                run_chunk(pass, cut, work, item, &chunk, first);
                first = false;
                if (pc_poll(pass->call)) {
                    return;
                }
            }
        }
    }
    const int64_t ic = g->ic / g->g;
    const int64_t oc_step = ic * g->kh * g->kw;
    const int64_t start =
        (item->group * (g->oc / g->g) + item->oc) * oc_step + item->ic * g->kh * g->kw + item->kh * g->kw;
    if (pass->call->dtype == PC_F32) {
        write_f32((float *)pass->grad_weight + start, oc_step, g->kh * g->kw, first ? NULL : work->total, item,
                  cut->lanes, g->kw);
    } else {
        write_f64((double *)pass->grad_weight + start, oc_step, g->kh * g->kw, first ? NULL : work->total, item,
                  cut->lanes, g->kw);
    }
}

static void run_thread(void *context, int index, int count)
{
    const pc_weight_pass *pass = context;
    const pc_conv_geom *g = pass->geom;
    const pc_kernels *kernels = pc_kernels_for(pass->call->dtype);
    const pc_weight_cut cut = cut_of(g, kernels, pass->call->dtype, count);
    pc_slice slice = pc_slice_of(pass->call, index);
    const pc_weight_work work = lay_out(&slice, &cut, g, kernels, pass->call->dtype);
    const int64_t ic = g->ic / g->g, oc = g->oc / g->g;
    int64_t number = 0;
    for (int64_t group = 0; group < g->g; group++) {
        for (int64_t o = 0; o < oc; o += cut.lanes) {
            for (int64_t c = 0; c < ic; c += cut.channels) {
                for (int64_t r = 0; r < g->kh; r += cut.kernel_rows) {
                    if (number++ % count != index) {
                        continue;
                    }
                    const pc_weight_item item = {.group = group,
                                                 .oc = o,
                                                 .lanes = pc_min(cut.lanes, oc - o),
                                                 .ic = c,
                                                 .channels = pc_min(cut.channels, ic - c),
                                                 .kh = r,
                                                 .kernel_rows = pc_min(cut.kernel_rows, g->kh - r)};
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
    const pc_kernels *kernels = pc_kernels_for(dtype);
    const double outputs = (double)geom->n * (double)geom->oc * (double)geom->oh * (double)geom->ow;
    const double work = outputs * (double)(geom->ic / geom->g) * (double)geom->kh * (double)geom->kw;
    if (pc_rows_serve(geom, PC_CONV_BACKWARD_WEIGHT, dtype)) {
        threads = pc_settle(threads, work, PC_ROWS_GRAIN);
        return pc_begin(call, dtype, threads, work, pc_rows_bytes(geom, PC_CONV_BACKWARD_WEIGHT, dtype), 0, error);
    }
    threads = pc_settle(threads, work, GRAIN);
    const pc_weight_cut cut = cut_of(geom, kernels, dtype, threads);
    pc_slice slice = {NULL, 0};
    lay_out(&slice, &cut, geom, kernels, dtype);
    return pc_begin(call, dtype, threads, work, slice.used, 0, error);
}

void pc_conv_backward_weight(const pc_conv_geom *geom, void *grad_weight, const pc_tensor *grad_out,
                             const pc_tensor *in, pc_call *call)
{
    if (pc_rows_serve(geom, PC_CONV_BACKWARD_WEIGHT, call->dtype)) {
        pc_rows_run_weight(geom, grad_weight, grad_out, in, call);
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
