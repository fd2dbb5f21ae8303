/* Maps: one output element from the input elements at the same place. Memory is the bottleneck, so one vector at a time
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
