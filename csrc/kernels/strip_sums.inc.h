/* strip_sums: sixteen sums side by side, the same whatever a vector holds. Bound by memory, or by the latency of an
 * addition for each 64 bytes. */

void PC_SYMBOL(strip_sums)(const pc_strips_args *a)
{
    enum { VECTORS = PC_STRIPS / V_LANES };
    T *sums = a->sums;
    const T *in = a->in, *end = in + a->count / PC_STRIPS * PC_STRIPS;
    v_t x[VECTORS];
    PC_UNROLL(8)
    for (int v = 0; v < VECTORS; v++) {
        x[v] = v_load(sums + v * V_LANES);
    }
    for (; in < end; in += PC_STRIPS) {
        PC_UNROLL(8)
        for (int v = 0; v < VECTORS; v++) {
            x[v] = v_add(x[v], v_load(in + v * V_LANES));
        }
    }
    PC_UNROLL(8)
    for (int v = 0; v < VECTORS; v++) {
        v_store(sums + v * V_LANES, x[v]);
    }
    for (int64_t k = 0; k < a->count % PC_STRIPS; k++) {
        sums[k] += in[k];
    }
}

/* Neighbours added: the way from sums side by side down to one. */
void PC_SYMBOL(add_pairs)(const pc_strips_args *a)
{
    T *sums = a->sums;
    const T *in = a->in;
    int64_t i = 0;
    for (; i + V_LANES <= a->count; i += V_LANES) {
        const v_t one = v_load(in + 2 * i), two = v_load(in + 2 * i + V_LANES);
        v_store(sums + i, v_add(v_even(one, two), v_odd(one, two)));
    }
    for (; i < a->count; i++) {
        sums[i] = in[2 * i] + in[2 * i + 1];
    }
}
