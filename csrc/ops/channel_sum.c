/* channel_sum.c: bias gradients, sums[c] = sum of tensor[n][c][y][x] over n, y, x.
 *
 * The pixels of a sample, counted along its rows, are dealt to sixteen sums, whatever the machine's vectors; samples
 * follow each other until about 4096 pixels are in, then the sixteen are folded by halves into one, which is added to the
 * channel's total. So the shape alone fixes the order. Planes without gaps are read by a kernel; where channels are
 * neighbours (channels-last memory), sixteen of them are summed side by side. */
#include "base/pool.h"
#include "isa/dispatch.h"
#include "ops/call.h"

enum { GRAIN = 1 << 20, FOLDED = 4096, ABREAST = 16 };

typedef struct {
    const int64_t *shape;
    void *sums;
    const pc_tensor *tensor;
    pc_call *call;
} pc_sum_pass;

#define T float
#define PC_LOCAL(name) name##_f32
#include "ops/channel_sum.inc.h"
#undef T
#undef PC_LOCAL
#define T double
#define PC_LOCAL(name) name##_f64
#include "ops/channel_sum.inc.h"
#undef T
#undef PC_LOCAL

static void sum_thread(void *context, int index, int count)
{
    const pc_sum_pass *pass = context;
    const pc_kernels *kernels = pc_kernels_for(pass->call->dtype);
    const int64_t channels = pass->shape[1];
    for (int64_t c = index * ABREAST; c < channels && !pc_poll(pass->call); c += count * ABREAST) {
        const int64_t some = pc_min(ABREAST, channels - c);
        if (pass->call->dtype == PC_F32) {
            channel_sums_f32(kernels, (float *)pass->sums + c, pass->shape, pass->tensor, c, some);
        } else {
            channel_sums_f64(kernels, (double *)pass->sums + c, pass->shape, pass->tensor, c, some);
        }
    }
}

pc_status pc_channel_sum_begin(const int64_t shape[4], pc_dtype dtype, int threads, pc_call *call, pc_error *error)
{
    const double work = (double)shape[0] * (double)shape[1] * (double)shape[2] * (double)shape[3];
    return pc_begin(call, dtype, pc_settle(threads, work, GRAIN), work, 0, 0, error);
}

void pc_channel_sum(const int64_t shape[4], void *sums, const pc_tensor *tensor, pc_call *call)
{
    pc_sum_pass pass = {shape, sums, tensor, call};
    pc_pool_run(call->threads, sum_thread, &pass);
}
