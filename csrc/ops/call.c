#include "ops/call.h"

#include <assert.h>

#include "base/checked.h"
#include "base/scratch.h"

enum { LINE = 64, MOST_THREADS = 1024 };

/* Its address tells a thread from all others. */
static _Thread_local char me;

int pc_settle(int threads, double work, double grain)
{
    if (threads > MOST_THREADS) {
        threads = MOST_THREADS;
    }
    if (work / grain < threads) {
        threads = (int)(work / grain);
    }
    return threads < 1 ? 1 : threads;
}

pc_status pc_begin(pc_call *call, pc_dtype dtype, int threads, double work, int64_t bytes, int64_t shared,
                   pc_error *error)
{
    int64_t total;
    /* An odd number of lines apart, so that slices do not fall on the same cache sets. */
    int64_t step = (pc_ceil_div(bytes, LINE) | 1) * LINE;
    if (bytes < 0 || shared < 0 || pc_mul(&total, step, threads) || pc_add(&total, total, shared)) {
        return pc_fail(error, PC_MEMORY_ERROR, "the workspace would not fit into memory");
    }
    void *scratch = pc_scratch_take((size_t)total);
    if (!scratch) {
        return pc_fail(error, PC_MEMORY_ERROR, "no memory for a workspace of %lld bytes", (long long)total);
    }
    call->dtype = dtype;
    call->threads = threads;
    call->scratch = scratch;
    call->scratch_step = (size_t)step;
    call->shared = call->scratch + step * threads;
    call->shared_size = (size_t)shared;
    call->work = work;
    call->stop = (pc_stop){NULL, NULL};
    call->caller = &me;
    atomic_init(&call->stopped, false);
    return PC_OK;
}

void pc_end(pc_call *call)
{
    pc_scratch_give(call->scratch);
    call->scratch = NULL;
}

bool pc_poll(pc_call *call)
{
    if (call->caller == &me && call->stop.should_stop && !pc_stopped(call) &&
        call->stop.should_stop(call->stop.context)) {
        atomic_store_explicit(&call->stopped, true, memory_order_relaxed);
    }
    return pc_stopped(call);
}

void *pc_lay(pc_slice *slice, int64_t count, int64_t size)
{
    char *place = slice->base ? slice->base + slice->used : NULL;
    int64_t bytes;
    /* A count that overflows makes `used` negative for good, which pc_begin refuses. */
    if (slice->used < 0 || pc_mul(&bytes, count, size) || bytes > INT64_MAX / 4 - LINE ||
        pc_add(&slice->used, slice->used, pc_ceil_div(bytes, LINE) * LINE) || slice->used > INT64_MAX / 4) {
        slice->used = -1;
    }
    assert(!place || (slice->used >= 0 && slice->used <= slice->room));
    return place;
}
