/* pool.c: max and average pooling, forward and backward.
 *
 * A plane (one sample, one channel) is worked on by itself. Forward passes go through bands of output rows: the slab
 * of slab.h takes out the stride and fills in the padding (minus infinity for max, zero for average), and the row
 * kernels run along x with one load per tap, in row-major order of the window. Taps that lie wholly in padding over a
 * band are left out: they can neither win nor add.
 *
 *   max      the kernel reports the winner as its number in the window; the flat index in the plane follows from it.
 *            It starts at the first tap inside the image, so a window of nothing but minus infinity has an index that
 *            exists, and at -1 where a dilated window has no tap inside at all.
 *   average  sum, then one division. The divisor is the count of cells of geom.h, a product of both axes' counts.
 *
 * Backward of max pooling adds each gradient at its index: the plane is set to zero and then added to, by one thread,
 * while it is in the cache. Backward of average pooling divides each row of gradients and adds it, shifted, to the
 * rows of a slab for every tap; the slab, phases and all, is then read back into the plane. Bands are bands of input
 * rows here, and a band takes all windows that touch it, so each element's sum has one order: of its windows, rows
 * first. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/pool.h"
#include "isa/dispatch.h"
#include "ops/call.h"
#include "ops/slab.h"

enum {
    SLAB_BYTES = 128 << 10, /* input rows of a band: they pass through L2 once */
    GRAIN = 1 << 16,        /* elements moved (30 us) below which a second thread costs more than it brings */
    TOGETHER = 4,           /* planes of a global average side by side */
    TABLE = 4096,           /* taps of a window for which indices come from a table */
};

typedef struct {
    const pc_pool_geom *geom;
    pc_pool_pass pass;
    const pc_tensor *in, *grad_out, *indices_in;
    char *out;
    int64_t *indices;
    bool include_pad;
    int64_t divisor;
    atomic_bool bad_index;
    pc_call *call;
} pc_pool_pass_args;

/* `band_h` x `band_w` outputs (of average backward: input elements) at a time. */
typedef struct {
    pc_axis y, x;
    int64_t band_h, band_w;
    int64_t outputs_w; /* of a band, at most */
    int64_t elements;  /* of the slab */
} pc_pool_cut;

typedef struct {
    void *slab, *row, *taps, *divisor, *cells;
    int64_t *tap_row, *tap_column, *number, *table, *start;
} pc_pool_work;

/* The outputs whose windows touch the input elements first .. first+count-1; sets their number. */
static int64_t touching(const pc_axis *axis, int64_t first, int64_t count, int64_t *outputs)
{
    const int64_t reach = axis->base + (axis->taps - 1) * axis->delta; /* of output 0's last tap */
    const int64_t low = pc_max(0, -pc_floor_div(reach - first, axis->stride));
    const int64_t high = pc_min(axis->count - 1, pc_floor_div(first + count - 1 - axis->base, axis->stride));
    *outputs = pc_max(0, high - low + 1);
    return low;
}

static int64_t most_touching(const pc_axis *axis, int64_t count)
{
    return pc_min(axis->count, (count + (axis->taps - 1) * axis->delta) / axis->stride + 1);
}

static pc_pool_cut cut_of(const pc_pool_geom *g, pc_pool_pass pass, const pc_kernels *kernels, pc_dtype dtype)
{
    pc_pool_cut c = {.y = pc_axis_of(g->ih, g->oh, g->sh, g->pt, g->kh, g->dh, PC_PAD_ZEROS),
                     .x = pc_axis_of(g->iw, g->ow, g->sw, g->pl, g->kw, g->dw, PC_PAD_ZEROS)};
    const bool gradient = pass == PC_AVG_BACKWARD;
    const int64_t budget = SLAB_BYTES / (int64_t)pc_dtype_size(dtype);
    c.band_h = gradient ? g->ih : g->oh;
    c.band_w = gradient ? g->iw : g->ow;
    for (;;) {
        const int64_t h = gradient ? most_touching(&c.y, c.band_h) : c.band_h;
        const int64_t w = gradient ? most_touching(&c.x, c.band_w) : c.band_w;
        const int64_t step = pc_slab_most(pc_span_most(&c.y, h), pc_span_most(&c.x, w), 1, dtype);
        c.outputs_w = w;
        c.elements = step < 0 ? step : step + 2 * kernels->lanes;
        if (step >= 0 && step <= budget) {
            return c;
        }
        if (c.band_h > 1) {
            c.band_h = pc_ceil_div(c.band_h, 2);
        } else if (c.band_w > 1024) {
            c.band_w = pc_ceil_div(c.band_w, 2);
        } else {
            return c;
        }
    }
}

static pc_pool_work lay_out(pc_slice *slice, const pc_pool_cut *c, const pc_pool_geom *g, const pc_kernels *kernels,
                            pc_dtype dtype)
{
    const int64_t size = (int64_t)pc_dtype_size(dtype), row = c->outputs_w + kernels->lanes;
    int64_t taps = g->kh <= TABLE && g->kw <= TABLE ? g->kh * g->kw : TABLE + 1;
    if (c->elements < 0) {
        slice->used = -1;
    }
    return (pc_pool_work){
        .slab = pc_lay(slice, c->elements, size),
        .row = pc_lay(slice, row, size),
        .taps = pc_lay(slice, row, size),
        .divisor = pc_lay(slice, row, size),
        .cells = pc_lay(slice, row, size),
        .tap_row = pc_lay(slice, g->kh, sizeof(int64_t)),
        .tap_column = pc_lay(slice, g->kw, sizeof(int64_t)),
        .number = pc_lay(slice, g->kh, sizeof(int64_t)),
        .table = pc_lay(slice, taps <= TABLE ? taps : 1, sizeof(int64_t)),
        .start = pc_lay(slice, pc_max(row, g->iw), sizeof(int64_t)),
    };
}

/* The first tap of output `o` that lies inside, or -1. */
static int64_t first_inside(const pc_axis *axis, int64_t o)
{
    const int64_t at = o * axis->stride + axis->base;
    const int64_t k = at >= 0 ? 0 : -pc_floor_div(at, axis->delta);
    return k < axis->taps && at + k * axis->delta < axis->size ? k : -1;
}

typedef struct {
    int64_t y, rows, x, columns; /* of the pass's bands */
} pc_band;

#define T float
#define T_INT int32_t
#define PC_LOCAL(name) name##_f32
#include "ops/pool.inc.h"
#undef T
#undef T_INT
#undef PC_LOCAL
#define T double
#define T_INT int64_t
#define PC_LOCAL(name) name##_f64
#include "ops/pool.inc.h"
#undef T
#undef T_INT
#undef PC_LOCAL

/* Forward: one band of one plane. `slab`, the lists and the start taps are the band's. */
static void forward_band(const pc_pool_pass_args *p, const pc_pool_cut *cut, const pc_pool_work *work,
                         const pc_slab *slab, const pc_band *band, int64_t plane)
{
    const pc_pool_geom *g = p->geom;
    const pc_dtype dtype = p->call->dtype;
    const pc_kernels *kernels = pc_kernels_for(dtype);
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    const bool max = p->pass == PC_MAX_FORWARD;
    pc_slab_pack(slab, &cut->y, &cut->x, dtype, work->slab, p->in, plane / g->c, plane % g->c, 1,
                 max ? -INFINITY : 0.0);
    pc_pool_args row = {.taps = work->taps,
                        .divisor = work->divisor,
                        .columns = band->columns,
                        .row_count = slab->y.taps,
                        .col_count = slab->x.taps,
                        .row = work->tap_row,
                        .col = work->tap_column,
                        .tap_row = work->number};
    for (int64_t j = 0; j < band->rows; j++) {
        const int64_t y = band->y + j, at = (plane * g->oh + y) * g->ow + band->x;
        row.src = (char *)work->slab + j * slab->row_step * size;
        row.out = p->out + at * size;
        if (max && p->indices) {
            if (dtype == PC_F32) {
                start_taps_f32(work, g, first_inside(&cut->y, y), band->columns);
            } else {
                start_taps_f64(work, g, first_inside(&cut->y, y), band->columns);
            }
            kernels->max_pool_forward_taps(&row);
            if (dtype == PC_F32) {
                indices_f32(p->indices + at, work, g, band, y);
            } else {
                indices_f64(p->indices + at, work, g, band, y);
            }
        } else if (max) {
            kernels->max_pool_forward(&row);
        } else {
            if (dtype == PC_F32) {
                divisors_f32(work, p, y, band->columns);
            } else {
                divisors_f64(work, p, y, band->columns);
            }
            kernels->avg_pool_forward(&row);
        }
    }
}

/* Average backward: the input elements of one band of one plane. The slab spans the windows that touch them. */
static void backward_band(const pc_pool_pass_args *p, const pc_pool_cut *cut, const pc_pool_work *work,
                          const pc_slab *slab, const pc_band *band, int64_t plane)
{
    const pc_pool_geom *g = p->geom;
    const pc_dtype dtype = p->call->dtype;
    const pc_kernels *kernels = pc_kernels_for(dtype);
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    if (slab->y.count == 1 && slab->x.count == 1) { /* global pooling: no sums, so no slab */
        if (dtype == PC_F32) {
            divided_row_f32(work, p, plane, slab->y.first, slab->x.first, 1);
            one_window_f32(p->out, work, g, band, plane, slab->y.first, slab->x.first);
        } else {
            divided_row_f64(work, p, plane, slab->y.first, slab->x.first, 1);
            one_window_f64(p->out, work, g, band, plane, slab->y.first, slab->x.first);
        }
        return;
    }
    memset(work->slab, 0, (size_t)(slab->channel_step * size));
    pc_pool_args row = {.out = work->row,
                        .columns = slab->x.count,
                        .row_count = slab->y.taps,
                        .col_count = slab->x.taps,
                        .row = work->tap_row,
                        .col = work->tap_column};
    for (int64_t j = 0; j < slab->y.count; j++) {
        const int64_t y = slab->y.first + j;
        if (dtype == PC_F32) {
            divided_row_f32(work, p, plane, y, slab->x.first, slab->x.count);
        } else {
            divided_row_f64(work, p, plane, y, slab->x.first, slab->x.count);
        }
        row.src = (char *)work->slab + j * slab->row_step * size;
        kernels->avg_pool_backward_input(&row);
    }
    for (int64_t y = band->y; y < band->y + band->rows; y++) {
        int64_t phase, element;
        const bool found = pc_span_find(&slab->y, &cut->y, y, &phase, &element);
        const int64_t from = found ? phase * slab->x.phases * slab->plane_step + element * slab->row_step : -1;
        const int64_t at = (plane * g->ih + y) * g->iw + band->x;
        if (dtype == PC_F32) {
            read_back_f32(p->out, at, work, from, band->columns);
        } else {
            read_back_f64(p->out, at, work, from, band->columns);
        }
    }
}

/* What a band needs once for all planes. */
static pc_slab enter_band(const pc_pool_pass_args *p, const pc_pool_cut *cut, const pc_pool_work *work,
                          const pc_band *band)
{
    const bool gradient = p->pass == PC_AVG_BACKWARD;
    int64_t rows = band->rows, columns = band->columns;
    const int64_t y = gradient ? touching(&cut->y, band->y, band->rows, &rows) : band->y;
    const int64_t x = gradient ? touching(&cut->x, band->x, band->columns, &columns) : band->x;
    const pc_slab slab =
        pc_slab_of(pc_span_of(&cut->y, y, rows, true), pc_span_of(&cut->x, x, columns, true), 1, p->call->dtype);
    pc_slab_rows(&slab, &cut->y, work->tap_row);
    pc_slab_columns(&slab, &cut->x, work->tap_column);
    if (p->call->dtype == PC_F32) {
        count_cells_f32(work, p, x, columns);
    } else {
        count_cells_f64(work, p, x, columns);
    }
    if (gradient) {
        for (int64_t i = 0; i < band->columns; i++) {
            int64_t phase, element;
            const bool found = pc_span_find(&slab.x, &cut->x, band->x + i, &phase, &element);
            work->start[i] = found ? phase * slab.plane_step + element : -1;
        }
        return slab;
    }
    for (int64_t r = 0; r < slab.y.taps; r++) {
        work->number[r] = (slab.y.tap + r) * p->geom->kw + slab.x.tap;
    }
    for (int64_t i = 0; i < band->columns; i++) {
        work->start[i] = first_inside(&cut->x, band->x + i);
    }
    return slab;
}

static void run_bands(void *context, int index, int count)
{
    const pc_pool_pass_args *p = context;
    const pc_pool_geom *g = p->geom;
    const pc_kernels *kernels = pc_kernels_for(p->call->dtype);
    const pc_pool_cut cut = cut_of(g, p->pass, kernels, p->call->dtype);
    pc_slice slice = pc_slice_of(p->call, index);
    const pc_pool_work work = lay_out(&slice, &cut, g, kernels, p->call->dtype);
    const bool gradient = p->pass == PC_AVG_BACKWARD;
    const int64_t height = gradient ? g->ih : g->oh, width = gradient ? g->iw : g->ow;
    const int64_t planes = g->n * g->c;
    /* Threads take neighbouring items: outputs of a few bytes a plane would else share cache lines. */
    const int64_t items = planes * pc_ceil_div(height, cut.band_h) * pc_ceil_div(width, cut.band_w);
    const int64_t first = items / count * index + pc_min(index, items % count);
    const int64_t last = first + items / count + (index < items % count);
    int64_t number = 0;

    if (planes == 0) {
        return;
    }
    if (p->pass == PC_AVG_FORWARD && height == 1 && width == 1) {
        if (p->call->dtype == PC_F32) {
            global_averages_f32(p, &work, first, last);
        } else {
            global_averages_f64(p, &work, first, last);
        }
        return;
    }
    if (p->pass == PC_MAX_FORWARD && p->indices && g->kh <= TABLE && g->kw <= TABLE && g->kh * g->kw <= TABLE) {
        for (int64_t k = 0; k < g->kh * g->kw; k++) {
            work.table[k] = k / g->kw * g->dh * g->iw + k % g->kw * g->dw;
        }
    }
    for (int64_t y = 0; y < height; y += cut.band_h) {
        for (int64_t x = 0; x < width; x += cut.band_w) {
            const pc_band band = {y, pc_min(cut.band_h, height - y), x, pc_min(cut.band_w, width - x)};
            const int64_t before = number;
            number += planes;
            if (number <= first || before >= last) {
                continue;
            }
            const pc_slab slab = enter_band(p, &cut, &work, &band);
            for (int64_t plane = pc_max(0, first - before); plane < pc_min(planes, last - before); plane++) {
                if (gradient) {
                    backward_band(p, &cut, &work, &slab, &band, plane);
                } else {
                    forward_band(p, &cut, &work, &slab, &band, plane);
                }
                if (pc_poll(p->call)) {
                    return;
                }
            }
        }
    }
}

static void run_scatter(void *context, int index, int count)
{
    pc_pool_pass_args *p = context;
    const int64_t planes = p->geom->n * p->geom->c;
    for (int64_t plane = index; plane < planes && !pc_poll(p->call); plane += count) {
        const bool good = p->call->dtype == PC_F32 ? scatter_f32(p, plane) : scatter_f64(p, plane);
        if (!good) {
            atomic_store_explicit(&p->bad_index, true, memory_order_relaxed);
            return;
        }
    }
}

/* ---- the doors ------------------------------------------------------------------------------------------------ */

pc_status pc_pool_begin(const pc_pool_geom *geom, pc_pool_pass pass, pc_dtype dtype, int threads, pc_call *call,
                        pc_error *error)
{
    const pc_kernels *kernels = pc_kernels_for(dtype);
    const double planes = (double)geom->n * (double)geom->c;
    const double inputs = planes * (double)geom->ih * (double)geom->iw;
    const double reads = planes * (double)geom->oh * (double)geom->ow *
                         (pass == PC_MAX_BACKWARD ? 1 : (double)geom->kh * (double)geom->kw);
    int64_t bytes = 0, taps;
    if (pass != PC_MAX_BACKWARD && geom->n > 0) {
        /* float's kernels number the taps of a window in 32 bits */
        if (__builtin_mul_overflow(geom->kh, geom->kw, &taps) || (dtype == PC_F32 && taps > INT32_MAX)) {
            return pc_fail(error, PC_MEMORY_ERROR, "a window of %lld x %lld elements is too large", (long long)geom->kh,
                           (long long)geom->kw);
        }
        const pc_pool_cut cut = cut_of(geom, pass, kernels, dtype);
        pc_slice slice = {NULL, 0};
        lay_out(&slice, &cut, geom, kernels, dtype);
        bytes = slice.used;
    }
    return pc_begin(call, dtype, pc_settle(threads, inputs + reads, GRAIN), inputs + reads, bytes, 0, error);
}

void pc_max_pool_forward(const pc_pool_geom *geom, void *out, int64_t *indices, const pc_tensor *in, pc_call *call)
{
    pc_pool_pass_args p = {
        .geom = geom, .pass = PC_MAX_FORWARD, .in = in, .out = out, .indices = indices, .call = call};
    pc_pool_run(call->threads, run_bands, &p);
}

bool pc_max_pool_backward(const pc_pool_geom *geom, void *grad_in, const pc_tensor *grad_out, const pc_tensor *indices,
                          pc_call *call)
{
    pc_pool_pass_args p = {.geom = geom,
                           .pass = PC_MAX_BACKWARD,
                           .grad_out = grad_out,
                           .indices_in = indices,
                           .out = grad_in,
                           .call = call};
    pc_pool_run(call->threads, run_scatter, &p);
    return !atomic_load_explicit(&p.bad_index, memory_order_relaxed);
}

void pc_avg_pool_forward(const pc_pool_geom *geom, void *out, const pc_tensor *in, bool count_include_pad,
                         int64_t divisor, pc_call *call)
{
    pc_pool_pass_args p = {.geom = geom,
                           .pass = PC_AVG_FORWARD,
                           .in = in,
                           .out = out,
                           .include_pad = count_include_pad,
                           .divisor = divisor,
                           .call = call};
    pc_pool_run(call->threads, run_bands, &p);
}

void pc_avg_pool_backward(const pc_pool_geom *geom, void *grad_in, const pc_tensor *grad_out, bool count_include_pad,
                          int64_t divisor, pc_call *call)
{
    pc_pool_pass_args p = {.geom = geom,
                           .pass = PC_AVG_BACKWARD,
                           .grad_out = grad_out,
                           .out = grad_in,
                           .include_pad = count_include_pad,
                           .divisor = divisor,
                           .call = call};
    pc_pool_run(call->threads, run_bands, &p);
}
