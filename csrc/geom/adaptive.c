/* adaptive.c: the windows of adaptive pooling, which follow from two sizes alone. */
#include "base/checked.h"
#include "geom/geom.h"

pc_status pc_adaptive_size_check(const int64_t output_size[2], pc_error *error)
{
    if ((output_size[0] < 0 && output_size[0] != PC_SIZE_KEPT) ||
        (output_size[1] < 0 && output_size[1] != PC_SIZE_KEPT)) {
        return pc_fail(error, PC_VALUE_ERROR,
                       "elements of output_size must be greater than or equal to 0 but received {%lld, %lld}",
                       (long long)output_size[0], (long long)output_size[1]);
    }
    return PC_OK;
}

pc_status pc_adaptive_geometry(const int64_t input_shape[4], const int64_t output_size[2], pc_adaptive_geom *geom,
                               pc_error *error)
{
    const pc_status status = pc_adaptive_size_check(output_size, error);
    if (status != PC_OK) {
        return status;
    }
    for (int axis = 2; axis < 4; axis++) {
        if (input_shape[axis] < 1) {
            return pc_fail(error, PC_VALUE_ERROR,
                           "Expected input to have non-zero size for non-batch dimensions, got an image of %lld x %lld",
                           (long long)input_shape[2], (long long)input_shape[3]);
        }
    }
    const pc_adaptive_geom found = {.n = input_shape[0],
                                    .c = input_shape[1],
                                    .ih = input_shape[2],
                                    .iw = input_shape[3],
                                    .oh = output_size[0] == PC_SIZE_KEPT ? input_shape[2] : output_size[0],
                                    .ow = output_size[1] == PC_SIZE_KEPT ? input_shape[3] : output_size[1]};
    /* The input is an array, but a shape that somebody wrote down may be anything. */
    int64_t sizes[2] = {sizeof(double), sizeof(double)}, product;
    bool bad = pc_mul(&product, found.oh, found.ih);
    bad |= pc_mul(&product, found.ow, found.iw);
    for (int i = 0; i < 4; i++) {
        const int64_t in = input_shape[i], out = i < 2 ? in : i == 2 ? found.oh : found.ow;
        bad |= pc_mul(&sizes[0], sizes[0], in > 0 ? in : 1);
        bad |= pc_mul(&sizes[1], sizes[1], out > 0 ? out : 1);
    }
    if (bad) {
        return pc_fail(error, PC_MEMORY_ERROR,
                       "an output of %lld x %lld from an image of %lld x %lld, %lld x %lld of them, would be too large",
                       (long long)found.oh, (long long)found.ow, (long long)found.ih, (long long)found.iw,
                       (long long)found.n, (long long)found.c);
    }
    *geom = found;
    return PC_OK;
}

int64_t pc_adaptive_window(int64_t size, int64_t count, int64_t o, int64_t *length)
{
    const int64_t first = o * size / count;
    *length = pc_ceil_div((o + 1) * size, count) - first;
    return first;
}
