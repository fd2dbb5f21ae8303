/* channel_sum.inc.h: the sums themselves, for one T. channel_sum.c includes it once per dtype. */

/* Folds strips[k][c] over k by halves and adds it to sums[c]; the strips are zeros again. */
static void PC_LOCAL(fold)(T *sums, T strips[][ABREAST], int64_t channels)
{
    for (int64_t half = PC_STRIPS / 2; half > 0; half /= 2) {
        for (int64_t k = 0; k < half; k++) {
            for (int64_t c = 0; c < channels; c++) {
                strips[k][c] += strips[k + half][c];
            }
        }
    }
    for (int64_t c = 0; c < channels; c++) {
        sums[c] += strips[0][c];
    }
    for (int64_t k = 0; k < PC_STRIPS; k++) {
        for (int64_t c = 0; c < ABREAST; c++) {
            strips[k][c] = 0;
        }
    }
}

/* sums[c] of `channels` channels, at most ABREAST, from channel `first` on. */
static void PC_LOCAL(channel_sums)(const pc_kernels *kernels, T *sums, const int64_t shape[4], const pc_tensor *tensor,
                                   int64_t first, int64_t channels)
{
    const int64_t height = shape[2], width = shape[3], pixels = height * width, *step = tensor->step;
    const int64_t together = pc_max(1, FOLDED / pixels);
    const bool planes = step[3] == 1 && step[2] == width;
    T strips[PC_STRIPS][ABREAST] = {{0}}, plane[ABREAST][PC_STRIPS] = {{0}};
    for (int64_t c = 0; c < channels; c++) {
        sums[c] = 0;
    }
    for (int64_t n = 0; n < shape[0]; n++) {
        const T *from = (const T *)tensor->data + n * step[0] + first * step[1];
        if (planes) {
            for (int64_t c = 0; c < channels; c++) {
                kernels->strip_sums(&(pc_strips_args){.sums = plane[c], .in = from + c * step[1], .count = pixels});
            }
        } else {
            for (int64_t y = 0, k = 0; y < height; y++) {
                for (int64_t x = 0; x < width; x++, k = (k + 1) % PC_STRIPS) {
                    for (int64_t c = 0; c < channels; c++) {
                        strips[k][c] += from[y * step[2] + x * step[3] + c * step[1]];
                    }
                }
            }
        }
        if ((n + 1) % together == 0 || n + 1 == shape[0]) {
            for (int64_t k = 0; planes && k < PC_STRIPS; k++) {
                for (int64_t c = 0; c < channels; c++) {
                    strips[k][c] = plane[c][k];
                    plane[c][k] = 0;
                }
            }
            PC_LOCAL(fold)(sums, strips, channels);
        }
    }
}
