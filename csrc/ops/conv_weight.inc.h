/* conv_weight.inc.h: the weight gradient's copies and sums, for one T. conv_weight.c includes it once per dtype. */

/* grad[pixel][lane] = grad_out[n][oc + lane][y][x] over a chunk, in blocks of pixels that stay in L1 while the lanes
 * go over them. Lanes behind the last channel are not written. */
static void PC_LOCAL(transpose)(T *restrict grad, int64_t width, int64_t lanes, const pc_tensor *grad_out, int64_t oc,
                                const pc_chunk *chunk)
{
    const int64_t step = grad_out->step[3];
    for (int64_t s = 0; s < chunk->samples; s++) {
        for (int64_t j = 0; j < chunk->rows; j++, grad += chunk->columns * width) {
            const T *row = (const T *)grad_out->data + (chunk->n + s) * grad_out->step[0] + oc * grad_out->step[1] +
                           (chunk->y + j) * grad_out->step[2] + chunk->x * step;
            const int64_t pixels = pc_max(16, BLOCK_BYTES / (width * (int64_t)sizeof(T)));
            for (int64_t block = 0; block < chunk->columns; block += pixels) {
                const int64_t end = pc_min(block + pixels, chunk->columns);
                for (int64_t l = 0; l < lanes; l++) {
                    const T *from = row + l * grad_out->step[1];
                    for (int64_t i = block; i < end; i++) {
                        grad[i * width + l] = from[i * step];
                    }
                }
            }
        }
    }
}

static void PC_LOCAL(add)(T *restrict total, const T *restrict tile, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        total[i] += tile[i];
    }
}

/* total[r][t][c][lane] -> grad_weight[lane][c][r][t]; no total (a batch of none) means zeros. */
static void PC_LOCAL(write)(T *restrict to, int64_t lane_step, int64_t channel_step, const T *restrict total,
                            const pc_weight_item *item, int64_t width, int64_t kw)
{
    for (int64_t l = 0; l < item->lanes; l++) {
        for (int64_t c = 0; c < item->channels; c++) {
            T *weight = to + l * lane_step + c * channel_step;
            for (int64_t k = 0; k < item->kernel_rows * kw; k++) {
                weight[k] = total ? total[(k * item->channels + c) * width + l] : 0;
            }
        }
    }
}

/* Sixteen sums side by side within a sample, whatever the machine's vectors, folded by halves; samples in order. */
static T PC_LOCAL(channel_sum)(const int64_t shape[4], const pc_tensor *tensor, int64_t channel)
{
    T total = 0;
    for (int64_t n = 0; n < shape[0]; n++) {
        T sums[16] = {0};
        for (int64_t y = 0; y < shape[2]; y++) {
            const T *row =
                (const T *)tensor->data + n * tensor->step[0] + channel * tensor->step[1] + y * tensor->step[2];
            const int64_t step = tensor->step[3], whole = shape[3] - shape[3] % 16;
            if (step == 1) {
                for (int64_t x = 0; x < whole; x += 16) {
                    for (int64_t k = 0; k < 16; k++) {
                        sums[k] += row[x + k];
                    }
                }
            } else {
                for (int64_t x = 0; x < whole; x++) {
                    sums[x % 16] += row[x * step];
                }
            }
            for (int64_t x = whole; x < shape[3]; x++) {
                sums[x % 16] += row[x * step];
            }
        }
        for (int64_t half = 8; half > 0; half /= 2) {
            for (int64_t k = 0; k < half; k++) {
                sums[k] += sums[k + half];
            }
        }
        total += sums[0];
    }
    return total;
}
