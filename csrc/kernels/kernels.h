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

enum {
    PC_POOL_ROWS = 8,  /* rows of column maxima that max_pool_forward has in its scratch */
    PC_POOL_SUMS = 16, /* partial sums of a whole plane's average, whatever the vectors' length */
};

/* The pools: `planes` planes, each `src_rows` x `src_columns` in src (rows `src_row` apart, planes `src_plane`), each
 * with rows x columns outputs (rows `out_row` apart, planes rows * out_row). Tap (r, t) of output (y, q) looks at
 *
 *     src[(top + y*sh + r*dh) * src_row + left + q*sw + t*dw]
 *
 * where that is inside the plane, and is left out elsewhere. top and left may be of either sign.
 *
 *   max_pool_forward        out = the largest tap, the last NaN where there is one, minus infinity without taps. Taps are
 *                           compared columns first: down each column of the window, then from left to right, and the
 *                           first of equals stays
 *   max_pool_forward_taps   the same by rows; and for lo = the first r inside
 *                               indices = base + y*base_row + place[q] + max(start[q] + lo*row_number, number),
 *                           where number = r*row_number + t*column_number of the winning tap, or -1 when none is above
 *                           minus infinity. start[q], place[q] and the numbers are whole numbers of T's size. Where lo
 *                           does not exist the index may be anything
 *   avg_pool_forward        out = (sum of the taps by rows, starting at 0) / (row_cells[y] * cells[q])
 *
 *   avg_pool_planes         out[plane] = (sum of the plane's src_columns elements) / (row_cells[0] * cells[0]), in
 *                           PC_POOL_SUMS partial sums: element k adds to number k % PC_POOL_SUMS, in order, and then
 *                           halves are added to halves: s[i] + s[i + 8], those + 4, + 2, + 1. Nothing else is used
 *
 * and the other way round, with src the gradients of the outputs and out the inputs' (dh = dw = 1):
 *
 *   avg_pool_backward_input  out(y, q) = sum over the windows (Y, X), by rows, that cover it:
 *                                0 <= top + y - Y*sh < kh and 0 <= left + q - X*sw < kw
 *                            of src(Y, X) / (row_cells[Y] * cells[X]), starting at 0. Here top, left >= 0
 *
 * src is read exactly; where its rows have no gaps, what lies behind a row may be read as well, up to the plane's end.
 * start and place are read in whole vectors, row_cells exactly, and cells has a vector of ones behind the columns. out
 * and indices are written exactly, parts of them more than once. `work` is scratch: the rows of src that the call touches
 * (max_pool_forward: PC_POOL_ROWS rows), as wide as the columns that its taps look at, and PC_POOL_ROWS + 4 vectors. */
typedef struct {
    void *out; /* T */
    int64_t *indices;
    const void *src; /* T */
    int64_t planes, src_plane;
    int64_t rows, columns, out_row;
    int64_t src_rows, src_columns, src_row;
    int64_t kh, kw, sh, sw, dh, dw;
    int64_t top, left;
    const void *cells, *row_cells; /* T */
    const void *start, *place;     /* int32_t beside float, int64_t beside double */
    int64_t base, base_row, row_number, column_number;
    void *work; /* T */
} pc_pool_args;

/* max_pool_backward_pairs: the gradient of a max pool whose windows are 2 x 2, side by side, of a plane `width` wide:
 *
 *     for y < rows, q < columns: the elements (2y, 2q), (2y, 2q+1), (2y+1, 2q), (2y+1, 2q+1) of grad_in become 0, but
 *     the one at indices[y*index_row + q] (flat in the plane) becomes grad_out[y*grad_row + q]
 *
 * and an element behind the last window of a row, 0. If an index is not one of these four, `strange` becomes true, and
 * the rows 0 .. 2*rows - 1 of grad_in hold anything. lanes <= columns, 2*columns <= width <= 2*columns + 1, and
 * 2*rows*width fits float's int32. Nothing else is read or written. */
typedef struct {
    void *grad_in;        /* T */
    const void *grad_out; /* T */
    const int64_t *indices;
    int64_t grad_row, index_row;
    int64_t rows, columns, width;
    bool *strange;
} pc_pairs_args;

/* fma_chains: the machine's peak, for the benchmark.
 *
 *     values[i] = fma(values[i], factor, term)    `rounds` times, for each i < PC_CHAINS * lanes */
enum { PC_CHAINS = 12 };

typedef struct {
    void *values;        /* T */
    double factor, term; /* rounded to T */
    int64_t rounds;
} pc_chains_args;

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
