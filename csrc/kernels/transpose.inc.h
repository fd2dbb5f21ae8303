/* transpose: a matrix turned, in square blocks of as many vectors as a vector has lanes, which turn in registers.
 *
 * The blocks that share columns of `in` follow each other, so the rows of `out` are written one group after another:
 * for a tall `in` (the weight gradient's sums on their way out) that is one long walk along few rows of `out`, for a wide
 * one (grad_out on its way in) each line of `out` is finished while it is in L1. */

PC_INLINE void PC_LOCAL(transpose_store)(T *out, v_t x, int64_t count, bool add)
{
    if (count == V_LANES) {
        v_store(out, add ? v_add(v_load(out), x) : x);
    } else {
        v_store_tail(out, add ? v_add(v_load_tail(out, count), x) : x, count);
    }
}

PC_INLINE void PC_LOCAL(transpose_block)(T *out, int64_t out_step, const T *in, int64_t in_step, int64_t rows,
                                         int64_t columns, const bool whole, const bool add)
{
    v_t x[V_LANES];
    PC_UNROLL(16)
    for (int i = 0; i < V_LANES; i++) {
        if (whole) {
            x[i] = v_load(in + i * in_step);
        } else {
            x[i] = i >= rows           ? v_zero()
                   : columns < V_LANES ? v_load_tail(in + i * in_step, columns)
                                       : v_load(in + i * in_step);
        }
    }
    v_transpose(x);
    PC_UNROLL(16)
    for (int j = 0; j < V_LANES; j++) {
        if (whole || j < columns) {
            PC_LOCAL(transpose_store)(out + j * out_step, x[j], whole ? V_LANES : rows, add);
        }
    }
}

PC_INLINE void PC_LOCAL(transpose_all)(const pc_transpose_args *a, const bool add)
{
    for (int64_t j = 0; j < a->columns; j += V_LANES) {
        const int64_t columns = pc_min(V_LANES, a->columns - j);
        for (int64_t i = 0; i < a->rows; i += V_LANES) {
            const int64_t rows = pc_min(V_LANES, a->rows - i);
            T *out = (T *)a->out + j * a->out_step + i;
            const T *in = (const T *)a->in + i * a->in_step + j;
            if (rows == V_LANES && columns == V_LANES) {
                PC_LOCAL(transpose_block)(out, a->out_step, in, a->in_step, rows, columns, true, add);
            } else {
                PC_LOCAL(transpose_block)(out, a->out_step, in, a->in_step, rows, columns, false, add);
            }
        }
    }
}

void PC_SYMBOL(transpose)(const pc_transpose_args *a)
{
    if (a->add) {
        PC_LOCAL(transpose_all)(a, true);
    } else {
        PC_LOCAL(transpose_all)(a, false);
    }
}
