/* slab.inc.h: the copy itself, for one T. slab.c includes it once per dtype. */

/* A part of one plane of the slab, element by element: for the few that lie outside the source. */
static void PC_LOCAL(pack_edge)(const pc_slab *slab, const pc_rim *y, const pc_rim *x, T *to, const T *from,
                                const int64_t *step, int64_t row_first, int64_t row_end, int64_t first, int64_t end)
{
    for (int64_t u = row_first; u < row_end; u++) {
        const int64_t row = source_index(y->axis, y->start, u);
        for (int64_t v = first; v < end; v++) {
            const int64_t column = row < 0 ? -1 : source_index(x->axis, x->start, v);
            for (int64_t s = 0; s < slab->samples; s++) {
                to[u * slab->row_step + v * slab->samples + s] =
                    column < 0 ? 0 : from[s * step[0] + row * step[2] + column * step[3]];
            }
        }
    }
}

static void PC_LOCAL(pack_edges)(const pc_slab *slab, const pc_rim *y, const pc_rim *x, T *to, const T *from,
                                 const int64_t *step)
{
    const int64_t height = slab->y.extent, width = slab->x.extent;
    PC_LOCAL(pack_edge)(slab, y, x, to, from, step, 0, y->low, 0, width);
    PC_LOCAL(pack_edge)(slab, y, x, to, from, step, y->low, y->high, 0, x->low);
    PC_LOCAL(pack_edge)(slab, y, x, to, from, step, y->low, y->high, x->high, width);
    PC_LOCAL(pack_edge)(slab, y, x, to, from, step, y->high, height, 0, width);
}

PC_INLINE void PC_LOCAL(zero)(T *to, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        to[i] = 0;
    }
}

/* The same where padding is zeros. What is right of a row and left of the next is one run. */
static void PC_LOCAL(zero_edges)(const pc_slab *slab, const pc_rim *y, const pc_rim *x, T *to)
{
    const int64_t left = x->low * slab->samples, right = (slab->x.extent - x->high) * slab->samples;
    PC_LOCAL(zero)(to, y->low * slab->row_step + (y->low < y->high ? left : 0));
    for (int64_t u = y->low; u < y->high && left + right > 0; u++) {
        PC_LOCAL(zero)(to + (u + 1) * slab->row_step - right, right + (u + 1 < y->high ? left : 0));
    }
    PC_LOCAL(zero)(to + y->high * slab->row_step, (slab->y.extent - y->high) * slab->row_step);
}

/* The elements inside the source, of `channels` channels that lie slab->channel_step apart. */
static void PC_LOCAL(pack_inside)(const pc_slab *slab, const pc_rim *y, const pc_rim *x, T *to, const T *from,
                                  const int64_t *step, int64_t channels)
{
    const pc_kernels *kernels = pc_kernels_for(sizeof(T) == sizeof(float) ? PC_F32 : PC_F64);
    const int64_t rows = y->high - y->low, columns = x->high - x->low, samples = slab->samples;
    const int64_t row_step = y->axis->stride * step[2], column_step = x->axis->stride * step[3];
    if (rows <= 0 || columns <= 0) {
        return;
    }
    to += y->low * slab->row_step + x->low * samples;
    from += (y->start + y->low * y->axis->stride) * step[2] + (x->start + x->low * x->axis->stride) * step[3];
    if (samples == 1 && step[1] == 1 && channels > 1 && column_step != 1) { /* channels lie side by side */
        for (int64_t u = 0; u < rows; u++) {
            kernels->transpose(&(pc_transpose_args){.out = to + u * slab->row_step,
                                                    .out_step = slab->channel_step,
                                                    .in = from + u * row_step,
                                                    .in_step = column_step,
                                                    .rows = columns,
                                                    .columns = channels});
        }
        return;
    }
    /* Rows that run on here and there are one row. */
    const bool whole = columns * column_step == row_step && columns * samples == slab->row_step;
    for (int64_t c = 0; c < channels; c++, to += slab->channel_step, from += step[1]) {
        if (samples == 1) {
            kernels->copy_rows(&(pc_copy_args){.to = to,
                                               .from = from,
                                               .rows = whole ? 1 : rows,
                                               .columns = whole ? rows * columns : columns,
                                               .to_step = slab->row_step,
                                               .from_step = row_step,
                                               .from_column = column_step,
                                               .ahead = step[1]});
            continue;
        }
        for (int64_t u = 0; u < (whole ? 1 : rows); u++) {
            T *line = to + u * slab->row_step;
            const T *source = from + u * row_step;
            const int64_t length = whole ? rows * columns : columns;
            if (column_step == 1) {
                kernels->transpose(&(pc_transpose_args){.out = line,
                                                        .out_step = samples,
                                                        .in = source,
                                                        .in_step = step[0],
                                                        .rows = samples,
                                                        .columns = length});
                continue;
            }
            for (int64_t i = 0; i < length; i++) {
                for (int64_t s = 0; s < samples; s++) {
                    line[i * samples + s] = source[i * column_step + s * step[0]];
                }
            }
        }
    }
}

static void PC_LOCAL(pack)(const pc_slab *slab, const pc_axis *y, const pc_axis *x, T *packed, const pc_tensor *source,
                           int64_t sample, int64_t channel, int64_t channels, bool rim)
{
    const int64_t *step = source->step;
    const T *from = (const T *)source->data + sample * step[0] + channel * step[1];
    const bool zeros = y->mode == PC_PAD_ZEROS && x->mode == PC_PAD_ZEROS;
    for (int64_t a = 0; a < slab->y.phases; a++) {
        const pc_rim rim_y = rim_of(&slab->y, y, a);
        for (int64_t b = 0; b < slab->x.phases; b++) {
            const pc_rim rim_x = rim_of(&slab->x, x, b);
            T *to = packed + (a * slab->x.phases + b) * slab->plane_step;
            for (int64_t c = 0; c < channels && (rim || !zeros); c++) {
                if (zeros) {
                    PC_LOCAL(zero_edges)(slab, &rim_y, &rim_x, to + c * slab->channel_step);
                } else {
                    PC_LOCAL(pack_edges)
                    (slab, &rim_y, &rim_x, to + c * slab->channel_step, from + c * step[1], step);
                }
            }
            PC_LOCAL(pack_inside)(slab, &rim_y, &rim_x, to, from, step, channels);
        }
    }
}
