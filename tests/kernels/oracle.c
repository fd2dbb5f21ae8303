/* oracle.c: what the kernels and operators are compared with, one scalar loop each, in the order that the definition
 * says. Compiled without contraction, so a product and a sum stay two roundings and fma() is one.
 *
 * The file includes itself once per dtype: T is float or double, FMA its fused multiply-add, NAME puts the dtype into
 * a name. */
#ifndef T

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels/kernels.h"

/* The sizes of a convolution, as the tests pass them: an array in this order. */
typedef struct {
    int64_t n, g, ic, oc, ih, iw, oh, ow, kh, kw, sh, sw, dh, dw, pt, pl;
} conv_sizes;

/* Sizes and places of the structs that the tests mirror, to be compared with their mirrors. */
int64_t oracle_layout(const char *what)
{
#define PLACE(type, field)                                                                                             \
    if (strcmp(what, #type "." #field) == 0) {                                                                         \
        return (int64_t)offsetof(type, field);                                                                         \
    }
#define SIZE(type)                                                                                                     \
    if (strcmp(what, #type) == 0) {                                                                                    \
        return (int64_t)sizeof(type);                                                                                  \
    }
    SIZE(pc_dense_args)
    SIZE(pc_pack_args)
    SIZE(pc_copy_args)
    SIZE(pc_weight_args)
    SIZE(pc_transpose_args)
    SIZE(pc_strips_args)
    SIZE(pc_pool_args)
    SIZE(pc_chains_args)
    SIZE(pc_rows_args)
    SIZE(pc_rows_weight_args)
    SIZE(pc_walk_args)
    SIZE(pc_rows_copy_args)
    SIZE(pc_planes_args)
    PLACE(pc_rows_args, width)
    PLACE(pc_rows_weight_args, column)
    PLACE(pc_walk_args, up)
    PLACE(pc_walk_args, column)
    PLACE(pc_rows_copy_args, limit)
    PLACE(pc_planes_args, inside)
    SIZE(pc_pairs_args)
    PLACE(pc_pool_args, src_plane)
    PLACE(pc_pool_args, left)
    PLACE(pc_pool_args, work)
    PLACE(pc_pairs_args, indices)
    PLACE(pc_pairs_args, strange)
    SIZE(pc_map_args)
    SIZE(pc_span_args)
    SIZE(pc_norm_sums_args)
    SIZE(pc_norm_map_args)
    PLACE(pc_map_args, count)
    PLACE(pc_span_args, columns)
    PLACE(pc_norm_sums_args, count)
    PLACE(pc_norm_map_args, count)
    SIZE(pc_kernels)
    PLACE(pc_chains_args, rounds)
    SIZE(pc_isa)
    PLACE(pc_dense_args, accumulate)
    PLACE(pc_dense_args, vec)
    PLACE(pc_dense_args, list)
    PLACE(pc_dense_args, ahead)
    PLACE(pc_pack_args, row_step)
    PLACE(pc_copy_args, ahead)
    PLACE(pc_kernels, dense_vectors)
    PLACE(pc_weight_args, vec)
    PLACE(pc_weight_args, row)
    PLACE(pc_transpose_args, rows)
    PLACE(pc_transpose_args, add)
    PLACE(pc_isa, f64)
    return -1;
}

#define T float
#define T_INT int32_t
#define FMA fmaf
#define NAME(name) oracle_f32_##name
#include "oracle.c"
#undef T
#undef T_INT
#undef FMA
#undef NAME

#define T double
#define T_INT int64_t
#define FMA fma
#define NAME(name) oracle_f64_##name
#include "oracle.c"

#else /* one dtype */

void NAME(norm_map)(const pc_norm_map_args *a, int fused)
{
    for (int64_t r = 0; r < a->rows; r++) {
        const pc_norm_line *line = &a->lines[r];
        for (int64_t e = 0; e < a->count; e++) {
            const T x = ((const T *)a->in)[r * a->in_step + e] - (T)line->mean, scaled = x * (T)line->scale;
            T y = fused ? FMA(x, (T)line->scale, (T)line->shift) : scaled + (T)line->shift;
            if (a->more) {
                const T z = ((const T *)a->more)[r * a->more_step + e], product = z * (T)line->more;
                y = fused ? FMA(z, (T)line->more, y) : product + y;
            }
            ((T *)a->out)[r * a->out_step + e] = y;
        }
    }
}

/* The contracts of batch normalisation. */
void NAME(norm_sums)(const pc_norm_sums_args *a, int fused)
{
    const int64_t lanes = 128 / (int64_t)sizeof(T), size = a->rows > 1 ? a->count : 16 * lanes;
    for (int64_t block = 0; block < a->count; block += size) {
        const int64_t end = block + size < a->count ? block + size : a->count;
        for (int64_t j = 0; j < lanes; j++) {
            T s = 0, q = 0;
            for (int64_t r = 0; r < a->rows; r++) {
                for (int64_t e = block + j; e < end; e += lanes) {
                    const T du = ((const T *)a->u)[r * a->u_step + e] - (T)a->u0;
                    const T dv = ((const T *)a->v)[r * a->v_step + e] - (T)a->v0;
                    const T product = du * dv;
                    s += du;
                    q = fused ? FMA(du, dv, q) : product + q;
                }
            }
            a->sums[j] += s;
            a->sums[lanes + j] += q;
        }
    }
}

void NAME(span_sums)(const pc_span_args *a)
{
    for (int64_t i = 0; i < a->planes * a->spans * a->columns; i++) {
        const int64_t p = i / a->columns / a->spans, s = i / a->columns % a->spans, q = i % a->columns;
        T sum = 0;
        for (int64_t r = a->first[s] - a->first[0]; r < a->first[s] - a->first[0] + a->count[s]; r++) {
            sum += ((const T *)a->in)[p * a->plane_step + r * a->step + q];
        }
        ((T *)a->out)[i] = sum;
    }
}

void NAME(relu_backward)(const pc_map_args *a)
{
    for (int64_t q = 0; q < a->count; q++) {
        const int passes = a->in ? !(((const T *)a->in)[q] <= 0) : a->bits[q / 64] >> q % 64 & 1;
        ((T *)a->out)[q] = passes ? ((const T *)a->grad)[q] : 0;
    }
}

/* The contracts of the maps. */
void NAME(relu_forward)(const pc_map_args *a)
{
    for (int64_t q = 0; q < a->count; q++) {
        const T x = ((const T *)a->in)[q];
        ((T *)a->out)[q] = x < 0 ? 0 : x;
        if (a->bits && q % 64 == 0) {
            a->bits[q / 64] = 0;
        }
        if (a->bits && !(x <= 0)) {
            a->bits[q / 64] |= (uint64_t)1 << q % 64;
        }
    }
}

/* The contract of dense_tile; `dense_rows` is the table's. `fused` is false for an ISA without fused multiply-add. */
void NAME(dense_tile)(const pc_dense_args *a, int64_t dense_rows, int fused)
{
    for (int64_t p = 0; p < a->rows; p++) {
        for (int64_t q = 0; q < a->columns; q++) {
            T *out = (T *)a->out + p * a->out_step + q;
            T sum = a->accumulate ? *out : a->init ? ((const T *)a->init)[p * a->init_step] : 0;
            for (int64_t s = 0; s < a->outer * a->count + a->rest; s++) {
                T x = ((const T *)a->vec)[s / a->count * a->vec_outer + a->list[s % a->count] + q];
                T w = ((const T *)a->scal)[s * dense_rows + p];
                T product = x * w;
                sum = fused ? FMA(x, w, sum) : product + sum;
            }
            *out = sum;
        }
    }
}

/* The contract of fma_chains. */
void NAME(fma_chains)(const pc_chains_args *a, int64_t count, int fused)
{
    const T factor = (T)a->factor, term = (T)a->term;
    for (int64_t i = 0; i < count; i++) {
        T value = ((T *)a->values)[i];
        for (int64_t r = 0; r < a->rounds; r++) {
            T product = value * factor;
            value = fused ? FMA(value, factor, term) : product + term;
        }
        ((T *)a->values)[i] = value;
    }
}

/* The contract of weight_tile; `lanes` are those of the table. */
void NAME(weight_tile)(const pc_weight_args *a, int64_t lanes, int fused)
{
    const int64_t width = a->vectors * lanes;
    for (int64_t p = 0; p < a->rows; p++) {
        for (int64_t q = 0; q < width; q++) {
            T *out = (T *)a->out + p * width + q;
            T sum = a->accumulate ? *out : 0;
            for (int64_t r = 0; r < a->row_count; r++) {
                for (int64_t t = 0; t < a->columns; t++) {
                    T x = ((const T *)a->vec)[(r * a->columns + t) * width + q];
                    T w = ((const T *)a->scal)[a->offset[p] + a->row[r] + t * a->pixel_step];
                    T product = x * w;
                    sum = fused ? FMA(x, w, sum) : product + sum;
                }
            }
            *out = sum;
        }
    }
}

/* The contract of transpose. */
void NAME(transpose)(const pc_transpose_args *a)
{
    for (int64_t j = 0; j < a->columns; j++) {
        for (int64_t i = 0; i < a->rows; i++) {
            T *out = (T *)a->out + j * a->out_step + i;
            T x = ((const T *)a->in)[i * a->in_step + j];
            *out = a->add ? *out + x : x;
        }
    }
}

/* The contract of strip_sums. */
void NAME(strip_sums)(const pc_strips_args *a)
{
    for (int64_t i = 0; i < a->count; i++) {
        ((T *)a->sums)[i % PC_STRIPS] += ((const T *)a->in)[i];
    }
}

/* The contract of conv_rows. */
void NAME(conv_rows)(const pc_rows_args *a, int fused)
{
    for (int64_t j = 0; j < a->rows; j++) {
        for (int64_t q = 0; q < a->columns; q++) {
            T sum = a->init ? *(const T *)a->init : 0;
            for (int64_t k = 0; k < a->taps; k++) {
                T x = ((const T *)a->vec)[a->offset[k] + j * a->vec_step + q], w = ((const T *)a->weight)[k];
                T product = x * w;
                sum = fused ? FMA(x, w, sum) : product + sum;
            }
            ((T *)a->out)[j * a->out_step + q] = sum;
        }
    }
}

/* The contract of conv_planes; `lanes` are the table's. */
void NAME(conv_planes)(const pc_planes_args *a, int64_t lanes, int fused)
{
    for (int64_t p = 0; p < a->planes; p++) {
        for (int64_t i = 0; i < a->count; i++) {
            const int64_t v = i / lanes, first = v * lanes <= a->count - lanes ? v * lanes : a->count - lanes;
            T sum = a->init ? ((const T *)a->init)[p] : 0;
            for (int64_t k = 0; k < a->taps; k++) {
                const int reads = (int)(a->inside[v * a->taps + k] >> (i - first) & 1);
                T x = reads ? ((const T *)a->in)[p * a->in_step + i + a->offset[k]] : 0;
                T w = ((const T *)a->weight)[p * a->taps + k], product = x * w;
                sum = fused ? FMA(x, w, sum) : product + sum;
            }
            ((T *)a->out)[p * a->count + i] = sum;
        }
    }
}

/* The contract of conv_rows_weight. */
void NAME(conv_rows_weight)(const pc_rows_weight_args *a, int fused)
{
    const int64_t lanes = PC_ROWS_SUMS / (int64_t)sizeof(T);
    for (int64_t k = 0; k < a->height * a->width * lanes; k++) {
        const int64_t r = k / lanes / a->width, t = k / lanes % a->width;
        T *sum = (T *)a->sums + k;
        for (int64_t q = k % lanes; q < a->columns; q += lanes) {
            for (int64_t j = 0; j < a->rows; j++) {
                const int64_t i = a->first + j * a->stride + r * a->dilation;
                const int inside = 0 <= i && i < a->vec_rows && a->column[t].low <= q && q < a->column[t].high;
                T x = inside ? ((const T *)a->vec)[i * a->vec_step + q * a->across + a->column[t].offset] : 0;
                T g = ((const T *)a->grad)[j * a->grad_step + q], product = x * g;
                *sum = fused ? FMA(x, g, *sum) : product + *sum;
            }
        }
    }
}

/* The contracts of conv_walk and, with `back`, conv_walk_back. */
void NAME(conv_walk)(const pc_walk_args *a, int back, int fused)
{
    for (int64_t k = 0; k < a->rows * a->columns; k++) {
        const int64_t j = k / a->columns, q = k % a->columns;
        T sum = a->init ? *(const T *)a->init : 0;
        for (int64_t r = 0; r < a->size; r++) {
            for (int64_t t = 0; t < a->size; t++) {
                if (back && ((j + a->first - r) % 2 != 0 || (q + a->odd - t) % 2 != 0)) {
                    continue;
                }
                const int64_t i = back ? (j + a->first - r) / 2 : a->first + j * a->stride + (a->up ? a->size - 1 - r : r);
                const int64_t m = back ? q / 2 : q, at = back ? m : q * a->stride;
                const int inside = 0 <= i && i < a->vec_rows && a->column[t].low <= m && m < a->column[t].high;
                T x = inside ? ((const T *)a->vec)[i * a->vec_step + at + a->column[t].offset] : 0;
                T w = ((const T *)a->weight)[r * a->size + t], product = x * w;
                sum = fused ? FMA(x, w, sum) : product + sum;
            }
        }
        ((T *)a->out)[j * a->out_step + q] = sum;
    }
}

/* The contract of add_pairs. */
void NAME(add_pairs)(const pc_strips_args *a)
{
    for (int64_t i = 0; i < a->count; i++) {
        ((T *)a->sums)[i] = ((const T *)a->in)[2 * i] + ((const T *)a->in)[2 * i + 1];
    }
}

T *NAME(pool_tap)(const pc_pool_args *a, int64_t plane, int64_t y, int64_t q, int64_t r, int64_t t)
{
    const int64_t row = a->top + y * a->sh + r * a->dh, column = a->left + q * a->sw + t * a->dw;
    const bool inside = row >= 0 && row < a->src_rows && column >= 0 && column < a->src_columns;
    return inside ? (const T *)a->src + plane * a->src_plane + row * a->src_row + column : NULL;
}

void NAME(max_pool_forward)(const pc_pool_args *a)
{
    for (int64_t i = 0; i < a->planes * a->rows * a->columns; i++) {
        const int64_t plane = i / a->columns / a->rows, y = i / a->columns % a->rows, q = i % a->columns;
        T best = (T)-INFINITY;
        for (int64_t t = 0; t < a->kw; t++) {
            T of_column = (T)-INFINITY;
            for (int64_t r = 0; r < a->kh; r++) {
                const T *x = NAME(pool_tap)(a, plane, y, q, r, t);
                if (x && (isnan(*x) || *x > of_column)) {
                    of_column = *x;
                }
            }
            if (isnan(of_column) || of_column > best) {
                best = of_column;
            }
        }
        ((T *)a->out)[(plane * a->rows + y) * a->out_row + q] = best;
    }
}

void NAME(max_pool_forward_taps)(const pc_pool_args *a)
{
    for (int64_t i = 0; i < a->planes * a->rows * a->columns; i++) {
        const int64_t plane = i / a->columns / a->rows, y = i / a->columns % a->rows, q = i % a->columns;
        T best = (T)-INFINITY;
        int64_t number = -1, low = 0;
        for (int64_t r = 0; r < a->kh; r++) {
            for (int64_t t = 0; t < a->kw; t++) {
                const T *x = NAME(pool_tap)(a, plane, y, q, r, t);
                if (x && (isnan(*x) || *x > best)) {
                    best = *x;
                    number = r * a->row_number + t * a->column_number;
                }
            }
        }
        while (low < a->kh &&
               (a->top + y * a->sh + low * a->dh < 0 || a->top + y * a->sh + low * a->dh >= a->src_rows)) {
            low++;
        }
        const int64_t first = ((const T_INT *)a->start)[q] + low * a->row_number,
                      at = (plane * a->rows + y) * a->out_row;
        ((T *)a->out)[at + q] = best;
        a->indices[at + q] =
            low == a->kh ? -1
                         : a->base + y * a->base_row + ((const T_INT *)a->place)[q] + (first > number ? first : number);
    }
}

void NAME(avg_pool_planes)(const pc_pool_args *a)
{
    for (int64_t plane = 0; plane < a->planes; plane++) {
        T sums[16] = {0};
        for (int64_t k = 0; k < a->src_columns; k++) {
            sums[k % 16] += ((const T *)a->src)[plane * a->src_plane + k];
        }
        for (int width = 8; width > 0; width /= 2) {
            for (int i = 0; i < width; i++) {
                sums[i] += sums[i + width];
            }
        }
        ((T *)a->out)[plane] = sums[0] / (*(const T *)a->row_cells * *(const T *)a->cells);
    }
}

void NAME(max_pool_backward_pairs)(const pc_pairs_args *a)
{
    for (int64_t i = 0; i < 2 * a->rows * a->width; i++) {
        const int64_t y = i / a->width / 2, q = i % a->width / 2;
        const bool wins = q < a->columns && a->indices[y * a->index_row + q] == i;
        ((T *)a->grad_in)[i] = wins ? ((const T *)a->grad_out)[y * a->grad_row + q] : 0;
    }
}

void NAME(avg_pool_forward)(const pc_pool_args *a)
{
    for (int64_t i = 0; i < a->planes * a->rows * a->columns; i++) {
        const int64_t plane = i / a->columns / a->rows, y = i / a->columns % a->rows, q = i % a->columns;
        T sum = 0;
        for (int64_t r = 0; r < a->kh; r++) {
            for (int64_t t = 0; t < a->kw; t++) {
                const T *x = NAME(pool_tap)(a, plane, y, q, r, t);
                sum += x ? *x : 0;
            }
        }
        ((T *)a->out)[(plane * a->rows + y) * a->out_row + q] =
            sum / (((const T *)a->row_cells)[y] * ((const T *)a->cells)[q]);
    }
}

void NAME(avg_pool_backward_input)(const pc_pool_args *a)
{
    for (int64_t i = 0; i < a->planes * a->rows * a->columns; i++) {
        const int64_t plane = i / a->columns / a->rows, y = i / a->columns % a->rows, q = i % a->columns;
        T sum = 0;
        for (int64_t r = 0; r < a->src_rows; r++) {
            for (int64_t t = 0; t < a->src_columns; t++) {
                const int64_t row = a->top + y - r * a->sh, column = a->left + q - t * a->sw;
                if (row >= 0 && row < a->kh && column >= 0 && column < a->kw) {
                    sum += ((const T *)a->src)[plane * a->src_plane + r * a->src_row + t] /
                           (((const T *)a->row_cells)[r] * ((const T *)a->cells)[t]);
                }
            }
        }
        ((T *)a->out)[(plane * a->rows + y) * a->out_row + q] = sum;
    }
}

/* out[n][o][y][x] = bias[o], then one fma per tap in the order (channel, kernel row, kernel column). Padding is zeros
 * that are multiplied. All tensors are contiguous; bias may be NULL. */
void NAME(conv_forward)(const conv_sizes *s, T *out, const T *in, const T *weight, const T *bias, int fused)
{
    const int64_t icg = s->ic / s->g, ocg = s->oc / s->g;
    for (int64_t n = 0; n < s->n; n++) {
        for (int64_t o = 0; o < s->oc; o++) {
            for (int64_t y = 0; y < s->oh; y++) {
                for (int64_t x = 0; x < s->ow; x++) {
                    T sum = bias ? bias[o] : 0;
                    for (int64_t c = 0; c < icg; c++) {
                        for (int64_t i = 0; i < s->kh; i++) {
                            for (int64_t j = 0; j < s->kw; j++) {
                                int64_t h = y * s->sh - s->pt + i * s->dh, v = x * s->sw - s->pl + j * s->dw;
                                bool inside = h >= 0 && h < s->ih && v >= 0 && v < s->iw;
                                int64_t channel = o / ocg * icg + c;
                                T a = inside ? in[((n * s->ic + channel) * s->ih + h) * s->iw + v] : 0;
                                T w = weight[((o * icg + c) * s->kh + i) * s->kw + j];
                                T product = a * w;
                                sum = fused ? FMA(a, w, sum) : product + sum;
                            }
                        }
                    }
                    *out++ = sum;
                }
            }
        }
    }
}

/* grad_in[n][c][h][v] = bias[c], then one fma per tap that lies in grad_out, in the order (output channel, kernel row,
 * kernel column). With the sizes of the convolution that runs the other way this is the transposed forward as well. */
void NAME(conv_backward_input)(const conv_sizes *s, T *grad_in, const T *grad_out, const T *weight, const T *bias,
                               int fused)
{
    const int64_t icg = s->ic / s->g, ocg = s->oc / s->g;
    for (int64_t n = 0; n < s->n; n++) {
        for (int64_t c = 0; c < s->ic; c++) {
            for (int64_t h = 0; h < s->ih; h++) {
                for (int64_t v = 0; v < s->iw; v++) {
                    T sum = bias ? bias[c] : 0;
                    for (int64_t o = c / icg * ocg; o < c / icg * ocg + ocg; o++) {
                        for (int64_t i = 0; i < s->kh; i++) {
                            for (int64_t j = 0; j < s->kw; j++) {
                                int64_t y = h + s->pt - i * s->dh, x = v + s->pl - j * s->dw;
                                if (y < 0 || y % s->sh || y / s->sh >= s->oh || x < 0 || x % s->sw ||
                                    x / s->sw >= s->ow) {
                                    continue;
                                }
                                T a = grad_out[((n * s->oc + o) * s->oh + y / s->sh) * s->ow + x / s->sw];
                                T w = weight[((o * icg + c % icg) * s->kh + i) * s->kw + j];
                                T product = a * w;
                                sum = fused ? FMA(a, w, sum) : product + sum;
                            }
                        }
                    }
                    *grad_in++ = sum;
                }
            }
        }
    }
}

/* grad_weight[o][c][i][j]: the pixels cut into chunks of so many samples, rows and columns; one chain of fmas from zero
 * in each, in the order (sample, row, column), and the chunks added in the same order. Padding is zeros that are
 * multiplied. */
void NAME(conv_backward_weight)(const conv_sizes *s, T *grad_weight, const T *grad_out, const T *in,
                                const int64_t chunk[3], int fused)
{
    const int64_t icg = s->ic / s->g, ocg = s->oc / s->g;
    for (int64_t k = 0; k < s->oc * icg * s->kh * s->kw; k++) {
        const int64_t j = k % s->kw, i = k / s->kw % s->kh, c = k / s->kw / s->kh % icg, o = k / s->kw / s->kh / icg;
        T total = 0;
        for (int64_t n0 = 0; n0 < s->n; n0 += chunk[0]) {
            for (int64_t y0 = 0; y0 < s->oh; y0 += chunk[1]) {
                for (int64_t x0 = 0; x0 < s->ow; x0 += chunk[2]) {
                    T sum = 0;
                    for (int64_t n = n0; n < s->n && n < n0 + chunk[0]; n++) {
                        for (int64_t y = y0; y < s->oh && y < y0 + chunk[1]; y++) {
                            for (int64_t x = x0; x < s->ow && x < x0 + chunk[2]; x++) {
                                int64_t h = y * s->sh - s->pt + i * s->dh, v = x * s->sw - s->pl + j * s->dw;
                                bool inside = h >= 0 && h < s->ih && v >= 0 && v < s->iw;
                                T a = inside ? in[((n * s->ic + o / ocg * icg + c) * s->ih + h) * s->iw + v] : 0;
                                T b = grad_out[((n * s->oc + o) * s->oh + y) * s->ow + x];
                                T product = a * b;
                                sum = fused ? FMA(a, b, sum) : product + sum;
                            }
                        }
                    }
                    total = n0 + y0 + x0 ? total + sum : sum;
                }
            }
        }
        grad_weight[k] = total;
    }
}

#endif
