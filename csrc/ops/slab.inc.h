/* slab.inc.h: the copy itself, for one T. slab.c includes it once per dtype. */

/* One row of one phase: `extent` elements `samples` apart, of which element v is source position start + v*stride. */
static void PC_LOCAL(pack_row)(const pc_axis *axis, int64_t start, int64_t extent, T *restrict to, int64_t to_step,
                               const T *restrict from, int64_t from_step, T padding)
{
    /* Elements low .. high-1 lie inside the source; those around them are padding. */
    int64_t low = start >= 0 ? 0 : pc_min(extent, pc_ceil_div(-start, axis->stride));
    int64_t high = start >= axis->size ? 0 : pc_min(extent, (axis->size - 1 - start) / axis->stride + 1);
    high = pc_max(low, high);
    for (int64_t v = 0; v < extent; v++) {
        if (v == low && low < high) {
            const T *source = from + (start + low * axis->stride) * from_step;
            const int64_t step = axis->stride * from_step;
            if (step == 1 && to_step == 1) {
                memcpy(to + low, source, (size_t)(high - low) * sizeof(T));
            } else if (step == 2 && to_step == 1) { /* a constant the compiler makes shuffles of: twice as fast */
                for (int64_t i = 0; i < high - low; i++) {
                    to[low + i] = source[2 * i];
                }
            } else {
                for (int64_t i = 0; i < high - low; i++) {
                    to[(low + i) * to_step] = source[i * step];
                }
            }
            v = high - 1;
            continue;
        }
        int64_t i = source_index(axis, start, v);
        to[v * to_step] = i < 0 ? padding : from[i * from_step];
    }
}

static void PC_LOCAL(pack)(const pc_slab *slab, const pc_axis *y, const pc_axis *x, T *packed, const pc_tensor *source,
                           int64_t sample, int64_t channel, int64_t channels, T padding)
{
    const int64_t samples = slab->samples;
    for (int64_t c = 0; c < channels; c++) {
        for (int64_t a = 0; a < slab->y.phases; a++) {
            const int64_t start_y = phase_start(&slab->y, y, a);
            for (int64_t b = 0; b < slab->x.phases; b++) {
                const int64_t start_x = phase_start(&slab->x, x, b);
                T *to = packed + c * slab->channel_step + (a * slab->x.phases + b) * slab->plane_step;
                /* Whole rows one behind the other, here and there: no border, no stride, no gap. */
                if (samples == 1 && x->stride == 1 && y->stride == 1 && start_x == 0 && slab->x.extent == x->size &&
                    start_y >= 0 && start_y + slab->y.extent <= y->size && source->step[3] == 1 &&
                    source->step[2] == x->size) {
                    const T *from = (const T *)source->data + sample * source->step[0] +
                                    (channel + c) * source->step[1] + start_y * source->step[2];
                    memcpy(to, from, (size_t)slab->plane_step * sizeof(T));
                    continue;
                }
                for (int64_t u = 0; u < slab->y.extent; u++, to += slab->row_step) {
                    const int64_t row = source_index(y, start_y, u);
                    if (row < 0) {
                        for (int64_t v = 0; v < slab->row_step; v++) {
                            to[v] = padding;
                        }
                        continue;
                    }
                    const T *from = (const T *)source->data + sample * source->step[0] +
                                    (channel + c) * source->step[1] + row * source->step[2];
                    for (int64_t s = 0; s < samples; s++) {
                        PC_LOCAL(pack_row)
                        (x, start_x, slab->x.extent, to + s, samples, from + s * source->step[0], source->step[3],
                         padding);
                    }
                }
            }
        }
    }
}
