#include "ops/conv_planes.h"

#include "base/pool.h"
#include "isa/dispatch.h"
#include "ops/call.h"
#include "ops/sweep.h"

enum {
    MOST_VECTORS =
        12,           /* of a plane: 960 channels of 7 x 7 take 0.67 (AVX-512) or 0.78 (AVX2) of the time by rows, 9 x 9
                        * the same, and with 13, which are 14 x 14, 1.2 times that */
    MOST_MASKS = 512, /* 4 KB */
    TOGETHER = 32,    /* planes of a call */
};

typedef struct {
    const pc_conv_geom *geom;
    pc_conv_pass pass;
    const pc_tensor *source;
    const char *weight, *init;
    char *out;
    pc_call *call;
} planes_pass;

typedef struct {
    int64_t *offset;
    uint64_t *inside;
} planes_work;

static int64_t vectors_of(const pc_conv_geom *g, pc_dtype dtype)
{
    return pc_ceil_div(g->ih * g->iw, pc_kernels_for(dtype)->lanes);
}

bool pc_planes_serve(const pc_conv_geom *g, pc_conv_pass pass, pc_dtype dtype)
{
    return pass != PC_CONV_BACKWARD_WEIGHT && g->ic == g->g && g->oc == g->g && g->sh == 1 && g->sw == 1 &&
           g->oh == g->ih && g->ow == g->iw && g->ih <= MOST_MASKS && g->iw <= MOST_MASKS &&
           g->ih * g->iw >= pc_kernels_for(dtype)->lanes && vectors_of(g, dtype) <= MOST_VECTORS &&
           vectors_of(g, dtype) * g->kh * g->kw <= MOST_MASKS;
}

bool pc_planes_can_read(const pc_conv_geom *g, const pc_tensor *source)
{
    return (source->step[3] == 1 || g->iw == 1) && (source->step[2] == g->iw || g->ih == 1);
}

static planes_work lay_out(pc_slice *slice, const pc_conv_geom *g, pc_dtype dtype)
{
    return (planes_work){.offset = pc_lay(slice, g->kh * g->kw, sizeof(int64_t)),
                         .inside = pc_lay(slice, vectors_of(g, dtype) * g->kh * g->kw, sizeof(uint64_t))};
}

int64_t pc_planes_bytes(const pc_conv_geom *g, pc_dtype dtype)
{
    pc_slice slice = {0};
    lay_out(&slice, g, dtype);
    return slice.used;
}

/* Where the taps are, and which lanes read them: see conv_planes in kernels.h. */
static void place(const planes_pass *p, const planes_work *work)
{
    const pc_conv_geom *g = p->geom;
    const int64_t lanes = pc_kernels_for(p->call->dtype)->lanes, taps = g->kh * g->kw, count = g->ih * g->iw;
    const pc_sweep s = pc_sweep_at(g, p->pass == PC_CONV_FORWARD, 0);
    for (int64_t k = 0; k < taps; k++) {
        const int64_t y = s.y.base + k / g->kw * s.y.delta, x = s.x.base + k % g->kw * s.x.delta;
        work->offset[k] = y * g->iw + x;
        for (int64_t v = 0; v * lanes < count; v++) {
            const int64_t first = pc_min(v * lanes, count - lanes);
            uint64_t bits = 0;
            for (int64_t l = 0; l < lanes; l++) {
                const int64_t row = (first + l) / g->iw + y, column = (first + l) % g->iw + x;
                bits |= (uint64_t)(row >= 0 && row < g->ih && column >= 0 && column < g->iw) << l;
            }
            work->inside[v * taps + k] = bits;
        }
    }
}

static void run_thread(void *context, int index, int count)
{
    const planes_pass *p = context;
    const pc_conv_geom *g = p->geom;
    const int64_t size = (int64_t)pc_dtype_size(p->call->dtype), taps = g->kh * g->kw, plane = g->ih * g->iw;
    const int64_t planes = g->n * g->ic, *step = p->source->step;
    pc_slice slice = pc_slice_of(p->call, index);
    const planes_work work = lay_out(&slice, g, p->call->dtype);
    const int64_t begin = planes / count * index + pc_min(index, planes % count);
    const int64_t end = begin + planes / count + (index < planes % count);
    place(p, &work);
    for (int64_t first = begin, some; first < end && !pc_poll(p->call); first += some) {
        const int64_t sample = first / g->ic, channel = first % g->ic;
        some = pc_min(pc_min(TOGETHER, end - first), g->ic - channel);
        const pc_planes_args a = {
            .out = p->out + first * plane * size,
            .in = (const char *)p->source->data + (sample * step[0] + channel * step[1]) * size,
            .weight = p->weight + channel * taps * size,
            .init = p->init ? p->init + channel * size : NULL,
            .planes = some,
            .count = plane,
            .in_step = step[1],
            .taps = taps,
            .offset = work.offset,
            .inside = work.inside,
        };
        pc_kernels_for(p->call->dtype)->conv_planes(&a);
    }
}

void pc_planes_run(const pc_conv_geom *geom, pc_conv_pass pass, void *out, const pc_tensor *source, const void *weight,
                   const void *init, pc_call *call)
{
    planes_pass p = {
        .geom = geom, .pass = pass, .source = source, .weight = weight, .init = init, .out = out, .call = call};
    pc_pool_run(call->threads, run_thread, &p);
}
