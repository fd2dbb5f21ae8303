/* The pools' row kernels: lanes are neighbouring outputs of one row, so a window's taps are one load each, whatever
 * the stride (the slab has taken it out). Taps are visited in row-major order, which settles ties and sums. */

/* NaN wins and the last NaN stays; among numbers the first of the largest. `x > best` alone would drop NaN, and
 * `!(x <= best)` would let a number replace one. */
PC_INLINE v_mask PC_LOCAL(max_takes)(v_t x, v_t best) { return v_mask_or(v_gt(x, best), v_isnan(x)); }

PC_INLINE void PC_LOCAL(max_row)(const pc_pool_args *a, const bool with_taps)
{
    T *out = a->out;
    const v_t lowest = v_set1((T)-INFINITY);
    for (int64_t q = 0; q < a->columns; q += V_LANES) {
        const T *src = (const T *)a->src + q;
        v_t best = lowest;
        v_int tap = with_taps ? vi_load((const T_INT *)a->taps + q) : vi_set1(0);
        for (int64_t r = 0; r < a->row_count; r++) {
            for (int64_t t = 0; t < a->col_count; t++) {
                v_t x = v_load(src + a->row[r] + a->col[t]);
                v_mask takes = PC_LOCAL(max_takes)(x, best);
                best = v_select(takes, x, best);
                if (with_taps) {
                    tap = vi_select(takes, vi_set1((T_INT)(a->tap_row[r] + t)), tap);
                }
            }
        }
        v_store_tail(out + q, best, pc_min(V_LANES, a->columns - q));
        if (with_taps) {
            vi_store((T_INT *)a->taps + q, tap);
        }
    }
}

void PC_SYMBOL(max_pool_forward)(const pc_pool_args *a) { PC_LOCAL(max_row)(a, false); }

void PC_SYMBOL(max_pool_forward_taps)(const pc_pool_args *a) { PC_LOCAL(max_row)(a, true); }

void PC_SYMBOL(avg_pool_forward)(const pc_pool_args *a)
{
    T *out = a->out;
    for (int64_t q = 0; q < a->columns; q += V_LANES) {
        const T *src = (const T *)a->src + q;
        const int64_t count = pc_min(V_LANES, a->columns - q);
        v_t sum = v_zero();
        for (int64_t r = 0; r < a->row_count; r++) {
            for (int64_t t = 0; t < a->col_count; t++) {
                sum = v_add(sum, v_load(src + a->row[r] + a->col[t]));
            }
        }
        v_store_tail(out + q, v_div(sum, v_load_tail((const T *)a->divisor + q, count)), count);
    }
}

void PC_SYMBOL(avg_pool_backward_input)(const pc_pool_args *a)
{
    for (int64_t r = 0; r < a->row_count; r++) {
        for (int64_t t = 0; t < a->col_count; t++) {
            T *plane = (T *)a->src + a->row[r] + a->col[t];
            for (int64_t q = 0; q < a->columns; q += V_LANES) {
                const int64_t count = pc_min(V_LANES, a->columns - q);
                v_t gradient = v_load((const T *)a->out + q);
                v_store_tail(plane + q, v_add(v_load_tail(plane + q, count), gradient), count);
            }
        }
    }
}
