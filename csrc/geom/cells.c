/* cells.c: two questions about single cells of one axis. Both answer for any integers and never overflow, so that a
 * caller may ask about positions that it has not checked.
 */
#include "base/checked.h"
#include "geom/geom.h"

/* The image goes on without end to both sides, by the mode's rule; padding is a cut out of that. For an image of four
 *     reflect     2 1 |0 1 2 3| 2 1 0 1 2 3    bounces off the first and the last element, period 2*(size - 1)
 *     replicate   0 0 |0 1 2 3| 3 3 3 3 3 3
 *     circular    2 3 |0 1 2 3| 0 1 2 3 0 1    period size
 */
int64_t pc_pad_source(pc_pad_mode mode, int64_t i, int64_t size)
{
    if (i >= 0 && i < size) {
        return i;
    }
    if (size < 1) {
        return -1;
    }
    switch (mode) {
    case PC_PAD_REFLECT: {
        if (size == 1) {
            return 0;
        }
        /* Unsigned: the distance of INT64_MIN from 0 and a period of almost 2**64 fit. */
        uint64_t distance = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
        uint64_t period = 2 * (uint64_t)(size - 1);
        distance %= period;
        return (int64_t)(distance < (uint64_t)size ? distance : period - distance);
    }
    case PC_PAD_REPLICATE:
        return i < 0 ? 0 : size - 1;
    case PC_PAD_CIRCULAR: {
        int64_t rest = i % size;
        return rest < 0 ? rest + size : rest;
    }
    case PC_PAD_ZEROS:
    default:
        return -1;
    }
}

int64_t pc_avg_pool_count(int64_t size, int64_t o, int64_t kernel, int64_t stride, int64_t pad, bool include_pad)
{
    int64_t padded, start;
    if (size < 1 || o < 0 || kernel < 1 || stride < 1 || pad < 0 || pc_add(&padded, size, pad) ||
        pc_add(&padded, padded, pad)) {
        return 0; /* no pool is like that */
    }
    if (pc_mul(&start, o, stride) || start >= padded) {
        return 0;
    }
    /* From the left end of the padding, where nothing can overflow: start + kernel might. */
    int64_t end = kernel < padded - start ? start + kernel : padded;
    if (!include_pad) {
        start = pc_max(start, pad);
        end = pc_min(end, pad + size);
    }
    return pc_max(end - start, 0);
}
