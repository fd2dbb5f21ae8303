/* adaptive.c: adaptive average pooling, forward and backward.
 *
 * Where both sizes divide, the windows are those of an average pool with stride = kernel, and pool.c does the work if
 * they are small (see is_regular). Elsewhere a window has one of two lengths per axis, and neighbours overlap by at
 * most one element (or repeat, where the output is larger than the image). A plane is then worked on by itself, window
 * row by window row:
 *
 *     forward    row[x]  = sum of in[y][x] over the window row's y            (a kernel: lanes run along x)
 *                out[i]  = sum of row[x] over window i / height / width
 *     backward   row[x]  = sum of grad_out[i] / height / width over the windows i that hold x
 *                grad_in[y] = row, or += row where an earlier window row has been
 *
 * so each sum has one order, and no element is read before it was written. */
#include <string.h>

#include "base/pool.h"
#include "isa/dispatch.h"
#include "ops/call.h"

enum {
    GRAIN = 1 << 16, /* elements moved below which a second thread costs more than it brings */
    PIECE = 1 << 16, /* elements between two looks at the clock: one at each row took half of the time */
    WIDE = 4,        /* windows of so many columns are faster summed down the columns first */
};

typedef struct {
    const pc_adaptive_geom *geom;
    const pc_tensor *in, *grad_out; /* one of them */
    char *out;
    pc_call *call;
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

typedef struct {
    void *row, *line;      /* sums down the columns, and a copy of what is not side by side in memory */
    void *sums, *divisor;  /* of each output of a row */
    int64_t *left, *width; /* the windows of a row, and of a column: a division each would cost more than their sums */
    int64_t *top, *height;
} adaptive_work;

static adaptive_work lay_out(pc_slice *slice, const pc_adaptive_geom *g, pc_dtype dtype)
{
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    return (adaptive_work){.row = pc_lay(slice, g->iw, size),
                           .line = pc_lay(slice, g->iw, size),
                           .sums = pc_lay(slice, g->ow, size),
                           .divisor = pc_lay(slice, g->ow, size),
                           .left = pc_lay(slice, g->ow, sizeof(int64_t)),
                           .width = pc_lay(slice, g->ow, sizeof(int64_t)),
                           .top = pc_lay(slice, g->oh, sizeof(int64_t)),
                           .height = pc_lay(slice, g->oh, sizeof(int64_t))};
}

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

static void run_planes(void *context, int index, int count)
{
    const adaptive_pass *p = context;
    const pc_adaptive_geom *g = p->geom;
    const int64_t planes = g->n * g->c;
    const int64_t first = planes / count * index + pc_min(index, planes % count);
    const int64_t last = first + planes / count + (index < planes % count);
    pc_slice slice = pc_slice_of(p->call, index);
    const adaptive_work work = lay_out(&slice, g, p->call->dtype);
    if (p->call->dtype == PC_F32) {
        find_windows_f32(&work, g);
    } else {
        find_windows_f64(&work, g);
    }
    const int64_t most = pc_max(1, PIECE / pc_max(1, pc_max(g->ih * g->iw, g->oh * g->ow)));
    for (int64_t plane = first; plane < last; plane++) {
        if ((plane - first) % most == 0 && pc_poll(p->call)) {
            return;
        }
        if (p->in && p->call->dtype == PC_F32) {
            forward_plane_f32(p, &work, plane);
        } else if (p->in) {
            forward_plane_f64(p, &work, plane);
        } else if (p->call->dtype == PC_F32) {
            backward_plane_f32(p, &work, plane);
        } else {
            backward_plane_f64(p, &work, plane);
        }
    }
}

pc_status pc_adaptive_begin(const pc_adaptive_geom *geom, bool backward, const pc_tensor *in, pc_dtype dtype,
                            int threads, pc_call *call, pc_error *error)
{
    if (is_regular(geom)) {
        const pc_pool_geom pool = pool_of(geom);
        return pc_pool_begin(&pool, backward ? PC_AVG_BACKWARD : PC_AVG_FORWARD, in, dtype, threads, call, error);
    }
    const double work =
        (double)geom->n * (double)geom->c * ((double)geom->ih * (double)geom->iw + (double)geom->oh * (double)geom->ow);
    pc_slice slice = {0};
    lay_out(&slice, geom, dtype);
    return pc_begin(call, dtype, pc_settle(threads, work, GRAIN), work, slice.used, 0, error);
}

void pc_adaptive_forward(const pc_adaptive_geom *geom, void *out, const pc_tensor *in, pc_call *call)
{
    if (is_regular(geom)) {
        const pc_pool_geom pool = pool_of(geom);
        pc_avg_pool_forward(&pool, out, in, true, 0, call);
        return;
    }
    adaptive_pass p = {.geom = geom, .in = in, .out = out, .call = call};
    pc_pool_run(call->threads, run_planes, &p);
}

void pc_adaptive_backward(const pc_adaptive_geom *geom, void *grad_in, const pc_tensor *grad_out, pc_call *call)
{
    if (is_regular(geom)) {
        const pc_pool_geom pool = pool_of(geom);
        pc_avg_pool_backward(&pool, grad_in, grad_out, true, 0, call);
        return;
    }
    adaptive_pass p = {.geom = geom, .grad_out = grad_out, .out = grad_in, .call = call};
    pc_pool_run(call->threads, run_planes, &p);
}
