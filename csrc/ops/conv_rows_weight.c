/* conv_rows_weight.c: the weight gradient of few channels a group, depthwise above all.
 *
 *     for some groups (an item, as many as make a few kilobytes of a sample):
 *         for each sample, band of rows, of these groups, output channel, input channel:
 *             conv_rows_weight: the sums of all taps, over the band, from where grad_out and the input lie
 *
 * Only where columns of a plane are not neighbours in memory (layouts, or a stride along x) are the band's rows copied
 * first: one row behind the other, each of its phases for itself (slab.h), without a border.
 *
 * The gradient of a tap is a sum over all pixels, in 64 bytes of sums side by side. They are folded by pairs and added
 * up after each chunk, which is so many bands as make 256 steps: enough that folding does not count, few enough for a
 * small error. Sums, chunks and bands come from the geometry and the dtype alone, so the bits do too. */
#include "ops/conv_rows_weight.h"

#include <string.h>

#include "base/checked.h"
#include "base/pool.h"
#include "isa/dispatch.h"
#include "ops/call.h"
#include "ops/conv_rows.h"
#include "ops/slab.h"

enum {
    BAND_BYTES = 16 << 10,   /* of input: half of L1 */
    LARGEST_BAND = 64 << 10, /* of one row of outputs, or not served */
    MOST_CHANNELS = 7, /* of a group, in and out: with 8, weight_tile is 1.1 (AVX-512) or 1.8 times (AVX2) as fast */
    MOST_DENSE = 2,    /* the same where there is one group */
    MOST_TAPS = 128,
    MOST_STRIDE = 8,
    SPARE = 64,          /* bytes: whole vectors are written so far behind a row */
    RUN_BYTES = 4 << 10, /* of a sample, at least, that are read at a time: smaller planes by the dozen, */
    MOST_TOGETHER = 16, /* whose sums stay in L1. Planes of 7x7, one at a time, took 2.8 times as long for 32 samples */
    POLL = 16,          /* bands between two questions whether to go on, a few microseconds each */
    CHUNK = 256         /* steps of PC_ROWS_SUMS bytes between two foldings */
};

typedef struct {
    int64_t rows, depth; /* outputs and inputs of a group */
    int64_t weights;     /* of a group */
    int64_t band, bands; /* rows of outputs */
    int64_t chunk;       /* sums are folded after so many bands */
    int64_t together;    /* groups that go through the samples at a time */
    bool phases;         /* of the input's columns: the kernel does not take the stride out */
    int64_t copy_step, phase_step,
        copied; /* elements of a band of input that is copied: a row of a phase, a phase, all */
} plan_t;

static int64_t band_rows(const pc_conv_geom *g, int64_t band) { return (band - 1) * g->sh + (g->kh - 1) * g->dh + 1; }

static plan_t plan_of(const pc_conv_geom *g, pc_dtype dtype)
{
    const int64_t size = (int64_t)pc_dtype_size(dtype), most = BAND_BYTES / (pc_max(1, g->iw) * size);
    plan_t p = {.rows = g->oc / g->g, .depth = g->ic / g->g, .band = g->oh};
    p.weights = p.rows * p.depth * g->kh * g->kw;
    if (band_rows(g, p.band) > most) {
        p.band = pc_max(1, (most - band_rows(g, 1)) / g->sh + 1);
    }
    p.bands = pc_ceil_div(g->oh, p.band);
    p.band = pc_ceil_div(g->oh, p.bands); /* of one height */
    p.chunk = pc_max(1, CHUNK / (p.band * pc_ceil_div(g->ow, PC_ROWS_SUMS / size)));
    p.together = pc_max(1, pc_min(MOST_TOGETHER, RUN_BYTES / pc_max(1, p.depth * g->ih * g->iw * size)));
    p.phases = g->sw > 2 ||
               (g->sw == 2 && (g->sh != 2 || g->dh != 1 || g->dw != 1 || (g->kh != 3 && g->kh != 5) || g->kw != g->kh));
    p.copy_step = p.phases ? pc_ceil_div(g->iw, g->sw) : g->iw;
    p.phase_step = pc_min(g->ih, band_rows(g, p.band)) * p.copy_step + SPARE / size;
    p.copied = (p.phases ? g->sw : 1) * p.phase_step;
    return p;
}

/* One thread's memory. Called once to count and once to use. */
typedef struct {
    char *vec, *grad; /* copies */
    char *sums;
    pc_rows_column *place; /* of each tap across */
} work_t;

static work_t lay_out(pc_slice *slice, const plan_t *p, const pc_conv_geom *g, pc_dtype dtype)
{
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    return (work_t){
        .vec = pc_lay(slice, p->copied, size),
        .grad = pc_lay(slice, p->band * g->ow + SPARE / size, size),
        .sums = pc_lay(slice, p->together * p->weights, PC_ROWS_SUMS),
        .place = pc_lay(slice, g->kw, sizeof(pc_rows_column)),
    };
}

bool pc_rows_weight_serve(const pc_conv_geom *g, pc_dtype dtype)
{
    const int64_t most = g->g == 1 ? MOST_DENSE : MOST_CHANNELS;
    int64_t taps, reach;
    if (g->pad_mode != PC_PAD_ZEROS || g->n == 0 || g->oc / g->g > most || g->ic / g->g > most || g->oh == 0 ||
        g->ow == 0 || g->sh > MOST_STRIDE || g->sw > MOST_STRIDE || pc_mul(&taps, g->kh, g->kw) || taps > MOST_TAPS) {
        return false;
    }
    /* Far taps and wide rows: not worth a thought, but no product may overflow. */
    const int64_t far = LARGEST_BAND;
    return g->pt <= far && g->pl <= far && g->pb <= far && g->pr <= far && g->dh <= far && g->dw <= far &&
           g->iw <= far && g->ow <= far && !pc_mul(&reach, band_rows(g, 1), g->iw * (int64_t)pc_dtype_size(dtype)) &&
           reach <= LARGEST_BAND;
}

int64_t pc_rows_weight_bytes(const pc_conv_geom *geom, pc_dtype dtype)
{
    const plan_t plan = plan_of(geom, dtype);
    pc_slice slice = {0};
    lay_out(&slice, &plan, geom, dtype);
    return slice.used;
}

#define T float
#define PC_LOCAL(name) name##_f32
#include "ops/conv_rows_weight.inc.h"
#undef T
#undef PC_LOCAL
#define T double
#define PC_LOCAL(name) name##_f64
#include "ops/conv_rows_weight.inc.h"
#undef T
#undef PC_LOCAL

typedef struct {
    const pc_conv_geom *geom;
    const pc_tensor *in, *grad_out;
    char *out;
    pc_call *call;
    const pc_kernels *kernels;
    plan_t plan;
    pc_rows_weight_args args; /* what is the same for all */
} pass_t;

/* Where the taps across find their columns, and which those are. A copy's phases have columns phase, phase + stride, .. */
static void place_taps(const pass_t *pass, const work_t *work)
{
    const pc_conv_geom *g = pass->geom;
    for (int64_t t = 0; t < g->kw; t++) {
        pc_rows_column place = pc_rows_column_of(t * g->dw - g->pl, g->sw, g->ow, g->iw);
        if (pass->plan.phases) {
            const int64_t f = pc_floor_div(place.offset, g->sw);
            place.offset = (place.offset - f * g->sw) * pass->plan.phase_step + f;
        }
        work->place[t] = place;
    }
}

/* `rows` rows of a plane, as neighbours. */
static void copy(const pass_t *pass, const pc_tensor *t, const char *from, char *to, int64_t rows, int64_t columns,
                 int64_t stride, int64_t to_step)
{
    const pc_rows_copy_args args = {.wide = (char *)from,
                                    .narrow = to,
                                    .rows = rows,
                                    .columns = columns,
                                    .stride = stride,
                                    .wide_step = t->step[2],
                                    .wide_column = t->step[3],
                                    .narrow_step = to_step,
                                    .phase_step = pass->plan.phase_step};
    pass->kernels->split_rows(&args);
}

/* A band of some groups: outputs first .. first + rows-1 of a sample, and the rows of input that they read. */
typedef struct {
    int64_t first, rows, start, top, end;
    int64_t in, grad_out; /* elements: where the first group's lie */
} place_t;

/* Band `band` of groups `group` ..; behind the last one that of the next groups. */
static place_t place_of(const pass_t *pass, int64_t group, int64_t groups, int64_t band)
{
    const pc_conv_geom *g = pass->geom;
    const plan_t *p = &pass->plan;
    if (band == g->n * p->bands) {
        group += groups;
        band = 0;
    }
    const int64_t sample = band / p->bands;
    const int64_t *in = pass->in->step, *grad_out = pass->grad_out->step;
    place_t at = {.first = band % p->bands * p->band};
    at.rows = pc_min(p->band, g->oh - at.first);
    at.start = at.first * g->sh - g->pt;
    at.top = pc_min(pc_max(0, at.start), g->ih);
    at.end = pc_max(at.top, pc_min(g->ih, at.start + band_rows(g, at.rows)));
    at.in = sample * in[0] + group * p->depth * in[1] + at.top * in[2];
    at.grad_out = sample * grad_out[0] + group * p->rows * grad_out[1] + at.first * grad_out[2];
    return at;
}

static void sum_band(const pass_t *pass, const work_t *work, int64_t groups, const place_t *at, const place_t *next)
{
    const plan_t *p = &pass->plan;
    const pc_conv_geom *g = pass->geom;
    const pc_tensor *in = pass->in, *grad_out = pass->grad_out;
    const int64_t size = (int64_t)pc_dtype_size(pass->call->dtype);
    const bool in_place = in->step[3] == 1 && !p->phases, grad_in_place = grad_out->step[3] == 1;
    pc_rows_weight_args a = pass->args;
    a.rows = at->rows;
    a.vec_rows = at->end - at->top;
    a.first = at->start - at->top;
    a.column = work->place;
    a.vec_step = in_place ? in->step[2] : p->copy_step;
    a.vec_ahead = in_place ? next->in - at->in : 0;
    a.grad_step = grad_in_place ? grad_out->step[2] : g->ow;
    a.grad_ahead = grad_in_place ? next->grad_out - at->grad_out : 0;
    a.sums = work->sums;
    for (int64_t i = 0; i < groups; i++) {
        for (int64_t row = 0; row < p->rows; row++) {
            a.grad = (const char *)grad_out->data + (at->grad_out + (i * p->rows + row) * grad_out->step[1]) * size;
            if (!grad_in_place) {
                copy(pass, grad_out, a.grad, work->grad, at->rows, g->ow, 1, g->ow);
                a.grad = work->grad;
            }
            for (int64_t c = 0; c < p->depth; c++) {
                a.vec = (const char *)in->data + (at->in + (i * p->depth + c) * in->step[1]) * size;
                if (!in_place) {
                    copy(pass, in, a.vec, work->vec, a.vec_rows, g->iw, p->phases ? g->sw : 1, p->copy_step);
                    a.vec = work->vec;
                }
                pass->kernels->conv_rows_weight(&a);
                a.sums = (char *)a.sums + g->kh * g->kw * PC_ROWS_SUMS;
            }
        }
    }
}

/* All of some groups. */
static void run_groups(const pass_t *pass, const work_t *work, int64_t group, int64_t groups)
{
    const plan_t *p = &pass->plan;
    const int64_t bands = pass->geom->n * p->bands, weights = groups * p->weights, total = group * p->weights;
    place_t at = place_of(pass, group, groups, 0);
    for (int64_t band = 0; band < bands; band++) {
        const place_t next = place_of(pass, group, groups, band + 1);
        if (band % p->chunk == 0) {
            memset(work->sums, 0, (size_t)(weights * PC_ROWS_SUMS));
        }
        sum_band(pass, work, groups, &at, &next);
        if ((band + 1) % p->chunk == 0 || band + 1 == bands) {
            const bool once = band < p->chunk;
            if (pass->call->dtype == PC_F32) {
                fold_sums_f32(pass->kernels, (float *)pass->out + total, (float *)work->sums, weights, once);
            } else {
                fold_sums_f64(pass->kernels, (double *)pass->out + total, (double *)work->sums, weights, once);
            }
        }
        at = next;
        if (band % POLL == 0 && pc_poll(pass->call)) {
            return;
        }
    }
}

static void run_thread(void *context, int index, int count)
{
    const pass_t *pass = context;
    const int64_t groups = pass->geom->g;
    pc_slice slice = pc_slice_of(pass->call, index);
    const work_t work = lay_out(&slice, &pass->plan, pass->geom, pass->call->dtype);
    place_taps(pass, &work);
    const int64_t begin = groups / count * index + pc_min(index, groups % count);
    const int64_t end = begin + groups / count + (index < groups % count);
    for (int64_t group = begin; group < end && !pc_stopped(pass->call); group += pass->plan.together) {
        run_groups(pass, &work, group, pc_min(pass->plan.together, end - group));
    }
}

/* Rows that fill half a vector or less go with shorter ones. */
static const pc_kernels *kernels_for(const pc_conv_geom *g, pc_dtype dtype)
{
    const pc_kernels *kernels = pc_kernels_for(dtype);
    return 2 * g->ow <= kernels->lanes ? pc_narrow_kernels_for(dtype) : kernels;
}

void pc_rows_weight_run(const pc_conv_geom *geom, void *grad_weight, const pc_tensor *grad_out, const pc_tensor *in,
                        pc_call *call)
{
    pass_t pass = {
        .geom = geom,
        .in = in,
        .grad_out = grad_out,
        .out = grad_weight,
        .call = call,
        .kernels = kernels_for(geom, call->dtype),
        .plan = plan_of(geom, call->dtype),
        .args = {.columns = geom->ow, .stride = geom->sh, .dilation = geom->dh, .height = geom->kh, .width = geom->kw}};
    pass.args.across = pass.plan.phases ? 1 : geom->sw;
    pc_pool_run(call->threads, run_thread, &pass);
}

void pc_rows_weight_explain(const pc_conv_geom *geom, const pc_call *call, pc_plan *plan)
{
    const plan_t p = plan_of(geom, call->dtype);
    plan->family = "rows";
    plan->form = p.phases ? "phases first" : "in place";
    plan->kernel = "conv_rows_weight";
    plan->phases = 1;
    plan->items = geom->g;
    pc_plan_add(plan, "band_rows", p.band);
    pc_plan_add(plan, "bands", p.bands);
    pc_plan_add(plan, "channels", p.depth);
    pc_plan_add(plan, "outputs_of_a_group", p.rows);
    pc_plan_add(plan, "groups_together", p.together);
    pc_plan_add(plan, "bands_of_a_chunk", p.chunk);
}
