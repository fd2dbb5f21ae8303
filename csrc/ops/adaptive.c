/* adaptive.c: adaptive average pooling, forward and backward.
 *
 * Where both sizes divide, the windows are those of an average pool with stride = kernel, and pool.c does the work if
 * they are small (see is_regular). Elsewhere a window has one of two lengths per axis, and neighbours overlap by at
 * most one element (or repeat, where the output is larger than the image). Along an axis the windows are spans of the
 * input, and what an element of the input has its gradient from is a span of the windows, so each pass is two sums over
 * spans, by one kernel:
 *
 *     forward    rows[y]    = sum of in[r] over the span of window row y        lanes run along x
 *                turned     = rows, columns and rows exchanged                  lanes are rows, of many planes
 *                sums[x]    = sum of turned[c] over the span of window column x
 *                out        = sums / height / width, turned back
 *     backward   shares     = grad_out / height / width, turned
 *                turned[c]  = sum of shares[x] over the windows that hold column c
 *                rows       = turned, turned back
 *                grad_in[r] = sum of rows[y] over the windows that hold row r
 *
 * Maps are small where such layers stand, so several planes are done at a time, as many as make long lanes; a large
 * plane is done in bands. (Plane by plane, with the sums along x element by element, maps of 14 x 14 took twice and maps
 * of 7 x 7 three times as long. With planes as lanes throughout, which turns what is read instead of its sums, maps that
 * come from memory took twice as long, maps of 7 x 7 from a cache 0.7 times.) */
#include <assert.h>
#include <string.h>

#include "base/pool.h"
#include "isa/dispatch.h"
#include "ops/call.h"

enum {
    GRAIN = 1 << 16, /* elements moved below which a second thread costs more than it brings */
    BLOCK = 1 << 13, /* elements of `rows` and of `sums` that are worked on at a time: they stay in L1 and L2 */
    WIDE = 4,        /* windows of so many columns are faster here than in the average pool */
};

/* Spans of one axis: `count` neighbours from `first` on. */
typedef struct {
    int64_t *first, *count;
} adaptive_spans;

typedef struct {
    void *rows, *turned, *sums;
    void *heights; /* of each lane */
} adaptive_work;

typedef struct {
    const pc_adaptive_geom *geom;
    const pc_tensor *from; /* in, or the gradient of out */
    bool backward;
    char *to;
    pc_call *call;
    int64_t planes, band; /* of an item: so many planes, so many rows of what is written */
    int64_t lanes;        /* of an item, at most: window rows */
    int64_t bands, items;
    adaptive_spans y, x;       /* the windows */
    adaptive_spans to_y, to_x; /* the windows that hold a row, a column: backward alone */
} adaptive_pass;

static bool is_identity(const pc_adaptive_geom *g) { return g->oh == g->ih && g->ow == g->iw; }

static bool is_power_of_two(int64_t n) { return (n & (n - 1)) == 0; }

/* Is it left to the average pool, which divides once, by height * width? Here each sum is divided by the height and then
 * by the width, as torch does, but for a single output; that is the same where one of the divisions is exact. */
static bool is_regular(const pc_adaptive_geom *g)
{
    if (is_identity(g) || g->oh == 0 || g->ow == 0 || g->ih % g->oh != 0 || g->iw % g->ow != 0) {
        return false;
    }
    const int64_t height = g->ih / g->oh, width = g->iw / g->ow;
    return (g->oh == 1 && g->ow == 1) || (width < WIDE && (is_power_of_two(height) || is_power_of_two(width)));
}

static pc_pool_geom pool_of(const pc_adaptive_geom *g)
{
    return (pc_pool_geom){.n = g->n,
                          .c = g->c,
                          .ih = g->ih,
                          .iw = g->iw,
                          .oh = g->oh,
                          .ow = g->ow,
                          .kh = g->ih / g->oh,
                          .kw = g->iw / g->ow,
                          .sh = g->ih / g->oh,
                          .sw = g->iw / g->ow,
                          .dh = 1,
                          .dw = 1};
}

/* ---- how it is cut ---- */

static adaptive_pass pass_of(const pc_adaptive_geom *g, bool backward, const pc_tensor *from, void *to, pc_call *call)
{
    adaptive_pass p = {.geom = g, .backward = backward, .from = from, .to = to, .call = call, .planes = 1};
    const int64_t written = backward ? g->ih : g->oh;
    const int64_t most = pc_max(1, BLOCK / pc_max(g->iw, g->ow)); /* window rows in a block */
    p.band = written;
    p.lanes = g->oh;
    if (g->oh > most) {
        p.band = backward ? pc_max(1, most * g->ih / g->oh) : most;
        p.lanes = backward ? pc_min(g->oh, pc_ceil_div(p.band * g->oh, g->ih) + 1) : most;
    } else if (g->oh > 0) {
        p.planes = pc_max(1, pc_min(g->n * g->c, most / g->oh));
        p.lanes = p.planes * g->oh;
    }
    p.bands = pc_ceil_div(written, pc_max(1, p.band));
    p.items = pc_ceil_div(g->n * g->c, p.planes) * p.bands;
    return p;
}

static adaptive_work lay_out(pc_slice *slice, const adaptive_pass *p, pc_dtype dtype)
{
    const pc_adaptive_geom *g = p->geom;
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    return (adaptive_work){.rows = pc_lay(slice, p->lanes, g->iw * size),
                           .turned = pc_lay(slice, p->lanes, g->iw * size),
                           .sums = pc_lay(slice, p->lanes, g->ow * size),
                           .heights = pc_lay(slice, p->lanes, size)};
}

static adaptive_spans lay_spans(pc_slice *slice, int64_t count)
{
    return (adaptive_spans){pc_lay(slice, count, sizeof(int64_t)), pc_lay(slice, count, sizeof(int64_t))};
}

/* What all threads share. */
static void lay_out_shared(adaptive_pass *p, pc_slice *slice)
{
    p->y = lay_spans(slice, p->geom->oh);
    p->x = lay_spans(slice, p->geom->ow);
    if (p->backward) {
        p->to_y = lay_spans(slice, p->geom->ih);
        p->to_x = lay_spans(slice, p->geom->iw);
    }
}

static void find_windows(const adaptive_spans *windows, int64_t size, int64_t count)
{
    for (int64_t o = 0; o < count; o++) {
        windows->first[o] = pc_adaptive_window(size, count, o, &windows->count[o]);
    }
}

/* The windows that hold an element: neighbours, and at least one where there is one at all. */
static void find_holders(const adaptive_spans *holders, int64_t size, const adaptive_spans *windows, int64_t count)
{
    memset(holders->count, 0, (size_t)size * sizeof *holders->count);
    for (int64_t o = 0; o < count; o++) {
        for (int64_t i = windows->first[o]; i < windows->first[o] + windows->count[o]; i++) {
            holders->first[i] = holders->count[i] == 0 ? o : holders->first[i];
            holders->count[i] = o + 1 - holders->first[i];
        }
    }
}

static int64_t reach_of(const adaptive_spans *spans, int64_t first, int64_t count)
{
    return spans->first[first + count - 1] + spans->count[first + count - 1] - spans->first[first];
}

/* ---- a block: some planes, some rows of each ---- */

#define T float
#define PC_LOCAL(name) name##_f32
#include "ops/adaptive.inc.h"
#undef T
#undef PC_LOCAL
#define T double
#define PC_LOCAL(name) name##_f64
#include "ops/adaptive.inc.h"
#undef T
#undef PC_LOCAL

static void gather(const adaptive_pass *p, void *to, int64_t row_step, int64_t column_step, int64_t plane,
                   int64_t planes, int64_t y, int64_t rows)
{
    if (p->call->dtype == PC_F32) {
        gather_f32(p, to, row_step, column_step, plane, planes, y, rows);
    } else {
        gather_f64(p, to, row_step, column_step, plane, planes, y, rows);
    }
}

/* Can the kernels read some planes where they lie? The elements of a row must be side by side, and planes at one
 * distance. */
static bool is_even(const adaptive_pass *p, int64_t planes)
{
    const pc_adaptive_geom *g = p->geom;
    const int64_t *step = p->from->step, width = p->backward ? g->ow : g->iw;
    return (step[3] == 1 || width == 1) && (planes == 1 || g->n == 1 || g->c == 1 || step[0] == g->c * step[1]);
}

static int64_t plane_step(const adaptive_pass *p) { return p->from->step[p->geom->c == 1 ? 0 : 1]; }

/* Are all rows of some planes at one distance? */
static bool are_lanes(const adaptive_pass *p, int64_t planes, int64_t rows)
{
    return is_even(p, planes) && (planes == 1 || plane_step(p) == rows * p->from->step[2]);
}

static const void *row_of(const adaptive_pass *p, int64_t plane, int64_t y)
{
    return p->call->dtype == PC_F32 ? (const void *)row_of_f32(p, plane, y) : row_of_f64(p, plane, y);
}

/* out[j * rows + i] = in[i * in_step + j] */
static void turn(const adaptive_pass *p, void *out, const void *in, int64_t in_step, int64_t rows, int64_t columns)
{
    pc_kernels_for(p->call->dtype)
        ->transpose(&(pc_transpose_args){
            .out = out, .out_step = rows, .in = in, .in_step = in_step, .rows = rows, .columns = columns});
}

/* The sums along x, of `lanes` rows side by side. */
static void sum_columns(const adaptive_pass *p, void *out, const void *in, const adaptive_spans *spans, int64_t count,
                        int64_t lanes)
{
    pc_kernels_for(p->call->dtype)
        ->span_sums(&(pc_span_args){.out = out,
                                    .in = in,
                                    .first = spans->first,
                                    .count = spans->count,
                                    .planes = 1,
                                    .spans = count,
                                    .step = lanes,
                                    .columns = lanes});
}

/* sums /= height / width; the lanes are the window rows y .. y+rows-1 of each plane. */
static void divide(const adaptive_pass *p, const adaptive_work *work, int64_t planes, int64_t y, int64_t rows)
{
    if (p->call->dtype == PC_F32) {
        divide_f32(p, work, planes, y, rows);
    } else {
        divide_f64(p, work, planes, y, rows);
    }
}

/* work->rows = the sums down the columns. */
static void sum_rows(const adaptive_pass *p, const adaptive_work *work, int64_t plane, int64_t planes, int64_t y,
                     int64_t rows)
{
    if (is_even(p, planes)) {
        pc_kernels_for(p->call->dtype)
            ->span_sums(&(pc_span_args){.out = work->rows,
                                        .in = row_of(p, plane, p->y.first[y]),
                                        .first = p->y.first + y,
                                        .count = p->y.count + y,
                                        .planes = planes,
                                        .plane_step = plane_step(p),
                                        .spans = rows,
                                        .step = p->from->step[2],
                                        .columns = p->geom->iw});
    } else if (p->call->dtype == PC_F32) {
        sum_rows_f32(p, work->rows, plane, planes, y, rows);
    } else {
        sum_rows_f64(p, work->rows, plane, planes, y, rows);
    }
}

static void forward_block(const adaptive_pass *p, const adaptive_work *work, int64_t plane, int64_t planes, int64_t y,
                          int64_t rows)
{
    const pc_adaptive_geom *g = p->geom;
    const int64_t lanes = planes * rows;
    assert(lanes <= p->lanes);
    sum_rows(p, work, plane, planes, y, rows);
    turn(p, work->turned, work->rows, g->iw, lanes, g->iw);
    sum_columns(p, work->sums, work->turned, &p->x, g->ow, lanes);
    divide(p, work, planes, y, rows);
    char *out = p->to + (plane * g->oh + y) * g->ow * (int64_t)pc_dtype_size(p->call->dtype);
    turn(p, out, work->sums, lanes, g->ow, lanes);
}

static void backward_block(const adaptive_pass *p, const adaptive_work *work, int64_t plane, int64_t planes, int64_t y,
                           int64_t rows)
{
    const pc_adaptive_geom *g = p->geom;
    const int64_t first = p->to_y.first[y], windows = reach_of(&p->to_y, y, rows), lanes = planes * windows;
    assert(lanes <= p->lanes);
    if (are_lanes(p, planes, windows)) {
        turn(p, work->sums, row_of(p, plane, first), p->from->step[2], lanes, g->ow);
    } else {
        gather(p, work->sums, 1, lanes, plane, planes, first, windows);
    }
    divide(p, work, planes, first, windows);
    sum_columns(p, work->turned, work->sums, &p->to_x, g->iw, lanes);
    turn(p, work->rows, work->turned, lanes, g->iw, lanes);
    const pc_span_args down = {.out = p->to + (plane * g->ih + y) * g->iw * (int64_t)pc_dtype_size(p->call->dtype),
                               .in = work->rows,
                               .first = p->to_y.first + y,
                               .count = p->to_y.count + y,
                               .planes = planes,
                               .plane_step = windows * g->iw,
                               .spans = rows,
                               .step = g->iw,
                               .columns = g->iw};
    pc_kernels_for(p->call->dtype)->span_sums(&down);
}

static void run_items(void *context, int index, int count)
{
    const adaptive_pass *p = context;
    const pc_adaptive_geom *g = p->geom;
    const int64_t height = p->backward ? g->ih : g->oh, width = p->backward ? g->iw : g->ow;
    pc_slice slice = pc_slice_of(p->call, index);
    const adaptive_work work = lay_out(&slice, p, p->call->dtype);
    const int64_t first = p->items / count * index + pc_min(index, p->items % count);
    const int64_t last = first + p->items / count + (index < p->items % count);
    for (int64_t item = first; item < last && !pc_poll(p->call); item++) {
        const int64_t plane = item / p->bands * p->planes, planes = pc_min(p->planes, g->n * g->c - plane);
        const int64_t y = item % p->bands * p->band, rows = pc_min(p->band, height - y);
        const int64_t size = (int64_t)pc_dtype_size(p->call->dtype);
        if (is_identity(g)) {
            char *to = p->to + (plane * height + y) * width * size;
            if (p->from->step[2] == width && are_lanes(p, planes, rows)) {
                memcpy(to, row_of(p, plane, y), (size_t)(planes * rows * width * size));
            } else {
                gather(p, to, width, 1, plane, planes, y, rows);
            }
        } else if (g->oh == 0 || g->ow == 0) { /* no window, no gradient */
            memset(p->to + (plane * height + y) * width * size, 0, (size_t)(planes * rows * width * size));
        } else if (p->backward) {
            backward_block(p, &work, plane, planes, y, rows);
        } else {
            forward_block(p, &work, plane, planes, y, rows);
        }
    }
}

static void run(adaptive_pass *p)
{
    const pc_adaptive_geom *g = p->geom;
    pc_slice slice = {p->call->shared, 0, (int64_t)p->call->shared_size};
    lay_out_shared(p, &slice);
    find_windows(&p->y, g->ih, g->oh);
    find_windows(&p->x, g->iw, g->ow);
    if (p->backward) {
        find_holders(&p->to_y, g->ih, &p->y, g->oh);
        find_holders(&p->to_x, g->iw, &p->x, g->ow);
    }
    pc_pool_run(p->call->threads, run_items, p);
}

/* ---- the doors ---- */

pc_status pc_adaptive_begin(const pc_adaptive_geom *geom, bool backward, const pc_tensor *in, pc_dtype dtype,
                            int threads, pc_call *call, pc_error *error)
{
    if (is_regular(geom)) {
        const pc_pool_geom pool = pool_of(geom);
        return pc_pool_begin(&pool, backward ? PC_AVG_BACKWARD : PC_AVG_FORWARD, in, dtype, threads, call, error);
    }
    const double work =
        (double)geom->n * (double)geom->c * ((double)geom->ih * (double)geom->iw + (double)geom->oh * (double)geom->ow);
    adaptive_pass p = pass_of(geom, backward, in, NULL, call);
    pc_slice slice = {0}, shared = {0};
    lay_out(&slice, &p, dtype);
    lay_out_shared(&p, &shared);
    return pc_begin(call, dtype, pc_settle(threads, work, GRAIN), work, slice.used, shared.used, error);
}

void pc_adaptive_forward(const pc_adaptive_geom *geom, void *out, const pc_tensor *in, pc_call *call)
{
    if (is_regular(geom)) {
        const pc_pool_geom pool = pool_of(geom);
        pc_avg_pool_forward(&pool, out, in, true, 0, call);
        return;
    }
    adaptive_pass p = pass_of(geom, false, in, out, call);
    run(&p);
}

void pc_adaptive_backward(const pc_adaptive_geom *geom, void *grad_in, const pc_tensor *grad_out, pc_call *call)
{
    if (is_regular(geom)) {
        const pc_pool_geom pool = pool_of(geom);
        pc_avg_pool_backward(&pool, grad_in, grad_out, true, 0, call);
        return;
    }
    adaptive_pass p = pass_of(geom, true, grad_out, grad_in, call);
    run(&p);
}
