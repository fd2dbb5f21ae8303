/* dense.inc.h: dense.c's copies, for one T. */

static void PC_LOCAL(write_panel)(const pc_panel_place *a, T *restrict out, const T *restrict panel, int64_t planes)
{
    for (int64_t p = 0; p < planes; p++) {
        for (int64_t y = 0; y < a->rows; y++) {
            for (int64_t s = 0; s < a->samples; s++) {
                const T *from = panel + (p * a->rows + y) * a->width * a->samples + s;
                T *to = out + p * a->plane_step + y * a->y_step + s * a->sample_step;
                for (int64_t x = 0; x < a->width; x++) {
                    to[x * a->x_step] = from[x * a->samples];
                }
            }
        }
    }
}
