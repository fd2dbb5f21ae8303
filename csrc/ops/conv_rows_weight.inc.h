/* conv_rows_weight.inc.h: the end of a chunk, for one T. conv_rows_weight.c includes it once per dtype. */

/* total[k] = or += the sums of weight k, which are used up. */
static void PC_LOCAL(fold_sums)(const pc_kernels *kernels, T *total, T *sums, int64_t weights, bool first)
{
    for (int64_t lanes = PC_ROWS_SUMS / sizeof(T) / 2; lanes > 0; lanes /= 2) {
        kernels->add_pairs(&(pc_strips_args){.sums = sums, .in = sums, .count = weights * lanes});
    }
    for (int64_t k = 0; k < weights; k++) {
        total[k] = first ? sums[k] : total[k] + sums[k];
    }
}
