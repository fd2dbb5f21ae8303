/* pool.c: max and average pooling, forward and backward.
 *
 * Each plane (one sample, one channel) is worked on by itself, in bands of output rows (average backward: input rows)
 * that fit the caches. The kernels of pool.inc.h read the planes where they lie; they deal with stride and padding
 * themselves. Here is the rest: the cut, the input whose rows have gaps (copied, band by band), and what the columns of
 * a band have in common.
 *
 *   max      an index is that of the window's corner plus what the kernel reports of the winner. It starts at the first
 *            tap inside the image, so a window of nothing but minus infinity has an index that exists, and at -1 where
 *            a dilated window has no tap inside at all.
 *   average  sum, then one division. The divisor is the count of cells of geom.h, a product of both axes' counts.
 *
 * Windows that are the whole plane have a sum of their own, vectors wide. Backward of max pooling adds each gradient at
 * its index; it knows no windows, but where they can be 2 x 2 side by side it tries that first, and writes each row once.
 * (Gathering under 3 x 3, each input comparing the indices of its nine windows with its own place, was no faster with
 * vectors of eight: compare, mask, add and count, nine times, are more work than one load, sum and store a window.)
 * Backward of average pooling divides each gradient once and gathers: each element's sum is over its windows in row-major
 * order. */
#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/checked.h"
#include "base/pool.h"
#include "isa/dispatch.h"
#include "ops/call.h"
#include "ops/slab.h"

enum {
    WORK_BYTES = 24 << 10, /* of a kernel's padded rows: they should stay in L1 */
    COPY_BYTES = 96 << 10, /* of a copied band: with the lines that it comes from, in L2 */
    PIECE = 1 << 16,       /* elements between two looks at the clock */
    NARROW = 1024,         /* columns below which a band is not cut across */
    GRAIN = 1 << 18,       /* elements moved (20 to 60 us) below which a second thread costs more than it brings */
    STRETCH = 1 << 10,     /* elements zeroed at a time */
};

typedef struct {
    const pc_pool_geom *geom;
    pc_pool_pass pass;
    pc_axis y, x;
    const pc_tensor *in, *indices_in; /* backward: `in` is grad_out */
    char *out;
    int64_t *indices;
    bool include_pad;
    bool giant; /* places in a plane do not fit the kernel's integers */
    int64_t divisor;
    atomic_bool bad_index;
    pc_call *call;
} pc_pool_pass_args;

/* `band_h` x `band_w` outputs (of average backward: input elements) at a time, and the most elements that takes. */
typedef struct {
    int64_t band_h, band_w;
    int64_t work, copy;    /* of the kernel's scratch, of a copied band */
    int64_t rows, columns; /* of the lists that go with them */
} pc_pool_cut;

typedef struct {
    void *work, *copy, *cells, *row_cells, *start, *place;
} pc_pool_work;

typedef struct {
    int64_t y, rows, x, columns; /* of the pass's outputs */
    int64_t tap, taps;           /* the columns of the window that matter */
    int64_t src_y, src_rows, src_x, src_columns;
} pc_band;

/* The first tap of output `o` that lies inside, or -1. */
static int64_t first_inside(const pc_axis *axis, int64_t o)
{
    const int64_t at = o * axis->stride + axis->base;
    const int64_t k = at >= 0 ? 0 : -pc_floor_div(at, axis->delta);
    return k < axis->taps && at + k * axis->delta < axis->size ? k : -1;
}

/* Can the windows of a backward pass be 2 x 2 side by side? */
static bool may_be_pairs(const pc_pool_geom *g, const pc_kernels *kernels)
{
    return g->ih / 2 == g->oh && g->iw / 2 == g->ow && g->ow >= kernels->lanes && g->ih * g->iw <= INT32_MAX;
}

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

/* A function of pool.inc.h for the call's dtype. */
#define PC_FOR(dtype, name, ...) ((dtype) == PC_F32 ? name##_f32(__VA_ARGS__) : name##_f64(__VA_ARGS__))

/* ---- the cut ---- */

static pc_axis y_axis(const pc_pool_geom *g)
{
    return pc_axis_of(g->ih, g->oh, g->sh, g->pt, g->kh, g->dh, PC_PAD_ZEROS);
}
static pc_axis x_axis(const pc_pool_geom *g)
{
    return pc_axis_of(g->iw, g->ow, g->sw, g->pl, g->kw, g->dw, PC_PAD_ZEROS);
}

/* Source positions between the first and the last that `count` outputs look at, those included. Taps that only see
 * padding are left out, so a window far larger than the source costs no memory. */
static int64_t most_span(const pc_axis *axis, int64_t count)
{
    const int64_t outputs = (count - 1) * axis->stride;
    return outputs + pc_min((axis->taps - 1) * axis->delta, outputs + axis->size - 1) + 1;
}

/* Outputs whose windows touch `count` neighbouring input elements. */
static int64_t most_touching(const pc_axis *axis, int64_t count)
{
    return pc_min(axis->count, (count + (axis->taps - 1) * axis->delta) / axis->stride + 2);
}

/* The same with the windows that would touch them if there were any. */
static int64_t most_staged(const pc_axis *axis, int64_t count)
{
    const int64_t windows = count / axis->stride + 2;
    return windows + pc_min(pc_ceil_div(axis->taps, axis->stride), windows + axis->count);
}

static bool hangs_over(const pc_axis *axis)
{
    return axis->base < 0 ||
           (axis->count - 1) * axis->stride + (axis->taps - 1) * axis->delta >= axis->size - axis->base;
}

static pc_pool_cut cut_of(const pc_pool_geom *g, pc_pool_pass pass, bool gaps, const pc_kernels *kernels,
                          pc_dtype dtype)
{
    const pc_axis y = y_axis(g), x = x_axis(g);
    const bool gradient = pass == PC_AVG_BACKWARD;
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    pc_pool_cut c = {.band_h = gradient ? g->ih : g->oh, .band_w = gradient ? g->iw : g->ow};
    for (;;) {
        int64_t rows = gradient ? most_touching(&y, c.band_h) : pc_min(g->ih, most_span(&y, c.band_h));
        int64_t columns = gradient ? most_touching(&x, c.band_w) : pc_min(g->iw, most_span(&x, c.band_w));
        /* Rows shorter than a vector are padded where nothing behind them may be read. */
        const bool narrow = pass == PC_MAX_INDICES && (g->ow < kernels->lanes || c.band_w < g->ow);
        int64_t work_rows = gradient || narrow || hangs_over(&x) ? rows : 0;
        if (pass == PC_MAX_FORWARD) { /* rows shorter than a vector are done as the others are */
            work_rows = g->ow < kernels->lanes ? pc_max(rows, PC_POOL_ROWS) : PC_POOL_ROWS;
        }
        int64_t width = gradient ? most_staged(&x, c.band_w) : most_span(&x, c.band_w), piece;
        const bool sane = !pc_mul(&c.work, work_rows, width) && !pc_mul(&c.copy, gaps ? rows : 0, columns) &&
                          !pc_mul(&piece, pc_max(rows, c.band_h), pc_max(columns, c.band_w)) && c.work < INT64_MAX / 64;
        c.work += (PC_POOL_ROWS + 4) * kernels->lanes;
        c.rows = gradient ? rows : c.band_h;
        c.columns = (gradient ? columns : c.band_w) + kernels->lanes;
        if (sane && c.work <= WORK_BYTES / size && c.copy <= COPY_BYTES / size && piece <= PIECE) {
            return c;
        }
        if (c.band_h > 1) {
            c.band_h = pc_ceil_div(c.band_h, 2);
        } else if (c.band_w > NARROW) {
            c.band_w = pc_ceil_div(c.band_w, 2);
        } else {
            c.work = sane ? c.work : -1;
            return c;
        }
    }
}

static int64_t bands_of(const pc_pool_cut *c, int64_t height, int64_t width)
{
    return pc_ceil_div(height, c->band_h) * pc_ceil_div(width, c->band_w);
}

static pc_pool_work lay_out(pc_slice *slice, const pc_pool_cut *c, pc_dtype dtype)
{
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    if (c->work < 0) {
        slice->used = -1;
    }
    return (pc_pool_work){
        .work = pc_lay(slice, c->work, size),
        .copy = pc_lay(slice, c->copy, size),
        .cells = pc_lay(slice, c->columns, size),
        .row_cells = pc_lay(slice, c->rows, size),
        .start = pc_lay(slice, c->columns, size),
        .place = pc_lay(slice, c->columns, size),
    };
}

/* ---- bands ---- */

/* The source positions that the outputs first .. first+count-1 look at through taps *tap .. *tap+*taps-1, those that
 * see anything but padding (or one of them all, where none does). */
static int64_t look(const pc_axis *axis, int64_t first, int64_t count, int64_t *tap, int64_t *taps, int64_t *positions)
{
    const int64_t start = first * axis->stride + axis->base, end = start + (count - 1) * axis->stride;
    *tap = end >= 0 ? 0 : pc_min(axis->taps - 1, pc_ceil_div(-end, axis->delta));
    const int64_t behind = start < axis->size ? (axis->size - 1 - start) / axis->delta + 1 : 0;
    *taps = pc_max(1, pc_min(axis->taps, behind) - *tap);
    const int64_t low = pc_max(0, start + *tap * axis->delta);
    *positions = pc_max(0, pc_min(axis->size, end + (*tap + *taps - 1) * axis->delta + 1) - low);
    return *positions ? low : 0;
}

/* The outputs whose windows touch the input elements first .. first+count-1, from one on that starts at or before the
 * first of them. */
static int64_t touching(const pc_axis *axis, int64_t first, int64_t count, int64_t *outputs)
{
    const int64_t at = first - axis->base, reach = axis->taps - 1; /* in the padded image */
    const int64_t low = pc_min(at < reach ? 0 : pc_ceil_div(at - reach, axis->stride), at / axis->stride);
    *outputs = pc_max(0, pc_min(axis->count, (at + count - 1) / axis->stride + 1) - low);
    return low;
}

/* A band, and what it needs once for all planes. */
static pc_band enter_band(const pc_pool_pass_args *p, const pc_pool_work *work, int64_t y, int64_t rows, int64_t x,
                          int64_t columns)
{
    const pc_dtype dtype = p->call->dtype;
    const int64_t lanes = pc_narrow_kernels_for(dtype)->lanes;
    pc_band b = {.y = y, .rows = rows, .x = x, .columns = columns};
    if (p->pass == PC_AVG_BACKWARD) {
        b.src_y = touching(&p->y, y, rows, &b.src_rows);
        b.src_x = touching(&p->x, x, columns, &b.src_columns);
        PC_FOR(dtype, count_cells, p, work->row_cells, &p->y, b.src_y, b.src_rows, b.src_rows);
        PC_FOR(dtype, count_cells, p, work->cells, &p->x, b.src_x, b.src_columns, b.src_columns + lanes);
        return b;
    }
    int64_t tap, taps;
    b.src_y = look(&p->y, y, rows, &tap, &taps, &b.src_rows);
    b.src_x = look(&p->x, x, columns, &b.tap, &b.taps, &b.src_columns);
    if (p->pass == PC_AVG_FORWARD) {
        PC_FOR(dtype, count_cells, p, work->row_cells, &p->y, y, rows, rows);
        PC_FOR(dtype, count_cells, p, work->cells, &p->x, x, columns, columns + lanes);
    } else if (p->pass == PC_MAX_INDICES) {
        PC_FOR(dtype, number_columns, work, p, &b, lanes);
    }
    return b;
}

/* `planes` planes of a band from plane `plane` on. */
static void run_band(const pc_pool_pass_args *p, const pc_pool_work *work, const pc_band *b, int64_t plane,
                     int64_t planes)
{
    const pc_pool_geom *g = p->geom;
    const pc_dtype dtype = p->call->dtype;
    const pc_kernels *kernels = pc_narrow_kernels_for(dtype);
    const int64_t size = (int64_t)pc_dtype_size(dtype), *step = p->in->step;
    const bool gradient = p->pass == PC_AVG_BACKWARD, giant = p->giant;
    const int64_t width = gradient ? g->iw : g->ow;
    const int64_t src_width = gradient ? g->ow : g->iw, src_height = gradient ? g->oh : g->ih;
    const int64_t at = (plane * (gradient ? g->ih : g->oh) + b->y) * width + b->x;
    const char *src =
        (const char *)p->in->data +
        (plane / g->c * step[0] + plane % g->c * step[1] + b->src_y * step[2] + b->src_x * step[3]) * size;
    /* The first output's first tap, or the first input, seen from the corner of the source. */
    const int64_t y = b->y * g->sh - g->pt, x = b->x * g->sw - g->pl + b->tap * g->dw;
    pc_pool_args a = {.out = p->out + at * size,
                      .indices = p->indices ? p->indices + at : NULL,
                      .src = src,
                      .planes = planes,
                      .src_plane = step[1],
                      .rows = b->rows,
                      .columns = b->columns,
                      .out_row = width,
                      .src_rows = b->src_rows,
                      .src_columns = b->src_columns,
                      .src_row = step[2],
                      /* Beyond the last window: 14 columns under 6 windows of 3 took a third longer without. */
                      .readable = step[2] == src_width ? (src_height - b->src_y) * src_width - b->src_x : 0,
                      .kh = g->kh,
                      .kw = gradient ? g->kw : b->taps,
                      .sh = g->sh,
                      .sw = g->sw,
                      .dh = g->dh,
                      .dw = g->dw,
                      .top = gradient ? b->y + g->pt - b->src_y * g->sh : y - b->src_y,
                      .left = gradient ? b->x + g->pl - b->src_x * g->sw : x - b->src_x,
                      .cells = work->cells,
                      .row_cells = work->row_cells,
                      .start = work->start,
                      .place = work->place,
                      .base = giant ? 0 : y * g->iw + x,
                      .base_row = giant ? 0 : g->sh * g->iw,
                      .row_number = giant ? g->kw : g->dh * g->iw,
                      .column_number = giant ? 1 : g->dw,
                      .work = work->work};
    /* The kernel's rows, as wide as what their taps look at. */
    assert(gradient || (p->pass == PC_MAX_FORWARD && g->ow >= kernels->lanes) ||
           !(hangs_over(&p->x) || (p->pass == PC_MAX_INDICES && b->columns < kernels->lanes)) ||
           (const char *)work->copy - (const char *)work->work >=
               (b->src_rows * ((b->columns - 1) * g->sw + (b->taps - 1) * g->dw + 1) + kernels->lanes) * size);
    assert(p->pass != PC_MAX_FORWARD ||
           (const char *)work->copy - (const char *)work->work >=
               PC_POOL_ROWS * ((b->columns - 1) * g->sw + (b->taps - 1) * g->dw + 1 + kernels->lanes) * size);
    if (step[3] != 1) {
        assert((const char *)work->cells - (const char *)work->copy >= b->src_rows * b->src_columns * size);
        PC_FOR(dtype, copy, work->copy, p->in, src, b->src_rows, b->src_columns);
        a.src = work->copy;
        a.src_row = b->src_columns;
        a.readable = b->src_rows * b->src_columns;
    }
    if (gradient) {
        kernels->avg_pool_backward_input(&a);
    } else if (p->pass == PC_AVG_FORWARD) {
        kernels->avg_pool_forward(&a);
    } else if (p->pass == PC_MAX_FORWARD) {
        kernels->max_pool_forward(&a);
    } else {
        kernels->max_pool_forward_taps(&a);
        if (giant || g->dh > 1 || g->dw > 1) {
            for (int64_t k = 0; k < planes; k++) {
                PC_FOR(dtype, mend_indices, p, b, a.indices + k * g->oh * g->ow);
            }
        }
    }
}

static void run_bands(void *context, int index, int count)
{
    const pc_pool_pass_args *p = context;
    const pc_pool_geom *g = p->geom;
    const pc_dtype dtype = p->call->dtype;
    const int64_t *step = p->in->step;
    const bool gradient = p->pass == PC_AVG_BACKWARD;
    const int64_t planes = g->n * g->c;
    if (planes == 0) { /* nothing was laid */
        return;
    }
    const pc_pool_cut cut = cut_of(g, p->pass, step[3] != 1, pc_narrow_kernels_for(dtype), dtype);
    pc_slice slice = pc_slice_of(p->call, index);
    const pc_pool_work work = lay_out(&slice, &cut, dtype);
    const int64_t height = gradient ? g->ih : g->oh, width = gradient ? g->iw : g->ow;
    /* Threads take neighbouring items: outputs of a few bytes a plane would else share cache lines. */
    const int64_t items = planes * bands_of(&cut, height, width);
    const int64_t first = items / count * index + pc_min(index, items % count);
    const int64_t last = first + items / count + (index < items % count);
    int64_t number = 0;

    /* Small planes go through a kernel together: calls would else be a good part of their time. */
    const bool whole = cut.band_h == height && cut.band_w == width && step[3] == 1;
    const int64_t most = whole ? pc_max(1, PIECE / pc_max(g->ih * g->iw, g->oh * g->ow)) : 1;
    for (int64_t y = 0; y < height; y += cut.band_h) {
        for (int64_t x = 0; x < width; x += cut.band_w) {
            const int64_t before = number;
            number += planes;
            if (number <= first || before >= last) {
                continue;
            }
            const pc_band band =
                enter_band(p, &work, y, pc_min(cut.band_h, height - y), x, pc_min(cut.band_w, width - x));
            const int64_t end = pc_min(planes, last - before);
            for (int64_t plane = pc_max(0, first - before), together; plane < end; plane += together) {
                together = pc_min(most, end - plane);
                if (step[0] != g->c * step[1]) {
                    together = pc_min(together, g->c - plane % g->c);
                }
                run_band(p, &work, &band, plane, together);
                if (pc_poll(p->call)) {
                    return;
                }
            }
        }
    }
}

/* Passes that know no bands: whole planes, one after the other. */
static void run_planes(void *context, int index, int count)
{
    pc_pool_pass_args *p = context;
    const int64_t planes = p->geom->n * p->geom->c;
    const int64_t first = planes / count * index + pc_min(index, planes % count);
    const int64_t last = first + planes / count + (index < planes % count);
    if (p->pass == PC_AVG_FORWARD) {
        PC_FOR(p->call->dtype, global_averages, p, first, last);
    } else if (p->pass == PC_AVG_BACKWARD) {
        PC_FOR(p->call->dtype, global_gradients, p, first, last);
    } else if (!PC_FOR(p->call->dtype, scatter_planes, p, first, last)) {
        atomic_store_explicit(&p->bad_index, true, memory_order_relaxed);
    }
}

/* ---- the doors ------------------------------------------------------------------------------------------------ */

static bool is_by_planes(const pc_pool_geom *g, pc_pool_pass pass)
{
    return pass == PC_MAX_BACKWARD || ((pass == PC_AVG_FORWARD || pass == PC_AVG_BACKWARD) && g->oh == 1 && g->ow == 1);
}

/* Are there places, as seen from the corner of a row's first window, that do not fit 32 bits? */
static bool is_giant(const pc_pool_geom *g)
{
    int64_t rows, places;
    return pc_mul(&rows, (g->kh - 1) * g->dh, g->iw) ||
           pc_add(&places, rows, (g->kw - 1) * g->dw + (g->ow - 1) * g->sw) || places > INT32_MAX;
}

pc_status pc_pool_begin(const pc_pool_geom *geom, pc_pool_pass pass, const pc_tensor *in, pc_dtype dtype, int threads,
                        pc_call *call, pc_error *error)
{
    const double planes = (double)geom->n * (double)geom->c;
    const double inputs = planes * (double)geom->ih * (double)geom->iw;
    const double reads = planes * (double)geom->oh * (double)geom->ow *
                         (pass == PC_MAX_BACKWARD ? 1 : (double)geom->kh * (double)geom->kw);
    int64_t taps;
    pc_slice slice = {0};
    if (!is_by_planes(geom, pass) && geom->n > 0) {
        if (pass == PC_MAX_INDICES && dtype == PC_F32 && is_giant(geom) &&
            (pc_mul(&taps, geom->kh, geom->kw) || taps > INT32_MAX)) {
            return pc_fail(error, PC_MEMORY_ERROR, "a window of %lld x %lld elements is too large", (long long)geom->kh,
                           (long long)geom->kw);
        }
        const pc_pool_cut cut = cut_of(geom, pass, in->step[3] != 1, pc_narrow_kernels_for(dtype), dtype);
        lay_out(&slice, &cut, dtype);
    }
    return pc_begin(call, dtype, pc_settle(threads, inputs + reads, GRAIN), inputs + reads, slice.used, 0, error);
}

static pc_pool_pass_args pass_of(const pc_pool_geom *geom, pc_pool_pass pass, void *out, const pc_tensor *in,
                                 pc_call *call)
{
    return (pc_pool_pass_args){
        .geom = geom, .pass = pass, .y = y_axis(geom), .x = x_axis(geom), .in = in, .out = out, .call = call};
}

static void run(pc_pool_pass_args *p)
{
    pc_pool_run(p->call->threads, is_by_planes(p->geom, p->pass) ? run_planes : run_bands, p);
}

void pc_max_pool_forward(const pc_pool_geom *geom, void *out, int64_t *indices, const pc_tensor *in, pc_call *call)
{
    pc_pool_pass_args p = pass_of(geom, indices ? PC_MAX_INDICES : PC_MAX_FORWARD, out, in, call);
    p.indices = indices;
    p.giant = call->dtype == PC_F32 && is_giant(geom);
    run(&p);
}

bool pc_max_pool_backward(const pc_pool_geom *geom, void *grad_in, const pc_tensor *grad_out, const pc_tensor *indices,
                          pc_call *call)
{
    pc_pool_pass_args p = pass_of(geom, PC_MAX_BACKWARD, grad_in, grad_out, call);
    p.indices_in = indices;
    run(&p);
    return !atomic_load_explicit(&p.bad_index, memory_order_relaxed);
}

void pc_avg_pool_forward(const pc_pool_geom *geom, void *out, const pc_tensor *in, bool count_include_pad,
                         int64_t divisor, pc_call *call)
{
    pc_pool_pass_args p = pass_of(geom, PC_AVG_FORWARD, out, in, call);
    p.include_pad = count_include_pad;
    p.divisor = divisor;
    run(&p);
}

void pc_avg_pool_backward(const pc_pool_geom *geom, void *grad_in, const pc_tensor *grad_out, bool count_include_pad,
                          int64_t divisor, pc_call *call)
{
    pc_pool_pass_args p = pass_of(geom, PC_AVG_BACKWARD, grad_in, grad_out, call);
    p.include_pad = count_include_pad;
    p.divisor = divisor;
    run(&p);
}

/* ---- what a call will do (explain.h) ---------------------------------------------------------------------------- */

void pc_pool_explain(const pc_pool_geom *g, pc_pool_pass pass, pc_call *call, pc_plan *plan)
{
    static const char *const names[] = {
        [PC_MAX_FORWARD] = "max_pool_forward",
        [PC_MAX_INDICES] = "max_pool_forward_taps",
        [PC_AVG_FORWARD] = "avg_pool_forward",
        [PC_AVG_BACKWARD] = "avg_pool_backward_input",
    };
    const pc_kernels *kernels = pc_narrow_kernels_for(call->dtype);
    const bool gradient = pass == PC_AVG_BACKWARD;
    memset(plan, 0, sizeof *plan);
    if (g->n == 0) {
        return;
    }
    plan->phases = 1;
    plan->items = g->n * g->c;
    if (is_by_planes(g, pass)) {
        const bool pairs = pass == PC_MAX_BACKWARD && may_be_pairs(g, kernels);
        plan->family = pass == PC_MAX_BACKWARD ? "scatter" : "whole planes";
        plan->form = pairs ? "pairs of rows first" : "";
        plan->kernel = pairs ? "max_pool_backward_pairs" : pass == PC_AVG_FORWARD ? "avg_pool_planes" : NULL;
        return;
    }
    const pc_pool_cut c = cut_of(g, pass, false, kernels, call->dtype);
    plan->family = "rows";
    plan->form = "in place";
    plan->kernel = names[pass];
    plan->items *= bands_of(&c, gradient ? g->ih : g->oh, gradient ? g->iw : g->ow);
    pc_plan_add(plan, "band_rows", c.band_h);
    pc_plan_add(plan, "band_columns", c.band_w);
    pc_plan_add(plan, "work_elements", c.work);
}
