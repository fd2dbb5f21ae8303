/* map.c: what looks at one element at a time: ReLU and its gradient.
 *
 * Nothing to plan: each thread takes one run of neighbouring elements (so that threads share no page of a fresh output
 * but one), in blocks small enough to ask between them whether the call is over. Runs begin at a whole word of bits. */
#include "base/pool.h"
#include "isa/dispatch.h"
#include "ops/call.h"

enum {
    WORD = 64,       /* elements whose bits share a word */
    BLOCK = 1 << 18, /* elements between two questions: a tenth of a millisecond */
    GRAIN = 1 << 19, /* elements (a tenth of a millisecond) below which a second thread brings nothing: memory */
};

typedef struct {
    int64_t count;
    void (*kernel)(const pc_map_args *);
    pc_map_args args; /* from element 0 on */
    pc_call *call;
} map_pass;

static void run(void *context, int index, int count)
{
    const map_pass *p = context;
    const int64_t size = (int64_t)pc_dtype_size(p->call->dtype);
    const int64_t words = pc_ceil_div(p->count, WORD);
    const int64_t first = words / count * index + pc_min(index, words % count);
    const int64_t last = pc_min((first + words / count + (index < words % count)) * WORD, p->count);
    for (int64_t i = first * WORD; i < last && !pc_poll(p->call); i += BLOCK) {
        pc_map_args args = p->args;
        args.out = (char *)args.out + i * size;
        args.in = args.in ? (const char *)args.in + i * size : NULL;
        args.grad = args.grad ? (const char *)args.grad + i * size : NULL;
        args.bits = args.bits ? args.bits + i / WORD : NULL;
        args.count = pc_min(BLOCK, last - i);
        p->kernel(&args);
    }
}

pc_status pc_relu_begin(int64_t count, pc_dtype dtype, int threads, pc_call *call, pc_error *error)
{
    return pc_begin(call, dtype, pc_settle(threads, (double)count, GRAIN), (double)count, 0, 0, error);
}

void pc_relu_forward(int64_t count, void *out, uint64_t *bits, const void *in, pc_call *call)
{
    map_pass p = {.count = count,
                  .kernel = pc_kernels_for(call->dtype)->relu_forward,
                  .args = {.out = out, .in = in, .bits = bits},
                  .call = call};
    pc_pool_run(call->threads, run, &p);
}

void pc_relu_backward(int64_t count, void *grad_in, const void *grad_out, const void *in, const uint64_t *bits,
                      pc_call *call)
{
    map_pass p = {.count = count,
                  .kernel = pc_kernels_for(call->dtype)->relu_backward,
                  .args = {.out = grad_in, .grad = grad_out, .in = in, .bits = (uint64_t *)(uintptr_t)bits},
                  .call = call};
    pc_pool_run(call->threads, run, &p);
}
