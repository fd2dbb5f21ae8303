/* dense.h: the items of a pass (sweep.h), done by the register tile dense_tile. Private to ops/; conv.c has the chapter.
 *
 *     pc_dense_lay(...)      one thread's memory for a cut, or its size
 *     pc_dense_run(...)      the items that are this thread's
 */
#ifndef PC_OPS_DENSE_H
#define PC_OPS_DENSE_H

#include "isa/dispatch.h"
#include "ops/call.h"
#include "ops/sweep.h"

/* What forward and input gradient share, and what their names for it are. */
typedef struct {
    pc_conv_geom geom; /* of the sweeps; see `window` */
    const pc_tensor *source;
    const char *weight, *init;
    char *out;
    pc_call *call;
    const pc_kernels *kernels;
    bool forward;
    bool skip, exact;
    int64_t rows, depth; /* outputs and source channels of a group */
    int64_t out_h, out_w;
    int64_t p_step, c_step; /* in the weight */
    int64_t window_h,
        window_w; /* each channel is so many rows p, one for each pixel of a window that tiles the output */
} pc_pass;

/* A piece of an item: a band of one sweep, of a block of samples, and which taps it reads. */
typedef struct {
    int64_t sweep, y, y_end, x, x_end, sample, samples;
    int64_t tap_y, taps_y, tap_x, taps_x;
    int64_t set, taps; /* its set of taps, and so many are in the sets before */
    int64_t outputs;   /* so many are in the parts before */
    bool direct;       /* they are neighbours in memory */
} pc_part;

/* What a slot for a slab holds, so that nothing is packed twice. */
typedef struct {
    pc_span y, x;
    int64_t samples; /* 0: nothing */
    int64_t sweep, sample, channel;
} pc_held;

/* One thread's memory. */
typedef struct {
    void *slab, *weights, *panel;
    int64_t *list;         /* steps in the slab */
    int64_t *row, *column; /* of the taps, in the slab */
    pc_part *part;
    pc_held *held;
    int64_t *first;  /* of the places, for each tap of the window */
    pc_place *place; /* kernels.h, pack_scalars */
} pc_dense_work;

/* Called once to count and once to use. */
pc_dense_work pc_dense_lay(pc_slice *slice, const pc_cut *cut, pc_dtype dtype);

/* Items are counted through all ranges in *item; thread `index` takes every count-th. */
void pc_dense_run(const pc_pass *pass, pc_range range, const pc_cut *cut, pc_dense_work work, int index, int count,
                  int64_t *item);

#endif
