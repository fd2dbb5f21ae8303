/* Maps: one output element from the input elements at the same place, of one row or of several. Memory is the
 * bottleneck, so one vector at a time will do. Which elements of a ReLU let the gradient through is one bit each: an
 * eighth of a byte to remember instead of the input itself. */

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

/* So many elements ahead a span's rows are asked for: maps of 7 x 7 that come from memory take half as long. */
#define PC_SPAN_AHEAD 1024

/* `vectors` vectors of a span's sum, the last of them over the one before; or, if `narrow`, a single one of all columns.
 * Their chains of additions do not wait for each other. */
PC_INLINE void PC_LOCAL(span_vectors)(T *out, const T *in, int64_t step, int64_t count, int64_t columns,
                                      const int vectors, const bool narrow, const bool exact)
{
    const int64_t last = narrow ? 0 : columns - V_LANES;
    v_t sum[4];
    PC_UNROLL(4)
    for (int v = 0; v < vectors; v++) {
        sum[v] = v_zero();
    }
    for (int64_t r = 0; r < count; r++, in += step) {
        PC_UNROLL(4)
        for (int v = 0; v < vectors; v++) {
            if (v * V_LANES * (int)sizeof(T) % 64 == 0) {
                __builtin_prefetch(in + v * V_LANES + PC_SPAN_AHEAD);
            }
            sum[v] =
                v_add(sum[v], narrow ? v_load_tail(in, columns) : v_load(in + (v + 1 < vectors ? v * V_LANES : last)));
        }
    }
    PC_UNROLL(4)
    for (int v = 0; v < vectors; v++) {
        if (exact) {
            v_store_tail(out, sum[v], columns);
        } else {
            v_store(out + (v + 1 < vectors ? v * V_LANES : last), sum[v]);
        }
    }
}

/* Rows shorter than a vector are written as whole ones while rows still come to overwrite what is too much: to store
 * through a mask takes as long as a dozen stores on some processors. */
void PC_SYMBOL(span_sums)(const pc_span_args *args)
{
    const pc_span_args a = *args;
    T *out = a.out;
    const T *const end = out + a.planes * a.spans * a.columns;
    for (int64_t p = 0; p < a.planes; p++) {
        for (int64_t s = 0; s < a.spans; s++) {
            const T *in = (const T *)a.in + p * a.plane_step + (a.first[s] - a.first[0]) * a.step;
            const int64_t count = a.count[s];
            int64_t columns = a.columns;
            for (; columns > 4 * V_LANES; columns -= 4 * V_LANES, in += 4 * V_LANES, out += 4 * V_LANES) {
                PC_LOCAL(span_vectors)(out, in, a.step, count, 4 * V_LANES, 4, false, false);
            }
            if (a.columns < V_LANES && end - out < V_LANES) {
                PC_LOCAL(span_vectors)(out, in, a.step, count, columns, 1, true, true);
            } else if (a.columns < V_LANES) {
                PC_LOCAL(span_vectors)(out, in, a.step, count, columns, 1, true, false);
            } else if (columns > 3 * V_LANES) {
                PC_LOCAL(span_vectors)(out, in, a.step, count, columns, 4, false, false);
            } else if (columns > 2 * V_LANES) {
                PC_LOCAL(span_vectors)(out, in, a.step, count, columns, 3, false, false);
            } else if (columns > V_LANES) {
                PC_LOCAL(span_vectors)(out, in, a.step, count, columns, 2, false, false);
            } else {
                PC_LOCAL(span_vectors)(out, in, a.step, count, columns, 1, false, false);
            }
            out += columns;
        }
    }
}

#undef PC_SPAN_AHEAD
