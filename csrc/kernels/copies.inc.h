/* pack_scalars, pack_columns, copy_rows: what dense_tile needs copied before it runs. */

/* Where step k of a channel goes, its place number i. */
PC_INLINE T *PC_LOCAL(place)(const pc_pack_args *a, int64_t channel, int64_t k, int64_t i)
{
    const int64_t at = a->first ? a->place[i].at + (a->channel + channel) * a->place[i].step
                                : (channel * a->steps + k) * PC_DENSE_ROWS;
    return (T *)a->to + at;
}

/* As many steps as a vector has lanes, or fewer, turn in registers. Vectors are stored whole, so what lies behind the
 * rows of one step is overwritten by the next. */
PC_INLINE void PC_LOCAL(pack_block)(const pc_pack_args *a, int64_t channel, int64_t first, const int64_t rows,
                                    const int64_t steps, const bool placed)
{
    enum { PARTS = (PC_DENSE_ROWS + V_LANES - 1) / V_LANES };
    const T *from = (const T *)a->from + channel * a->channel_step + first;
    v_t x[PARTS][V_LANES];
    PC_UNROLL(4)
    for (int part = 0; part < PARTS; part++) {
        PC_UNROLL(16)
        for (int i = 0; i < V_LANES; i++) {
            const int64_t p = part * V_LANES + i;
            if (p >= PC_DENSE_ROWS || p >= rows) {
                x[part][i] = v_zero();
            } else {
                x[part][i] =
                    steps < V_LANES ? v_load_tail(from + p * a->row_step, steps) : v_load(from + p * a->row_step);
            }
        }
        v_transpose(x[part]);
    }
    PC_UNROLL(16)
    for (int k = 0; k < V_LANES; k++) {
        const int64_t begin = placed && k < steps ? a->first[first + k] : 0;
        const int64_t end = placed && k < steps ? a->first[first + k + 1] : k < steps;
        for (int64_t i = begin; i < end; i++) {
            PC_UNROLL(4)
            for (int part = 0; part < PARTS; part++) {
                v_store(PC_LOCAL(place)(a, channel, first + k, i) + part * V_LANES, x[part][k]);
            }
        }
    }
}

/* Rows that lie side by side need no turning. A row may be read beyond its end while there is another behind it. */
PC_INLINE void PC_LOCAL(pack_rows)(const pc_pack_args *a)
{
    T *to = a->to;
    const T *from = a->from;
    for (int64_t c = 0; c < a->channels; c++, to += PC_DENSE_ROWS, from += a->channel_step) {
        for (int64_t p = 0; p < a->rows; p += V_LANES) {
            const bool inside = c + 1 < a->channels && a->channel_step >= p + V_LANES;
            v_store(to + p, inside ? v_load(from + p) : v_load_tail(from + p, pc_min(V_LANES, a->rows - p)));
        }
    }
}

void PC_SYMBOL(pack_scalars)(const pc_pack_args *a)
{
    enum { FEW = 2 }; /* steps that are not worth turning */
    if (a->row_step == 1 && a->steps == 1 && !a->first) {
        PC_LOCAL(pack_rows)(a);
        return;
    }
    for (int64_t c = 0; c < a->channels; c++) {
        for (int64_t k = 0; k < a->steps; k += V_LANES) {
            const int64_t steps = pc_min(V_LANES, a->steps - k);
            if (steps <= FEW) {
                const T *from = (const T *)a->from + c * a->channel_step;
                for (int64_t j = k; j < k + steps; j++) {
                    for (int64_t i = a->first ? a->first[j] : 0; i < (a->first ? a->first[j + 1] : 1); i++) {
                        T *to = PC_LOCAL(place)(a, c, j, i);
                        for (int64_t p = 0; p < a->rows; p++) {
                            to[p] = from[p * a->row_step + j];
                        }
                    }
                }
            } else if (a->first) {
                if (a->first[k] < a->first[k + steps]) {
                    PC_LOCAL(pack_block)(a, c, k, a->rows, steps, true);
                }
            } else if (steps == V_LANES && a->rows == PC_DENSE_ROWS) {
                PC_LOCAL(pack_block)(a, c, k, PC_DENSE_ROWS, V_LANES, false);
            } else {
                PC_LOCAL(pack_block)(a, c, k, a->rows, steps, false);
            }
        }
    }
}

/* Every part is copied as if it went on to the end; the next one, or the next step, writes over what is too much. */
PC_INLINE void PC_LOCAL(pack_step)(T *to, const T *from, const pc_columns_args *a)
{
    for (int64_t s = 0; s < a->parts; s++) {
        const T *part = from + a->part_from[s];
        for (int64_t i = a->part_to[s]; i < a->width; i += V_LANES, part += V_LANES) {
            v_store(to + i, v_load(part));
        }
    }
}

PC_INLINE void PC_LOCAL(pack_all)(const pc_columns_args *a, const int vectors)
{
    T *to = a->to;
    const T *from = a->from;
    for (int64_t o = 0; o <= a->outer; o++, from += a->from_outer) {
        const int64_t count = o < a->outer ? a->count : a->rest;
        for (int64_t k = 0; k < count; k++, to += a->width) {
            if (vectors == 0) {
                PC_LOCAL(pack_step)(to, from + a->list[k], a);
                continue;
            }
            PC_UNROLL(8)
            for (int v = 0; v < vectors; v++) {
                v_store(to + v * V_LANES, v_load(from + a->list[k] + v * V_LANES));
            }
        }
    }
}

void PC_SYMBOL(pack_columns)(const pc_columns_args *a)
{
    if (a->parts == 1 && a->part_from[0] == 0 && a->width == 2 * V_LANES) {
        PC_LOCAL(pack_all)(a, 2);
    } else if (a->parts == 1 && a->part_from[0] == 0 && a->width == 3 * V_LANES) {
        PC_LOCAL(pack_all)(a, 3);
    } else {
        PC_LOCAL(pack_all)(a, 0);
    }
}

void PC_SYMBOL(copy_rows)(const pc_copy_args *a)
{
    for (int64_t j = 0; j < a->rows; j++) {
        T *to = (T *)a->to + j * a->to_step;
        const T *from = (const T *)a->from + j * a->from_step;
        int64_t i = 0;
        if (a->from_column == 1) {
            for (; i + V_LANES <= a->columns; i += V_LANES) {
                v_store(to + i, v_load(from + i));
            }
        } else if (a->from_column == 2) {
            /* the second vector ends with an element that nobody asked for */
            for (; i + V_LANES < a->columns; i += V_LANES) {
                v_store(to + i, v_even(v_load(from + 2 * i), v_load(from + 2 * i + V_LANES)));
            }
        }
        for (; i < a->columns; i++) {
            to[i] = from[i * a->from_column];
        }
    }
}
