/* conv_rows.c: convolutions of few channels a group, depthwise above all: forward and input gradient.
 *
 * There are few multiply-adds for each element here (9 in a depthwise 3x3), so moving the elements is the work, and what
 * a plane costs beside its arithmetic must be a few cycles. So nothing is general in the inner loops: lanes are pixels of
 * one row, all taps are one list, and a plane is two calls of kernels:
 *
 *     for each sample, group, band of rows:                                          an item; a thread has neighbours
 *         split_rows: the source rows, their stride taken out, into a slab of 16 KB, half of L1
 *         for each output channel:  conv_rows over the band, straight into the output
 *
 * The slab's layout is that of slab.h, but for the rows, which stay in order, and the border: all slabs of a call have
 * the same one, so its zeros are written once.
 *
 *     forward, stride 2, padding 1:    [phase of x][row][left border, every second column, right border]
 *
 * The input gradient with a stride consists of sweeps (conv.c), which all read the same slab. Those of one sublattice of
 * rows put their outputs side by side, and join_rows puts the columns into each other's gaps.
 *
 * Where the machine has the kernel, depthwise convolutions of usual windows are done in place instead (conv_walk.c); small
 * maps on any machine (conv_planes.c). The weight gradient is conv_rows_weight.c's. */
#include "ops/conv_rows.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/pool.h"
#include "isa/dispatch.h"
#include "ops/call.h"
#include "ops/conv_planes.h"
#include "ops/conv_walk.h"
#include "ops/sweep.h"

enum {
    SLAB_BYTES = 16 << 10,   /* half of L1; twice that where a slab serves several outputs */
    LARGEST_SLAB = 64 << 10, /* of one row of outputs, or not served */
    MOST_CHANNELS = 8,       /* of a group, in and out, */
    MOST_DENSE = 2,          /* the same where there is one group: its outputs share what a tile loads */
    MOST_WORK = 128 << 10,   /* multiply-adds of several channels; see has_much */
    MOST_TAPS = 1024,        /* of one output, over all channels */
    MOST_STRIDE = 8,
    LONG = 24, /* outputs of a row whose place in a line matters: 1.02 to 1.08 times as fast */
    LINE = 64,
    SPARE = 64, /* bytes: whole vectors may be read and written so far behind a slab */
    POLL = 16,  /* items between two questions whether to go on, a few microseconds each */
};

/* What the sweeps of a pass read along one axis, together: source positions first*stride + low .. last*stride + high for
 * the outputs first .. last of the longest sweep. */
typedef struct {
    int64_t sweeps, step; /* sublattices, and their distance: sweep i covers outputs y0(i), y0(i) + step, ... */
    int64_t stride, size, outputs;
    int64_t count; /* of the longest */
    int64_t low, high;
} pc_reach;

typedef struct {
    bool forward;
    pc_reach y, x;
    int64_t rows, depth; /* outputs and sources of a group */
    int64_t band, bands; /* rows of a sublattice */
    int64_t left;        /* columns in front of the source, a multiple of the stride */
    int64_t row_step;    /* of the slab */
    int64_t phase_step, channel_step;
    int64_t slab, joined; /* elements */
    int64_t join_row, join_phase;
    int64_t taps;  /* of all sweeps, over all channels */
    int64_t items; /* that threads share: bands */
} pc_rows_plan;

pc_rows_column pc_rows_column_of(int64_t offset, int64_t stride, int64_t outputs, int64_t size)
{
    const int64_t f = pc_floor_div(offset, stride), phase = offset - f * stride;
    pc_rows_column column = {.offset = offset, .low = pc_min(outputs, pc_max(0, -f))};
    column.high = pc_max(column.low, pc_min(outputs, pc_ceil_div(pc_max(0, size - phase), stride) - f));
    return column;
}

static pc_reach reach_of(const pc_conv_geom *g, bool forward, int axis)
{
    pc_reach reach = {.sweeps = 1, .step = 1};
    if (!forward) {
        reach.sweeps = axis == 0 ? pc_remainders(g->sh, g->dh, g->kh) : pc_remainders(g->sw, g->dw, g->kw);
        reach.step = axis == 0 ? g->sh : g->sw;
    }
    const int64_t across = forward ? 1 : pc_remainders(g->sw, g->dw, g->kw);
    for (int64_t i = 0; i < reach.sweeps; i++) {
        const pc_sweep s = pc_sweep_at(g, forward, axis == 0 ? i * across : i);
        const pc_axis *a = axis == 0 ? &s.y : &s.x;
        const int64_t last = a->base + (a->taps - 1) * a->delta;
        reach.low = i == 0 ? pc_min(a->base, last) : pc_min(reach.low, pc_min(a->base, last));
        reach.high = i == 0 ? pc_max(a->base, last) : pc_max(reach.high, pc_max(a->base, last));
        reach.count = pc_max(reach.count, a->count);
        reach.stride = a->stride;
        reach.size = a->size;
    }
    reach.outputs = forward ? (axis == 0 ? g->oh : g->ow) : (axis == 0 ? g->ih : g->iw);
    return reach;
}

static int64_t band_rows(const pc_reach *y, int64_t band) { return (band - 1) * y->stride + y->high - y->low + 1; }

static pc_rows_plan plan_of(const pc_conv_geom *g, pc_conv_pass pass, pc_dtype dtype)
{
    const bool forward = pass != PC_CONV_BACKWARD_INPUT;
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    pc_rows_plan p = {.forward = forward, .y = reach_of(g, forward, 0), .x = reach_of(g, forward, 1)};
    p.rows = (forward ? g->oc : g->ic) / g->g;
    p.depth = (forward ? g->ic : g->oc) / g->g;
    p.taps = p.depth * g->kh * g->kw;
    /* Rows begin where lines do, in the source and in the slab; short ones would leave half of it empty. */
    const int64_t piece = p.x.count >= LONG ? LINE / size : 1;
    p.left = pc_ceil_div(pc_max(0, -p.x.low), piece * p.x.stride) * piece * p.x.stride;
    const int64_t wide = p.left + pc_max(p.x.size, (p.x.count - 1) * p.x.stride + p.x.high + 1);
    p.row_step = pc_ceil_div(wide, piece * p.x.stride) * piece;
    const int64_t row = p.row_step * p.x.stride * p.depth * size;
    p.band = p.y.count;
    const int64_t most = (p.depth > 1 ? 2 : 1) * SLAB_BYTES / row;
    if (band_rows(&p.y, p.band) > most) {
        p.band = pc_max(1, (most - (p.y.high - p.y.low + 1)) / p.y.stride + 1);
    }
    p.bands = pc_ceil_div(p.y.count, p.band);
    p.band = pc_ceil_div(p.y.count, p.bands); /* of one height */
    p.phase_step = band_rows(&p.y, p.band) * p.row_step + SPARE / size;
    p.channel_step = p.phase_step * p.x.stride;
    p.slab = p.depth * p.channel_step + SPARE / size;
    if (!forward && p.x.sweeps > 1) {
        p.join_row = p.x.count + SPARE / size;
        p.join_phase = p.band * p.y.step * p.join_row;
        p.joined = p.x.sweeps * p.join_phase + SPARE / size;
    }
    p.items = g->n * g->g * p.bands;
    return p;
}

/* One thread's memory. Called once to count and once to use. */
typedef struct {
    char *slab, *joined, *weight;
    int64_t *offset, *place; /* of each tap: in the slab, in the weight */
    pc_sweep *sweep;
    pc_rows_args *args; /* of each sweep: what is the same for all planes */
} pc_rows_work;

static pc_rows_work lay_out(pc_slice *slice, const pc_rows_plan *p, pc_dtype dtype)
{
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    return (pc_rows_work){
        .slab = pc_lay(slice, p->slab, size),
        .joined = pc_lay(slice, p->joined, size),
        .weight = pc_lay(slice, p->taps, size),
        .offset = pc_lay(slice, p->taps, sizeof(int64_t)),
        .place = pc_lay(slice, p->taps, sizeof(int64_t)),
        .sweep = pc_lay(slice, p->y.sweeps * p->x.sweeps, sizeof(pc_sweep)),
        .args = pc_lay(slice, p->y.sweeps * p->x.sweeps, sizeof(pc_rows_args)),
    };
}

/* Enough for dense_tile to pay for what it packs for a group? Its rows share what it loads: 8 channels of 28x28 in 0.63
 * to 0.71 of the time, 4 of 56x56 in 0.67, 2 of 112x112 in 0.8; but 8 of 14x14 in 0.8 to 1.07, 4 of 14x14 in twice the
 * time. Samples of small maps share its tiles. */
static bool has_much(const pc_conv_geom *g)
{
    const int64_t rows = g->oc / g->g, depth = g->ic / g->g;
    const double outputs = (double)g->oh * (double)g->ow, samples = fmax(1, fmin((double)g->n, 256 / outputs));
    return rows > 1 && depth > 1 && (double)(rows * depth * g->kh * g->kw) * outputs * samples >= MOST_WORK;
}

bool pc_rows_serve(const pc_conv_geom *g, pc_conv_pass pass, pc_dtype dtype)
{
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    const int64_t depth = g->ic / g->g, most = g->g == 1 ? MOST_DENSE : MOST_CHANNELS;
    int64_t taps, reach;
    if (g->pad_mode != PC_PAD_ZEROS || g->n == 0 || g->oc / g->g > most || depth > most || g->sh > MOST_STRIDE ||
        g->sw > MOST_STRIDE || pc_mul(&taps, g->kh, g->kw) || taps > MOST_TAPS / MOST_CHANNELS || has_much(g)) {
        return false;
    }
    /* Far taps and wide rows: not worth a thought, but no product may overflow. */
    const int64_t far = LARGEST_SLAB;
    if (g->pt > far || g->pl > far || g->pb > far || g->pr > far || g->dh > far || g->dw > far || g->iw > far ||
        g->ow > far || pc_mul(&reach, g->dh * (g->kh - 1) + 1, (g->iw + g->pl + g->pr + far) * depth) ||
        reach > far * far) {
        return false;
    }
    /* Pixels that no tap reaches are not swept. */
    if (pass == PC_CONV_BACKWARD_INPUT &&
        (pc_remainders(g->sh, g->dh, g->kh) < g->sh || pc_remainders(g->sw, g->dw, g->kw) < g->sw)) {
        return false;
    }
    const pc_rows_plan p = plan_of(g, pass, dtype);
    return p.y.count > 0 && p.x.count > 0 &&
           band_rows(&p.y, 1) * p.row_step * p.x.stride * p.depth * size <= LARGEST_SLAB;
}

int64_t pc_rows_bytes(const pc_conv_geom *geom, pc_conv_pass pass, pc_dtype dtype)
{
    const pc_rows_plan plan = plan_of(geom, pass, dtype);
    pc_slice slice = {0};
    lay_out(&slice, &plan, dtype);
    const int64_t planes = pc_planes_serve(geom, pass, dtype) ? pc_planes_bytes(geom, dtype) : 0;
    const int64_t walk = pc_walk_serves(geom, pass, dtype) ? pc_walk_bytes(geom) : 0;
    return slice.used < 0 ? slice.used : pc_max(slice.used, pc_max(planes, walk));
}

typedef struct {
    const pc_conv_geom *geom;
    pc_conv_pass pass;
    const pc_tensor *source, *grad_out;
    const char *weight, *init;
    char *out;
    pc_call *call;
    const pc_kernels *kernels;
    pc_rows_plan plan;
    pc_rows_copy_args copy; /* into the slab: what is the same for all */
} pc_rows_pass;

/* ---- the slab -------------------------------------------------------------------------------------------------- */

/* Where one sweep's taps are, in the order of the chain: channel, kernel row, kernel column. */
static int64_t list_taps(const pc_rows_plan *p, const pc_conv_geom *g, const pc_sweep *s, int64_t *offset,
                         int64_t *place)
{
    const int64_t channel = g->kh * g->kw * (p->forward ? 1 : p->rows);
    int64_t n = 0;
    for (int64_t c = 0; c < p->depth; c++) {
        for (int64_t r = 0; r < s->y.taps; r++) {
            const int64_t row = s->y.base + r * s->y.delta - p->y.low;
            for (int64_t t = 0; t < s->x.taps; t++, n++) {
                const int64_t column = s->x.base + t * s->x.delta + p->left;
                offset[n] = c * p->channel_step + column % p->x.stride * p->phase_step + row * p->row_step +
                            column / p->x.stride;
                place[n] = c * channel + (s->y.weight_first + r * s->y.weight_step) * g->kw + s->x.weight_first +
                           t * s->x.weight_step;
            }
        }
    }
    return n;
}

static pc_rows_copy_args copy_of(const pc_rows_plan *p, const pc_tensor *source)
{
    return (pc_rows_copy_args){
        .columns = p->x.size,
        .stride = p->x.stride,
        .wide_step = source->step[2],
        .wide_column = source->step[3],
        .narrow_step = p->row_step,
        .phase_step = p->phase_step,
    };
}

/* Source channels channel .. channel + depth-1, for the outputs first .. first + count-1 of every sweep of rows. */
static void pack(const pc_rows_pass *pass, char *slab, int64_t sample, int64_t channel, int64_t first, int64_t count)
{
    const pc_rows_plan *p = &pass->plan;
    const pc_tensor *source = pass->source;
    const int64_t size = (int64_t)pc_dtype_size(pass->call->dtype);
    const int64_t start = first * p->y.stride + p->y.low, rows = band_rows(&p->y, count);
    pc_rows_copy_args copy = pass->copy;
    const int64_t above = pc_min(rows, pc_max(0, -start)), end = pc_max(above, pc_min(rows, p->y.size - start));
    for (int64_t c = 0; c < p->depth; c++, slab += p->channel_step * size) {
        for (int64_t phase = 0; p->bands > 1 && phase < p->x.stride; phase++) {
            char *plane = slab + phase * p->phase_step * size;
            memset(plane, 0, (size_t)(above * p->row_step * size));
            memset(plane + end * p->row_step * size, 0, (size_t)((rows - end) * p->row_step * size));
        }
        copy.wide =
            (char *)source->data +
            (sample * source->step[0] + (channel + c) * source->step[1] + (start + above) * source->step[2]) * size;
        copy.narrow = slab + (above * p->row_step + p->left / p->x.stride) * size;
        copy.rows = end - above;
        pass->kernels->split_rows(&copy);
    }
}

/* ---- forward and input gradient --------------------------------------------------------------------------------- */

/* Sets what the sweeps have in common with all planes. A struct filled anew for each plane would cost as much as a
 * 7x7 plane's arithmetic. */
static void prepare(const pc_rows_pass *pass, const pc_rows_work *work)
{
    const pc_rows_plan *p = &pass->plan;
    /* Kernels go up to SPARE bytes beyond the last row of a channel, and of any row of outputs that are to be joined. */
    assert(work->joined - work->slab >= p->depth * p->channel_step * (int64_t)pc_dtype_size(pass->call->dtype) + SPARE);
    assert(p->x.sweeps == 1 || (work->weight - work->joined >=
                                    p->x.sweeps * p->join_phase * (int64_t)pc_dtype_size(pass->call->dtype) + SPARE &&
                                (p->join_row - p->x.count) * (int64_t)pc_dtype_size(pass->call->dtype) >= SPARE));
    int64_t done = 0;
    for (int64_t i = 0; i < p->y.sweeps * p->x.sweeps; i++) {
        pc_sweep *s = &work->sweep[i];
        *s = pc_sweep_at(pass->geom, p->forward, i);
        const int64_t taps = list_taps(p, pass->geom, s, work->offset + done, work->place + done);
        work->args[i] = (pc_rows_args){
            .out_step = s->y_step * (p->x.sweeps > 1 ? p->join_row : p->x.outputs),
            .limit = p->x.sweeps > 1 ? p->join_phase : 0,
            .columns = s->x.count,
            .vec = work->slab,
            .vec_step = p->y.stride * p->row_step,
            .taps = taps,
            .offset = work->offset + done,
            .slide = p->y.stride == 1 && (s->y.delta == 1 || s->y.delta == -1) ? s->y.delta : 0,
            .height = s->y.taps,
            .width = s->x.taps,
        };
        done += taps;
    }
    assert(done <= p->taps);
}

/* The weights of one sweep for one output channel, in the order of their offsets. */
static const void *gather(const pc_rows_pass *pass, const int64_t *place, int64_t taps, const char *from, char *to)
{
    if (place[0] == 0 && place[taps - 1] == taps - 1) {
        return from; /* in order already */
    }
    if (pass->call->dtype == PC_F32) {
        for (int64_t k = 0; k < taps; k++) {
            ((float *)to)[k] = ((const float *)from)[place[k]];
        }
    } else {
        for (int64_t k = 0; k < taps; k++) {
            ((double *)to)[k] = ((const double *)from)[place[k]];
        }
    }
    return to;
}

/* One output channel of an item. `behind`: elements after it that this thread writes later. */
static void run_plane(const pc_rows_pass *pass, const pc_rows_work *work, char *out, int64_t channel, int64_t first,
                      int64_t count, int64_t behind)
{
    const pc_rows_plan *p = &pass->plan;
    const int64_t size = (int64_t)pc_dtype_size(pass->call->dtype);
    const int64_t width = p->x.outputs, sweeps = p->y.sweeps * p->x.sweeps, window = pass->geom->kh * pass->geom->kw;
    /* (oc, ic/g, kh, kw): an output's first weight forward, backward the one of its place in the group */
    const int64_t start = p->forward ? channel * p->depth : channel / p->rows * p->rows * p->depth + channel % p->rows;
    const char *weight = pass->weight + start * window * size;
    int64_t done = 0;
    for (int64_t i = 0; i < sweeps; i++) {
        const pc_sweep *s = &work->sweep[i];
        pc_rows_args *a = &work->args[i];
        a->rows = pc_min(count, s->y.count - first);
        a->init = pass->init ? pass->init + channel * size : NULL;
        a->weight = gather(pass, work->place + done, a->taps, weight, work->weight + done * size);
        if (p->x.sweeps > 1) {
            a->out = work->joined + (s->x0 * p->join_phase + s->y0 * p->join_row) * size;
        } else {
            a->out = out + s->y0 * width * size;
            a->limit = s->y_step == 1 ? a->rows * width + behind : 0;
        }
        done += a->taps;
        if (a->rows > 0 && a->columns > 0) {
            pass->kernels->conv_rows(a);
        }
    }
    if (p->x.sweeps > 1) {
        const int64_t rows = pc_min(count * p->y.step, p->y.outputs - first * p->y.step);
        const pc_rows_copy_args join = {
            .wide = out,
            .narrow = work->joined,
            .rows = rows,
            .columns = width,
            .stride = p->x.step,
            .wide_step = width,
            .wide_column = 1,
            .narrow_step = p->join_row,
            .phase_step = p->join_phase,
            .limit = rows * width + behind,
        };
        pass->kernels->join_rows(&join);
    }
}

static void run_thread(void *context, int index, int count)
{
    const pc_rows_pass *pass = context;
    const pc_rows_plan *p = &pass->plan;
    const pc_conv_geom *g = pass->geom;
    const int64_t size = (int64_t)pc_dtype_size(pass->call->dtype);
    pc_slice slice = pc_slice_of(pass->call, index);
    const pc_rows_work work = lay_out(&slice, p, pass->call->dtype);
    memset(work.slab, 0, (size_t)(p->slab * size));
    prepare(pass, &work);
    const int64_t plane = p->y.outputs * p->x.outputs;
    const int64_t begin = p->items / count * index + pc_min(index, p->items % count);
    const int64_t end = begin + p->items / count + (index < p->items % count);
    /* Counted up: without divisions for each item. */
    int64_t band = begin % p->bands, group = begin / p->bands % g->g, sample = begin / p->bands / g->g;
    for (int64_t item = begin; item < end; item++) {
        const int64_t first = band * p->band, rows = pc_min(p->band, p->y.count - first);
        pack(pass, work.slab, sample, group * p->depth, first, rows);
        for (int64_t row = 0; row < p->rows; row++) {
            const int64_t channel = group * p->rows + row;
            char *out =
                pass->out + ((sample * g->g * p->rows + channel) * plane + first * p->y.step * p->x.outputs) * size;
            /* What this thread writes next follows at once when a plane is one band. */
            const bool more = item + 1 < end || row + 1 < p->rows;
            run_plane(pass, &work, out, channel, first, rows, more && p->bands == 1 ? plane : 0);
        }
        if (++band == p->bands) {
            band = 0;
            group = group + 1 < g->g ? group + 1 : 0;
            sample += group == 0;
        }
        if (item % POLL == 0 && pc_poll(pass->call)) {
            return;
        }
    }
}

void pc_rows_run(const pc_conv_geom *geom, pc_conv_pass pass, void *out, const pc_tensor *source, const void *weight,
                 const void *init, pc_call *call)
{
    if (pc_planes_serve(geom, pass, call->dtype) && pc_planes_can_read(geom, source)) {
        pc_planes_run(geom, pass, out, source, weight, init, call);
        return;
    }
    if (pc_walk_serves(geom, pass, call->dtype) && pc_walk_can_read(source)) {
        pc_walk_run(geom, pass, out, source, weight, init, call);
        return;
    }
    pc_rows_pass run = {.geom = geom,
                        .pass = pass,
                        .source = source,
                        .weight = weight,
                        .init = init,
                        .out = out,
                        .call = call,
                        .plan = plan_of(geom, pass, call->dtype)};
    run.kernels = pc_narrow_kernels_for(call->dtype);
    run.copy = copy_of(&run.plan, source);
    pc_pool_run(call->threads, run_thread, &run);
}

/* ---- what a call will do (explain.h) ---------------------------------------------------------------------------- */

void pc_rows_explain(const pc_conv_geom *geom, pc_conv_pass pass, const pc_call *call, pc_plan *plan)
{
    if (pc_planes_serve(geom, pass, call->dtype)) {
        plan->family = "planes";
        plan->form = "in place";
        plan->kernel = "conv_planes";
        plan->phases = 1;
        plan->items = geom->n * geom->g;
        return;
    }
    if (pc_walk_serves(geom, pass, call->dtype)) {
        pc_walk_explain(geom, pass, call->dtype, plan);
        return;
    }
    const pc_rows_plan p = plan_of(geom, pass, call->dtype);
    plan->family = "rows";
    plan->form = p.x.sweeps > 1 ? "phases joined" : "";
    plan->kernel = "conv_rows";
    plan->phases = p.y.sweeps * p.x.sweeps;
    plan->items = p.items;
    pc_plan_add(plan, "band_rows", p.band);
    pc_plan_add(plan, "bands", p.bands);
    pc_plan_add(plan, "channels", p.depth);
    pc_plan_add(plan, "outputs_of_a_group", p.rows);
    pc_plan_add(plan, "slab_elements", p.slab);
}
