/* kernels.h: what a kernel is told, and the table of them.
 *
 * A kernel cannot fail, allocate or print. It reads and writes what its arguments describe and nothing else; all
 * distances are in elements. `T` below stands for float in the f32 kernels and double in the f64 ones.
 */
#ifndef PC_KERNELS_KERNELS_H
#define PC_KERNELS_KERNELS_H

#include <stdbool.h>

#include "base/base.h"

/* pack_scalars: scalars in the order in which dense_tile reads them.
 *
 *     to[(c*steps + k)*dense_rows + p] = from[c*channel_step + p*row_step + k]     for c < channels, k < steps, p < rows
 *
 * With a list of places, step place.k goes to each of them instead, and the others, though read, go nowhere:
 *
 *     to[place.at + (channel + c)*place.step + p]
 *
 * What lies between may be written, and up to a vector behind the last: places have to ascend with c and then k, or lie
 * more than a vector apart. The list is sorted by k. 1 <= rows <= dense_rows. */
typedef struct {
    int64_t k, at, step;
} pc_place;

typedef struct {
    void *to;         /* T */
    const void *from; /* T */
    int64_t channels, steps, rows;
    int64_t channel_step, row_step;
    int64_t ahead;         /* what is read next is so far behind `from`: a hint */
    const pc_place *place; /* NULL: the formula above */
    int64_t places;
    int64_t channel; /* with places, c counts from here; `from` is its first weight */
} pc_pack_args;

/* copy_rows: to[j*to_step + i] = from[j*from_step + i*from_column] for j < rows, i < columns, all exactly. Where
 * elements are neighbours, those `ahead` elements behind them are fetched meanwhile; any distance will do. */
typedef struct {
    void *to;         /* T */
    const void *from; /* T */
    int64_t rows, columns;
    int64_t to_step, from_step, from_column;
    int64_t ahead;
} pc_copy_args;

/* dense_tile: a register tile that runs along a row, the inner loop of forward and input gradient.
 *
 *     for p < rows, q < columns:
 *         acc = accumulate ? out[p*out_step + q] : init ? init[p*init_step] : 0
 *         for s = 0, 1, ... < outer*count + rest, with o = s / count, k = s % count:
 *             acc = fma(scal[s*dense_rows + p], vec[o*vec_outer + list[k] + q], acc)
 *         out[p*out_step + q] = acc
 *
 * `vec` is read in whole vectors: `columns`, rounded up to the vector length, must be readable behind each offset.
 * The outputs at out + ahead, those of the next call, are fetched meanwhile; any distance will do, 0 fetches nothing new.
 * `scal` is read exactly, `out` read and written exactly. 1 <= rows <= dense_rows of the table, columns >= 1,
 * rest <= count; the counts may be 0. */
typedef struct {
    void *out; /* T */
    int64_t out_step;
    int64_t rows, columns;
    const void *init; /* T, or NULL */
    int64_t init_step;
    bool accumulate;
    const void *vec, *scal; /* T */
    int64_t outer, count, rest;
    int64_t vec_outer;
    const int64_t *list;
    int64_t ahead;
} pc_dense_args;
/* weight_tile: the weight gradient's register tile. The vectors' lanes are output channels, the rows are weights.
 *
 *     for p < rows, q < vectors*lanes:
 *         acc = accumulate ? out[p*width + q] : 0                                    (width = vectors*lanes)
 *         for r < row_count, t < columns, in this order:
 *             acc = fma(vec[(r*columns + t)*width + q], scal[offset[p] + row[r] + t*pixel_step], acc)
 *         out[p*width + q] = acc
 *
 * 1 <= vectors <= tile_columns/lanes; any number of rows, best a multiple of tile_rows; all is read and written
 * exactly; counts may be 0. */
typedef struct {
    void *out; /* T */
    int64_t rows, vectors;
    bool accumulate;
    const void *vec, *scal; /* T */
    const int64_t *offset;
    int64_t row_count, columns, pixel_step;
    const int64_t *row;
} pc_weight_args;

/* strip_sums: sums[k] += in[k + 16*i] for k < 16 and each i with k + 16*i < count, in order.
 * add_pairs:  sums[i] = in[2*i] + in[2*i + 1] for i < count; `in` may be `sums`.
 * Read and written exactly. */
enum { PC_STRIPS = 16 };
typedef struct {
    void *sums;     /* T[16], T[count] */
    const void *in; /* T */
    int64_t count;
} pc_strips_args;

/* transpose: out[j*out_step + i] = in[i*in_step + j] for i < rows, j < columns; with `add` it is added to what is
 * there. Both are read and written exactly and do not overlap. */
typedef struct {
    void *out; /* T */
    int64_t out_step;
    const void *in; /* T */
    int64_t in_step;
    int64_t rows, columns;
    bool add;
} pc_transpose_args;

/* conv_rows: rows of one output plane, one weight for all of them (conv_rows.inc.h).
 *
 *     for j < rows, q < columns:
 *         acc = init ? *init : 0
 *         for k < taps, in this order:
 *             acc = fma(weight[k], vec[offset[k] + j*vec_step + q], acc)
 *         out[j*out_step + q] = acc
 *
 * `vec` is read in whole vectors: a vector must be readable from each row's first element on. Of elements that are no
 * outputs, those from the end of the first row up to out + limit may be written, before the rows that follow; none are
 * when `limit` is 0. rows, columns >= 1.
 *
 * `slide` says more about the taps, or is 0. They are windows of height x width taps, and within a window, with k a
 * tap of its first row,
 *
 *         offset[k + r*width] = offset[k] + r*slide*vec_step            slide = 1 or -1 */
typedef struct {
    void *out; /* T */
    int64_t out_step, limit;
    int64_t rows, columns;
    const void *init; /* T, or NULL */
    const void *vec;  /* T */
    int64_t vec_step;
    int64_t taps;
    const int64_t *offset;
    const void *weight; /* T */
    int64_t slide, height, width;
} pc_rows_args;

/* conv_rows_weight: the sums of a depthwise weight gradient, PC_ROWS_SUMS bytes of them side by side for each tap.
 *
 *     for r < height, t < width, l < LANES, and then q = l, l + LANES, .. < columns, j < rows, in this order:
 *         sum = &sums[(r*width + t)*LANES + l]               LANES = PC_ROWS_SUMS / sizeof(T), on every ISA
 *         i = first + j*stride + r*dilation
 *         x = 0 <= i < vec_rows and column[t].low <= q < column[t].high
 *                 ? vec[i*vec_step + q*across + column[t].offset] : 0
 *         *sum = fma(grad[j*grad_step + q], x, *sum)
 *
 * and what else lies in a vector of sums has 0 * 0 added. All is read exactly; what lies vec_ahead and grad_ahead
 * elements further comes next and is fetched. stride >= 1; first may be negative; 0 <= low, high <= columns. across is 1,
 * or 2 where stride is, dilation is 1 and taps across are neighbours. */
enum { PC_ROWS_SUMS = 64 };
typedef struct {
    int64_t offset, low, high;
} pc_rows_column;
typedef struct {
    void *sums;       /* T */
    const void *grad; /* T */
    int64_t grad_step, grad_ahead;
    int64_t rows, columns;
    const void *vec; /* T */
    int64_t vec_step, vec_ahead, vec_rows;
    int64_t first, stride, dilation, across;
    int64_t height, width;
    const pc_rows_column *column;
} pc_rows_weight_args;

/* conv_walk: depthwise convolution in place. For j < rows, q < columns:
 *
 *     acc = init ? *init : 0
 *     for r, t < size, in order:
 *         i = first + j*stride + (up ? size - 1 - r : r)
 *         x = 0 <= i < vec_rows and column[t].low <= q < column[t].high
 *                 ? vec[i*vec_step + q*stride + column[t].offset] : 0
 *         acc = fma(weight[r*size + t], x, acc)
 *     out[j*out_step + q] = acc
 *
 * size is 3 or 5 and stride 1 or 2, and with 2 taps across are neighbours; or size is 7 and stride 1. up only where
 * size is 3 and stride 1. Steps may be negative. 0 <= low, high <= columns.
 *
 * conv_walk_back: the same for the input gradient with a stride of 2, size 3 or 5. vec is grad_out, and now
 *
 *         i = (j + first - r)/2, m = q/2
 *         x = 0 <= i < vec_rows and column[t].low <= m < column[t].high ? vec[i*vec_step + m + column[t].offset] : 0
 *         acc = fma(weight[r*size + t], x, acc)          where j + first - r is even, and q + odd - t
 *
 * All is read and written exactly; what lies out_ahead and vec_ahead elements further comes soon and is fetched. */
typedef struct {
    void *out; /* T */
    int64_t out_step, out_ahead, rows, columns;
    const void *init, *weight; /* T; init may be NULL */
    const void *vec;           /* T */
    int64_t vec_step, vec_ahead, vec_rows;
    int64_t first, stride, size;
    bool odd, up;
    const pc_rows_column *column;
} pc_walk_args;

/* conv_planes: every tap of every output of whole planes, in place.
 *
 *     for p < planes, i < count:
 *         acc = init ? init[p] : 0
 *         for k < taps:
 *             acc = fma(weight[p*taps + k], i reads k ? in[p*in_step + i + offset[k]] : 0, acc)
 *         out[p*count + i] = acc
 *
 * Vector v of a plane begins at element min(v*lanes, count - lanes), and bit l of inside[v*taps + k] says whether its
 * lane l reads tap k. count >= lanes. All is read and written exactly. */
typedef struct {
    void *out;                      /* T */
    const void *in, *weight, *init; /* T; init may be NULL */
    int64_t planes, count, in_step;
    int64_t taps;
    const int64_t *offset;
    const uint64_t *inside;
} pc_planes_args;

/* split_rows takes a stride out of rows, join_rows puts it in:
 *
 *     narrow[p*phase_step + j*narrow_step + i]  <->  wide[j*wide_step + (i*stride + p)*wide_column]
 *
 * for j < rows in this order, p < stride, i*stride + p < columns. split_rows may write zeros behind a row of a phase, up
 * to whole vectors. join_rows wants wide_column 1 and stride >= 2, reads whole vectors and may write up to wide + limit
 * as conv_rows does. */
typedef struct {
    void *wide, *narrow; /* T; the source of the two is only read */
    int64_t rows, columns, stride;
    int64_t wide_step, wide_column;
    int64_t narrow_step, phase_step;
    int64_t limit;
} pc_rows_copy_args;

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
 * src is read exactly; of each plane the elements 0 .. readable-1 may be read as well.
 * start and place are read in whole vectors, row_cells exactly, and cells has a vector of ones behind the columns. out
 * and indices are written exactly, parts of them more than once. `work` is scratch: the rows of src that the call touches
 * (max_pool_forward: PC_POOL_ROWS rows; where out_row is less than a vector, at least so many), as wide as the columns
 * that its taps look at, and PC_POOL_ROWS + 4 vectors. */
typedef struct {
    void *out; /* T */
    int64_t *indices;
    const void *src; /* T */
    int64_t planes, src_plane;
    int64_t rows, columns, out_row;
    int64_t src_rows, src_columns, src_row, readable;
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
/* span_sums: sums of neighbouring rows, of several planes. out[p][s][q] = 0 + in[p * plane_step + f * step + q] for
 * f = first[s] - first[0] and the count[s] - 1 rows behind it, in this order; for p < planes, s < spans, q < columns.
 * Everything is read and written exactly. */
typedef struct {
    void *out;      /* T, without gaps */
    const void *in; /* T: where the first span of the first plane begins */
    const int64_t *first, *count;
    int64_t planes, plane_step;
    int64_t spans, step, columns;
} pc_span_args;

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
 *   norm_map    for each row, and its line:
 *               out[e] = fma(in[e] - line.mean, line.scale, line.shift), and where `more` is not NULL
 *               out[e] = fma(more[e], line.more, that), for e < count; out may be in */
typedef struct {
    double *sums;      /* 2 * W */
    const void *u, *v; /* T */
    double u0, v0;
    int64_t rows, u_step, v_step; /* the steps lead from row to row */
    int64_t count;                /* of a row */
} pc_norm_sums_args;

/* The scalars of a channel's map. */
typedef struct {
    double mean, scale, shift, more;
} pc_norm_line;

typedef struct {
    void *out;                                  /* T */
    const void *in, *more;                      /* T */
    const pc_norm_line *lines;                  /* one for each row */
    int64_t rows, out_step, in_step, more_step; /* the steps lead from row to row */
    int64_t count;                              /* of a row */
} pc_norm_map_args;

/* What each ISA has, but for those that leave out what their narrow one has, or what only those have that name one. */
#define PC_NARROW_KERNEL PC_KERNEL
#define PC_WIDE_KERNEL PC_KERNEL

typedef struct {
    int64_t lanes;                   /* elements of a vector */
    int64_t tile_rows, tile_columns; /* weight_tile: rows to do at a time, and the most columns */
    int64_t dense_rows;              /* the most that dense_tile takes, */
    int64_t dense_vectors[8];        /* and how many vectors of columns it does at a time for 1, 2, ... rows */
#define PC_KERNEL(name, f32, f64, args) void (*name)(const args *);
#include "kernels/kernels.def"
#undef PC_KERNEL
} pc_kernels;

/* Vectors of 64 bytes are mostly empty in rows of 7 or 14 pixels, and pools wait for memory whatever their vectors. So
 * an ISA may name one of shorter vectors and the same bits, which any machine that has it has too: its kernels serve
 * pools, short rows, and rows of unusual windows. AVX-512 takes 190 kB less without kernels of its own for those; as
 * measured on Zen 4, its pools were as fast where rows are long (1.00 on average) and 0.5 to 0.8 as fast where they are
 * short, and conv_rows 0.94 to 1.17 times, but for windows that conv_walk now serves. */
typedef struct pc_isa {
    const char *name;            /* baseline, avx2, avx512, neon */
    const struct pc_isa *narrow; /* itself, or the other one; then it has no PC_NARROW_KERNELs: NULL */
    bool fma;                    /* a fused multiply-add: all ISAs that have it give the same bits */
    pc_kernels f32, f64;
} pc_isa;

#endif
