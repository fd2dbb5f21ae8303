/* transpose: a matrix turned, in square blocks of as many vectors as a vector has lanes, which turn in registers.
 *
 * The blocks that share columns of `in` follow each other, so the rows of `out` are written one group after another:
 * for a tall `in` (the weight gradient's sums on their way out) that is one long walk along few rows of `out`, for a wide
 * one (grad_out on its way in) each line of `out` is finished while it is in L1.
 *
 * To store through a mask takes as long as a dozen stores on some processors. So the last blocks lie over those before
 * them, and short rows of `out` that touch are written as whole vectors while rows still come to overwrite what is too
 * much. Neither will do where the matrix is added. */

PC_INLINE void PC_LOCAL(transpose_block)(T *out, int64_t out_step, const T *in, int64_t in_step, const bool add)
{
    v_t x[V_LANES];
    PC_UNROLL(16)
    for (int i = 0; i < V_LANES; i++) {
        x[i] = v_load(in + i * in_step);
    }
    v_transpose(x);
    PC_UNROLL(16)
    for (int j = 0; j < V_LANES; j++, out += out_step) {
        v_store(out, add ? v_add(v_load(out), x[j]) : x[j]);
    }
}

/* A part of a block. `behind`: elements from the first of `out` to the end of the matrix, if its rows touch. */
PC_INLINE void PC_LOCAL(transpose_part)(T *out, int64_t out_step, const T *in, int64_t in_step, int64_t rows,
                                        int64_t columns, int64_t behind, bool add)
{
    T from[V_LANES * V_LANES], to[V_LANES * V_LANES];
    for (int64_t i = 0; i < V_LANES; i++) {
        v_store(from + i * V_LANES, i < rows ? v_load_tail(in + i * in_step, columns) : v_zero());
    }
    PC_LOCAL(transpose_block)(to, V_LANES, from, V_LANES, false);
    for (int64_t j = 0; j < columns; j++, out += out_step) {
        const v_t x = v_load(to + j * V_LANES);
        if (behind - j * out_step >= V_LANES) {
            v_store(out, x);
        } else {
            v_store_tail(out, add ? v_add(v_load_tail(out, rows), x) : x, rows);
        }
    }
}

PC_INLINE void PC_LOCAL(transpose_all)(const pc_transpose_args a, const bool add)
{
    const bool touch = !add && a.out_step == a.rows;
    for (int64_t column = 0; column < a.columns; column += V_LANES) {
        const int64_t j = add ? column : pc_max(0, pc_min(column, a.columns - V_LANES));
        const int64_t columns = pc_min(V_LANES, a.columns - j), behind = touch ? (a.columns - j) * a.rows : 0;
        for (int64_t row = 0; row < a.rows; row += V_LANES) {
            const int64_t i = add ? row : pc_max(0, pc_min(row, a.rows - V_LANES));
            const int64_t rows = pc_min(V_LANES, a.rows - i);
            T *out = (T *)a.out + j * a.out_step + i;
            const T *in = (const T *)a.in + i * a.in_step + j;
            if (rows == V_LANES && columns == V_LANES) {
                PC_LOCAL(transpose_block)(out, a.out_step, in, a.in_step, add);
            } else {
                PC_LOCAL(transpose_part)(out, a.out_step, in, a.in_step, rows, columns, behind, add);
            }
        }
    }
}

void PC_SYMBOL(transpose)(const pc_transpose_args *a)
{
    if (a->add) {
        PC_LOCAL(transpose_all)(*a, true);
    } else {
        PC_LOCAL(transpose_all)(*a, false);
    }
}
