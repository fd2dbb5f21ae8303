/* pack_scalars, pack_columns, copy_rows: what dense_tile needs copied before it runs. */

/* A block of as many steps as a vector has lanes turns in registers. `tall` vectors-of-p are stored whole, one behind the
 * other, so what lies behind the rows of one step is overwritten by the next. */
PC_INLINE void PC_LOCAL(pack_block)(T *to, const T *from, int64_t from_step, int64_t rows, int64_t steps)
{
    enum { PARTS = (PC_DENSE_ROWS + V_LANES - 1) / V_LANES };
    v_t x[PARTS][V_LANES];
    PC_UNROLL(4)
    for (int part = 0; part < PARTS; part++) {
        PC_UNROLL(16)
        for (int i = 0; i < V_LANES; i++) {
            const int64_t p = part * V_LANES + i;
            if (p >= PC_DENSE_ROWS || p >= rows) {
                x[part][i] = v_zero();
            } else {
                x[part][i] = steps < V_LANES ? v_load_tail(from + p * from_step, steps) : v_load(from + p * from_step);
            }
        }
        v_transpose(x[part]);
    }
    PC_UNROLL(16)
    for (int k = 0; k < V_LANES; k++) {
        if (k < steps) {
            PC_UNROLL(4)
            for (int part = 0; part < PARTS; part++) {
                v_store(to + k * PC_DENSE_ROWS + part * V_LANES, x[part][k]);
            }
        }
    }
}

void PC_SYMBOL(pack_scalars)(const pc_pack_args *a)
{
    T *to = a->to;
    const T *from = a->from;
    if (a->row_step == 1 && a->steps == 1) {
        for (int64_t c = 0; c < a->channels; c++, to += PC_DENSE_ROWS, from += a->channel_step) {
            for (int64_t p = 0; p < a->rows; p += V_LANES) {
                v_store(to + p, v_load_tail(from + p, pc_min(V_LANES, a->rows - p)));
            }
        }
        return;
    }
    for (int64_t c = 0; c < a->channels; c++, from += a->channel_step) {
        for (int64_t k = 0; k < a->steps; k += V_LANES) {
            const int64_t steps = pc_min(V_LANES, a->steps - k);
            if (steps == V_LANES && a->rows == PC_DENSE_ROWS) {
                PC_LOCAL(pack_block)(to, from + k, a->row_step, PC_DENSE_ROWS, V_LANES);
            } else {
                PC_LOCAL(pack_block)(to, from + k, a->row_step, a->rows, steps);
            }
            to += steps * PC_DENSE_ROWS;
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
