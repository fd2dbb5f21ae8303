/* Maps: one output element from the input elements at the same place, of one row or of several. Memory is the bottleneck, so one vector at a time
 * will do. Which elements of a ReLU let the gradient through is one bit each: an eighth of a byte to remember instead
 * of the input itself. */

/* Does the gradient pass? Not where x <= 0, so it does at a NaN. */
PC_INLINE v_mask PC_LOCAL(relu_passes)(v_t x) { return v_mask_or(v_gt(x, v_zero()), v_isnan(x)); }

void PC_SYMBOL(relu_forward)(const pc_map_args *a)
{
    const T *in = a->in;
    T *out = a->out;
    for (int64_t i = 0; i < a->count; i += 64) {
        const int64_t end = pc_min(i + 64, a->count);
        uint64_t passes = 0;
        for (int64_t q = i; q < end; q += V_LANES) {
            const int64_t count = pc_min(V_LANES, end - q);
            const v_t x = count < V_LANES ? v_load_tail(in + q, count) : v_load(in + q);
            const v_t y = v_select(v_gt(v_zero(), x), v_zero(), x); /* NaN and -0 stay */
            if (count < V_LANES) {
                v_store_tail(out + q, y, count);
            } else {
                v_store(out + q, y);
            }
            passes |= v_mask_bits(PC_LOCAL(relu_passes)(x)) << (q - i);
        }
        if (a->bits) {
            a->bits[i / 64] = passes;
        }
    }
}

void PC_SYMBOL(relu_backward)(const pc_map_args *a)
{
    const T *grad = a->grad, *in = a->in;
    T *out = a->out;
    for (int64_t i = 0; i < a->count; i += 64) {
        const int64_t end = pc_min(i + 64, a->count);
        const uint64_t passes = in ? 0 : a->bits[i / 64];
        for (int64_t q = i; q < end; q += V_LANES) {
            const int64_t count = pc_min(V_LANES, end - q);
            const bool whole = count == V_LANES;
            const v_t g = whole ? v_load(grad + q) : v_load_tail(grad + q, count);
            v_mask mask;
            if (in) {
                mask = PC_LOCAL(relu_passes)(whole ? v_load(in + q) : v_load_tail(in + q, count));
            } else {
                mask = v_mask_of(passes >> (q - i));
            }
            const v_t y = v_select(mask, g, v_zero());
            if (whole) {
                v_store(out + q, y);
            } else {
                v_store_tail(out + q, y, count);
            }
        }
    }
}

/* `vectors` whole vectors side by side: their chains of additions do not wait for each other. */
PC_INLINE void PC_LOCAL(sum_vectors)(const pc_row_args *a, int64_t q, const int vectors)
{
    T *out = (T *)a->out + q;
    const T *in = (const T *)a->in + q;
    v_t sum[4];
    PC_UNROLL(4)
    for (int v = 0; v < vectors; v++) {
        sum[v] = a->accumulate ? v_load(out + v * V_LANES) : v_zero();
    }
    for (int64_t r = 0; r < a->rows; r++) {
        PC_UNROLL(4)
        for (int v = 0; v < vectors; v++) {
            sum[v] = v_add(sum[v], v_load(in + r * a->step + v * V_LANES));
        }
    }
    PC_UNROLL(4)
    for (int v = 0; v < vectors; v++) {
        v_store(out + v * V_LANES, sum[v]);
    }
}

void PC_SYMBOL(row_sums)(const pc_row_args *a)
{
    int64_t q = 0;
    for (; a->columns - q >= 4 * V_LANES; q += 4 * V_LANES) {
        PC_LOCAL(sum_vectors)(a, q, 4);
    }
    for (; a->columns - q >= V_LANES; q += V_LANES) {
        PC_LOCAL(sum_vectors)(a, q, 1);
    }
    if (q < a->columns) {
        T *out = (T *)a->out + q;
        const T *in = (const T *)a->in + q;
        const int64_t count = a->columns - q;
        v_t sum = a->accumulate ? v_load_tail(out, count) : v_zero();
        for (int64_t r = 0; r < a->rows; r++) {
            sum = v_add(sum, v_load_tail(in + r * a->step, count));
        }
        v_store_tail(out, sum, count);
    }
}
