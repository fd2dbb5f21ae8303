/* fma_chains: PC_CHAINS vectors of multiply-adds side by side, with nothing to load or to store between them.
 *
 * What it reaches is the most that this instruction set does on this machine, here and now: the peak that the benchmark
 * measures everything else against. A multiply-add takes 4 or 5 cycles and two start in each, so 8 to 10 chains are
 * enough; 12 also fit the 16 registers of SSE2 and AVX2, beside the two constants. */
void PC_SYMBOL(fma_chains)(const pc_chains_args *a)
{
    v_t acc[PC_CHAINS];
    T *values = a->values;
    const v_t factor = v_set1((T)a->factor), term = v_set1((T)a->term);
    PC_UNROLL(12)
    for (int i = 0; i < PC_CHAINS; i++) {
        acc[i] = v_load(values + i * V_LANES);
    }
    for (int64_t r = 0; r < a->rounds; r++) {
        PC_UNROLL(12)
        for (int i = 0; i < PC_CHAINS; i++) {
            acc[i] = v_fma(acc[i], factor, term);
        }
    }
    PC_UNROLL(12)
    for (int i = 0; i < PC_CHAINS; i++) {
        v_store(values + i * V_LANES, acc[i]);
    }
}
