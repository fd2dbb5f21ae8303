/* explain.h: what a call is going to do, for a person.
 *
 *     pc_conv_begin(&geom, pass, ..., &call, &error);
 *     pc_conv_explain(&geom, pass, &call, &plan);
 *     pc_end(&call);
 *
 * Threads and scratch are those of the call. The rest is read from the structs by which the operators run: each file of
 * ops/ that makes such a struct has an _explain beside it that copies it out, and computes nothing that run would not
 * take from the same function. Finite weights are assumed, and tensors in C order.
 */
#ifndef PC_OPS_EXPLAIN_H
#define PC_OPS_EXPLAIN_H

#include <assert.h>

#include "ops/ops.h"

enum { PC_PLAN_BLOCKS = 16 };

typedef struct {
    const char *name;
    int64_t value;
} pc_plan_block;

typedef struct {
    const char *family;              /* NULL: nothing to do */
    const char *form;                /* of the family; "" where there is one alone */
    const char *kernel;              /* the one of kernels.def that does the arithmetic; NULL: a scalar loop */
    int64_t phases;                  /* sweeps (conv.c) */
    int64_t tile_rows, tile_vectors; /* 0: the kernel decides */
    int64_t items;                   /* what threads take one after the other; -1: too many to be counted */
    int count;                       /* of the blocks */
    pc_plan_block block[PC_PLAN_BLOCKS];
} pc_plan;

PC_INLINE void pc_plan_add(pc_plan *plan, const char *name, int64_t value)
{
    assert(plan->count < PC_PLAN_BLOCKS);
    plan->block[plan->count++] = (pc_plan_block){name, value};
}

/* Of calls that have begun. */
PC_COLD void pc_conv_explain(const pc_conv_geom *geom, pc_conv_pass pass, pc_call *call, pc_plan *plan);
PC_COLD void pc_pool_explain(const pc_pool_geom *geom, pc_pool_pass pass, pc_call *call, pc_plan *plan);

#endif
