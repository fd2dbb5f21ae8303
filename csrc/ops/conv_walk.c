#include "ops/conv_walk.h"

#include "base/pool.h"
#include "isa/dispatch.h"
#include "ops/call.h"
#include "ops/conv_rows.h"

enum {
    BAND_BYTES = 16 << 10, /* of source: half of L1, for the strips of a band read the same lines */
    AHEAD_BYTES = 3 << 10, /* of planes, at least, that are fetched before they are needed */
    POLL = 16,             /* bands between two questions whether to go on, a few microseconds each */
};

typedef struct {
    const pc_conv_geom *geom;
    const pc_tensor *source;
    const char *weight, *init;
    char *out;
    pc_call *call;
    const pc_kernels *kernels;
    bool forward, spread;             /* spread: the input gradient with a stride */
    int64_t channels, rows;           /* outputs, and so many of them read the same source channel */
    int64_t out_h, out_w, in_h, in_w; /* of the source */
    int64_t stride, pt;
    int64_t band, bands; /* rows of outputs */
} pass_t;

static pass_t pass_of(const pc_conv_geom *g, pc_conv_pass pass, pc_dtype dtype)
{
    const bool forward = pass == PC_CONV_FORWARD;
    pass_t p = {.geom = g,
                .kernels = pc_kernels_for(dtype),
                .forward = forward,
                .spread = !forward && g->sh == 2,
                .channels = forward ? g->oc : g->ic,
                .out_h = forward ? g->oh : g->ih,
                .out_w = forward ? g->ow : g->iw,
                .in_h = forward ? g->ih : g->oh,
                .in_w = forward ? g->iw : g->ow,
                .stride = g->sh};
    p.rows = p.channels / g->g;
    /* Backward the window is turned around: rows are taken from the end, and columns have such offsets. */
    p.pt = forward ? g->pt : g->kh - 1 - g->pt;
    const int64_t most = BAND_BYTES / (pc_max(1, p.in_w) * (int64_t)pc_dtype_size(dtype));
    p.bands = pc_ceil_div(p.out_h, pc_max(4, p.spread ? most * 2 : most / p.stride));
    p.band = pc_ceil_div(p.out_h, p.bands);
    return p;
}

bool pc_walk_serves(const pc_conv_geom *g, pc_conv_pass pass, pc_dtype dtype)
{
    const bool forward = pass == PC_CONV_FORWARD;
    return pc_kernels_for(dtype)->conv_walk && pass != PC_CONV_BACKWARD_WEIGHT && (forward ? g->ic : g->oc) == g->g &&
           g->kh == g->kw && (g->kh == 3 || g->kh == 5 || g->kh == 7) && g->sh == g->sw &&
           g->sh <= (g->kh < 7 ? 2 : 1) && g->dh == 1 && g->dw == 1;
}

bool pc_walk_can_read(const pc_tensor *source) { return source->step[3] == 1; }

static pc_rows_column *lay_out(pc_slice *slice, const pc_conv_geom *g)
{
    return pc_lay(slice, g->kw, sizeof(pc_rows_column));
}

int64_t pc_walk_bytes(const pc_conv_geom *geom)
{
    pc_slice slice = {0};
    lay_out(&slice, geom);
    return slice.used;
}

static void place_taps(const pass_t *p, pc_rows_column *column)
{
    const pc_conv_geom *g = p->geom;
    for (int64_t t = 0; t < g->kw; t++) {
        const int64_t offset = p->forward ? t - g->pl : g->pl - t;
        if (p->spread) { /* pairs of columns: the one of each that the tap meets */
            column[t] = pc_rows_column_of((offset + (offset & 1)) / 2, 1, pc_ceil_div(p->out_w, 2), p->in_w);
        } else {
            column[t] = pc_rows_column_of(offset, p->stride, p->out_w, p->in_w);
        }
    }
}

static void run_thread(void *context, int index, int count)
{
    const pass_t *p = context;
    const pc_conv_geom *g = p->geom;
    const int64_t size = (int64_t)pc_dtype_size(p->call->dtype), *step = p->source->step;
    const int64_t bands = g->n * p->channels * p->bands;
    const int64_t begin = bands / count * index + pc_min(index, bands % count);
    const int64_t end = begin + bands / count + (index < bands % count);
    pc_slice slice = pc_slice_of(p->call, index);
    pc_rows_column *column = lay_out(&slice, g);
    place_taps(p, column);
    const bool back = !p->forward && !p->spread, up = back && g->kh == 3;
    const bool turned = back && !up; /* from the last row to the first */
    /* A band further, or so many planes: a small one is done before the next could come from memory. */
    const int64_t band_step = (p->spread ? pc_ceil_div(p->band, 2) : p->band * p->stride) * step[2];
    const int64_t planes = pc_ceil_div(AHEAD_BYTES, p->in_h * p->in_w * size);
    pc_walk_args a = {.columns = p->out_w,
                      .out_step = turned ? -p->out_w : p->out_w,
                      .vec_step = turned ? -step[2] : step[2],
                      .out_ahead = (p->bands > 1 ? p->band : planes * p->out_h) * p->out_w,
                      .vec_ahead = p->bands > 1 ? band_step : planes * step[1],
                      .odd = g->pl % 2 != 0,
                      .up = up,
                      .vec_rows = p->in_h,
                      .stride = p->stride,
                      .size = g->kh,
                      .column = column};
    int64_t band = begin % p->bands, channel = begin / p->bands % p->channels, sample = begin / p->bands / p->channels;
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = band * p->band;
        a.rows = pc_min(p->band, p->out_h - first);
        a.out = p->out + ((sample * p->channels + channel) * p->out_h + first) * p->out_w * size;
        a.vec = (const char *)p->source->data + (sample * step[0] + channel / p->rows * step[1]) * size;
        a.first = p->spread ? first + g->pt : first * p->stride - p->pt;
        if (turned) {
            a.out = (char *)a.out + (a.rows - 1) * p->out_w * size;
            a.vec = (const char *)a.vec + (p->in_h - 1) * step[2] * size;
            a.first = p->out_h - first - a.rows - p->pt;
        }
        a.weight = p->weight + channel * g->kh * g->kw * size;
        a.init = p->init ? p->init + channel * size : NULL;
        if (p->spread) {
            p->kernels->conv_walk_back(&a);
        } else {
            p->kernels->conv_walk(&a);
        }
        if (++band == p->bands) {
            band = 0;
            channel = channel + 1 < p->channels ? channel + 1 : 0;
            sample += channel == 0;
        }
        if (i % POLL == 0 && pc_poll(p->call)) {
            return;
        }
    }
}

void pc_walk_run(const pc_conv_geom *geom, pc_conv_pass pass, void *out, const pc_tensor *source, const void *weight,
                 const void *init, pc_call *call)
{
    pass_t p = pass_of(geom, pass, call->dtype);
    p.source = source;
    p.weight = weight;
    p.init = init;
    p.out = out;
    p.call = call;
    pc_pool_run(call->threads, run_thread, &p);
}

void pc_walk_explain(const pc_conv_geom *geom, pc_conv_pass pass, pc_dtype dtype, pc_plan *plan)
{
    const pass_t p = pass_of(geom, pass, dtype);
    plan->family = "rows";
    plan->form = "in place";
    plan->kernel = p.spread ? "conv_walk_back" : "conv_walk";
    plan->phases = 1;
    plan->items = geom->n * p.channels * p.bands;
    pc_plan_add(plan, "band_rows", p.band);
    pc_plan_add(plan, "bands", p.bands);
}
