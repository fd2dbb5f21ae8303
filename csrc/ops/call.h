/* call.h: what the operators share about one call: threads, scratch, stopping. Private to ops/. */
#ifndef PC_OPS_CALL_H
#define PC_OPS_CALL_H

#include "ops/explain.h"
#include "ops/ops.h"

/* At most `threads`, at most one per `grain` of `work`, at least one. */
int pc_settle(int threads, double work, double grain);

/* Takes a slice of `bytes` for each of the (settled) threads, and `shared` bytes for all of them. */
pc_status pc_begin(pc_call *call, pc_dtype dtype, int threads, double work, int64_t bytes, int64_t shared,
                   pc_error *error);

/* pc_conv_begin and pc_conv_explain for the weight gradient, which is a file of its own. */
pc_status pc_conv_begin_weight(const pc_conv_geom *geom, pc_dtype dtype, int threads, pc_call *call, pc_error *error);
PC_COLD void pc_conv_explain_weight(const pc_conv_geom *geom, pc_call *call, pc_plan *plan);

/* Asked between blocks, on any thread: is this call over? Only the calling thread asks the host. */
bool pc_poll(pc_call *call);

/* A bump allocator over one thread's slice. pc_lay returns the place and moves on, in whole cache lines; with a NULL
 * base it only counts, so the same lines of code that use a slice also say how large it must be. They must not say more
 * when they use it: an arena is often larger than what was asked for, so no sanitizer would see that. */
typedef struct {
    char *base;
    int64_t used, room;
} pc_slice;

void *pc_lay(pc_slice *slice, int64_t count, int64_t size);

PC_INLINE pc_slice pc_slice_of(const pc_call *call, int index)
{
    return (pc_slice){call->scratch + (size_t)index * call->scratch_step, 0, (int64_t)call->scratch_step};
}

#endif
