/* conv_planes: depthwise convolution of small maps, whose output is as large as the input, where they lie.
 *
 * Then a tap of all outputs is the plane itself, shifted: rows run on, and vectors are full however short the rows are.
 * What a lane reads beyond the end of its row, or of the plane, is masked out. There is no slab to fill and no border:
 * a load, a multiply-add and a mask for each tap of a vector (7 x 7 under 3 x 3, vectors of 16: 36 of each, against 63
 * and the copy by rows).
 *
 * The last vector lies over the one before, so there are no tails. */

PC_INLINE void PC_LOCAL(planes_block)(const pc_planes_args *a, T *out, const T *in, const T *weight, v_t first,
                                      const uint64_t *inside, int64_t q, const int vectors)
{
    const int64_t taps = a->taps, last = pc_min(q + (vectors - 1) * V_LANES, a->count - V_LANES);
    v_t acc[4];
    PC_UNROLL(4)
    for (int v = 0; v < vectors; v++) {
        acc[v] = first;
    }
    for (int64_t k = 0; k < taps; k++) {
        const v_t w = v_set1(weight[k]);
        const T *from = in + a->offset[k];
        PC_UNROLL(4)
        for (int v = 0; v < vectors; v++) {
            const int64_t at = v + 1 < vectors ? q + v * V_LANES : last;
            acc[v] = v_fma(w, v_load_where(v_mask_of(inside[v * taps + k]), from + at), acc[v]);
        }
    }
    PC_UNROLL(4)
    for (int v = 0; v < vectors; v++) {
        v_store(out + (v + 1 < vectors ? q + v * V_LANES : last), acc[v]);
    }
}

void PC_SYMBOL(conv_planes)(const pc_planes_args *args)
{
    const pc_planes_args copy = *args, *a = &copy;
    const int64_t vectors = pc_ceil_div(a->count, V_LANES);
    T *out = a->out;
    const T *in = a->in, *weight = a->weight;
    for (int64_t p = 0; p < a->planes; p++, out += a->count, in += a->in_step, weight += a->taps) {
        const v_t first = a->init ? v_set1(((const T *)a->init)[p]) : v_zero();
        const uint64_t *inside = a->inside;
        for (int64_t v = 0; v < vectors; v += 4, inside += 4 * a->taps) {
            switch (pc_min(4, vectors - v)) {
            case 1:
                PC_LOCAL(planes_block)(a, out, in, weight, first, inside, v * V_LANES, 1);
                break;
            case 2:
                PC_LOCAL(planes_block)(a, out, in, weight, first, inside, v * V_LANES, 2);
                break;
            case 3:
                PC_LOCAL(planes_block)(a, out, in, weight, first, inside, v * V_LANES, 3);
                break;
            default:
                PC_LOCAL(planes_block)(a, out, in, weight, first, inside, v * V_LANES, 4);
            }
        }
    }
}
