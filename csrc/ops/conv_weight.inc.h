/* conv_weight.inc.h: the weight gradient's copies and sums, for one T. conv_weight.c includes it once per dtype. */

/* panel[pixel][lane] = grad_out[n][oc + lane][y][x] over a chunk. Lanes behind the last channel are not written. */
static void PC_LOCAL(take_panel)(const pc_kernels *kernels, T *panel, int64_t width, int64_t lanes,
                                 const pc_tensor *grad_out, int64_t oc, const pc_chunk *chunk)
{
    const int64_t *step = grad_out->step;
    const bool one_line = step[3] == 1 && step[2] == chunk->columns; /* rows without a gap */
    const int64_t rows = one_line ? 1 : chunk->rows, columns = one_line ? chunk->rows * chunk->columns : chunk->columns;
    for (int64_t s = 0; s < chunk->samples; s++) {
        for (int64_t j = 0; j < rows; j++, panel += columns * width) {
            const T *row = (const T *)grad_out->data + (chunk->n + s) * step[0] + oc * step[1] +
                           (chunk->y + j) * step[2] + chunk->x * step[3];
            if (step[3] == 1) {
                kernels->transpose(&(pc_transpose_args){
                    .out = panel, .out_step = width, .in = row, .in_step = step[1], .rows = lanes, .columns = columns});
                continue;
            }
            for (int64_t i = 0; i < columns; i++) {
                for (int64_t l = 0; l < lanes; l++) {
                    panel[i * width + l] = row[i * step[3] + l * step[1]];
                }
            }
        }
    }
}

/* to[weight][lane] = total[weight][lane], or that added. */
static void PC_LOCAL(write)(T *restrict to, int64_t step, const T *restrict total, int64_t width, int64_t weights,
                            int64_t lanes, bool add)
{
    for (int64_t j = 0; j < weights; j++, to += step, total += width) {
        if (!add) {
            memcpy(to, total, (size_t)lanes * sizeof(T));
            continue;
        }
        for (int64_t l = 0; l < lanes; l++) {
            to[l] += total[l];
        }
    }
}
