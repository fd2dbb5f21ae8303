/* kernels.h: what a kernel is told, and the table of them.
 *
 * A kernel cannot fail, allocate or print. It reads and writes what its arguments describe and nothing else; all
 * distances are in elements. `T` below stands for float in the f32 kernels and double in the f64 ones.
 */
#ifndef PC_KERNELS_KERNELS_H
#define PC_KERNELS_KERNELS_H

#include <stdbool.h>

#include "base/base.h"

/* conv_tile: a register tile, the one inner loop of all convolution passes.
 *
 *     for p < rows, q < columns:
 *         acc = accumulate ? out[p*out_step + q] : init ? init[p*init_step] : 0
 *         for o < outer, r < row_count, t < col_count, in this order:
 *             acc = fma(vec [o*vec_outer  + vec_row[r]  + vec_col[t]  + q],
 *                       scal[o*scal_outer + scal_row[r] + scal_col[t] + p*scal_step], acc)
 *         out[p*out_step + q] = acc
 *
 * `vec` is read in whole vectors: up to tile_columns(columns), rounded up to the vector length, must be readable
 * behind each offset. `scal` is read exactly. `out` is read and written exactly. 1 <= rows <= tile_rows and
 * 1 <= columns <= tile_columns of the table; the counts may be 0. Without FMA in the ISA, fma is a product and a sum. */
typedef struct {
    void *out; /* T */
    int64_t out_step;
    int64_t rows, columns;
    const void *init; /* T, or NULL */
    int64_t init_step;
    bool accumulate;
    const void *vec, *scal; /* T */
    int64_t outer, vec_outer, scal_outer;
    int64_t row_count, col_count;
    const int64_t *vec_row, *vec_col;
    const int64_t *scal_row, *scal_col;
    int64_t scal_step;
} pc_tile_args;

/* The pools' rows: one row of `columns` outputs, of which output q looks at tap (r, t) in
 *     src[row[r] + col[t] + q]
 * a plane that was laid out so that the stride is gone and the padding is filled in (ops/slab.h). `src` is read and
 * `taps` read and written in whole vectors; `out` and `divisor` exactly.
 *
 *   max_pool_forward         out[q] = the largest, the first of equals; the last NaN where there is one
 *   max_pool_forward_taps    the same; taps[q] (a whole number of T's size, holding the start on entry) becomes the
 *                            tap's number tap_row[r] + t, or stays when no tap is above minus infinity
 *   avg_pool_forward         out[q] = (sum of taps in the order (r, t)) / divisor[q]
 *   avg_pool_backward_input  the mirror: plane[row[r] + col[t] + q] += out[q] for each (r, t) in order, where `out`
 *                            (read in whole vectors) already holds the divided gradient and plane is `src`, written
 *                            exactly */
typedef struct {
    void *out;           /* T */
    void *src;           /* T */
    void *taps;          /* int32_t beside float, int64_t beside double */
    const void *divisor; /* T */
    int64_t columns;
    int64_t row_count, col_count;
    const int64_t *row, *col;
    const int64_t *tap_row;
} pc_pool_args;

/* fma_chains: the machine's peak, for the benchmark.
 *
 *     values[i] = fma(values[i], factor, term)    `rounds` times, for each i < PC_CHAINS * lanes */
enum { PC_CHAINS = 12 };

typedef struct {
    void *values;        /* T */
    double factor, term; /* rounded to T */
    int64_t rounds;
} pc_chains_args;
/* row_sums: out[q] = (accumulate ? out[q] : 0) + in[q] + in[step + q] + ... of `rows` rows, in this order, for
 * q < columns. Everything is read and written exactly. */
typedef struct {
    void *out;      /* T */
    const void *in; /* T */
    int64_t rows, step, columns;
    bool accumulate;
} pc_row_args;

/* The maps, over `count` elements. `out` may be one of the inputs; everything is read and written exactly.
 *
 *   relu_forward    out[q] = in[q] < 0 ? 0 : in[q]; with `bits`, bit q % 64 of bits[q / 64] = !(in[q] <= 0), and the bits
 *                   behind the last are 0
 *   relu_backward   out[q] = passes(q) ? grad[q] : 0, where passes(q) is !(in[q] <= 0), or the bit where `in` is NULL */
typedef struct {
    void *out;             /* T */
    const void *in, *grad; /* T */
    uint64_t *bits;
    int64_t count;
} pc_map_args;

/* Batch normalisation. Everything is read and written exactly; numbers among the arguments are rounded to T.
 *
 *   norm_sums   with W = 128 / sizeof(T) virtual lanes, for each block, and for each lane j of it: s = q = 0; for the
 *               block's rows, and in a row for e = j, W + j, 2 * W + j, ... in order
 *                   du = u[e] - u0, dv = v[e] - v0, s += du, q = fma(du, dv, q)         in T
 *               then sums[j] += s, sums[W + j] += q                                     in double
 *               A block is 16 * W elements of a single row (the last may be short), or all of several rows
 *   norm_map    out[e] = fma(in[e] - mean, scale, shift), and where `more` is not NULL
 *               out[e] = fma(more[e], more_scale, that), for e < count */
typedef struct {
    double *sums;      /* 2 * W */
    const void *u, *v; /* T */
    double u0, v0;
    int64_t rows, u_step, v_step; /* the steps lead from row to row */
    int64_t count;                /* of a row */
} pc_norm_sums_args;

typedef struct {
    void *out;             /* T */
    const void *in, *more; /* T */
    double mean, scale, shift, more_scale;
    int64_t count;
} pc_norm_map_args;

typedef struct {
    int64_t lanes;                   /* elements of a vector */
    int64_t tile_rows, tile_columns; /* the most that conv_tile takes */
#define PC_KERNEL(name, f32, f64, args) void (*name)(const args *);
#include "kernels/kernels.def"
#undef PC_KERNEL
} pc_kernels;

typedef struct {
    const char *name; /* baseline, avx2, avx512, neon */
    bool fma;         /* a fused multiply-add: all ISAs that have it give the same bits */
    pc_kernels f32, f64;
} pc_isa;

#endif
