/* dense.h: a sweep's items (sweep.h), done by the register tile dense_tile. Private to ops/; conv.c has the chapter.
 *
 *     pc_dense_count(geom, sweep, cut)          how many items a sweep has
 *     pc_dense_lay(...)                         one thread's memory for a cut, or its size
 *     pc_dense_run(pass, sweep, cut, ...)       the items that are this thread's
 */
#ifndef PC_OPS_DENSE_H
#define PC_OPS_DENSE_H

#include "isa/dispatch.h"
#include "ops/call.h"
#include "ops/sweep.h"

/* What forward and input gradient share, and what their names for it are. */
typedef struct {
    const pc_conv_geom *geom;
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
} pc_pass;

/* One thread's memory. Called once to count and once to use. */
typedef struct {
    void *slab, *weights, *columns, *panel;
    int64_t *list, *regular; /* steps in the slab, and in packed columns */
    int64_t *row, *column, *parts;
} pc_dense_work;

pc_dense_work pc_dense_lay(pc_slice *slice, const pc_cut *cut, pc_dtype dtype);

/* Items are counted through all sweeps in *item; thread `index` takes every count-th. */
void pc_dense_run(const pc_pass *pass, const pc_sweep *sweep, const pc_cut *cut, pc_dense_work work, int index,
                  int count, int64_t *item);

#endif
