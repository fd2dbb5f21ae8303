/* dense.inc.h: dense.c's copies, for one T. */

/* One row p, or `count` that are neighbours in the output. Lines are asked for ahead: rows of a phase leave rows out, so
 * no prefetcher follows them, and stores that wait for memory wait one after the other. A batch of 128 took 2.3 times as
 * long (16 channels of 32 x 32), transposed convolutions of 64 samples 1.3 times. */
static void PC_LOCAL(write_panel)(const pc_panel_place *a, T *restrict out, const T *restrict panel, int64_t count)
{
    for (int64_t y = 0; y < a->rows; y++) {
        for (int64_t s = 0; s < a->samples; s++) {
            const T *from = panel + y * a->width * a->samples + s;
            T *to = out + y * a->y_step + s * a->sample_step;
            for (int64_t x = 0; x < a->width * a->x_step; x += LINE / (int64_t)sizeof(T)) {
                __builtin_prefetch((const void *)((uintptr_t)(to + x) + WRITE_AHEAD), 1);
            }
            if (count == 2 && a->samples == 1 && a->x_step == 2) {
                for (int64_t x = 0; x < a->width; x++) {
                    to[2 * x] = from[x];
                    to[2 * x + 1] = from[a->row_step + x];
                }
                continue;
            }
            for (int64_t x = 0; x < a->width; x++) {
                for (int64_t i = 0; i < count; i++) {
                    to[x * a->x_step + i] = from[i * a->row_step + x * a->samples];
                }
            }
        }
    }
}
