/* oracle.c: what the kernels and operators are compared with, one scalar loop each, in the order that the definition
 * says. Compiled without contraction, so a product and a sum stay two roundings and fma() is one.
 *
 * The file includes itself once per dtype: T is float or double, FMA its fused multiply-add, NAME puts the dtype into
 * a name. Behind that stand the tasks with which the thread pool is tested. */
#ifndef T

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sched.h>
#include <unistd.h>

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
    SIZE(pc_tile_args)
    SIZE(pc_pool_args)
    SIZE(pc_chains_args)
    SIZE(pc_map_args)
    SIZE(pc_row_args)
    SIZE(pc_norm_sums_args)
    SIZE(pc_norm_map_args)
    SIZE(pc_kernels)
    PLACE(pc_chains_args, rounds)
    SIZE(pc_isa)
    PLACE(pc_tile_args, accumulate)
    PLACE(pc_tile_args, vec)
    PLACE(pc_tile_args, vec_row)
    PLACE(pc_tile_args, scal_step)
    PLACE(pc_pool_args, divisor)
    PLACE(pc_pool_args, tap_row)
    PLACE(pc_map_args, count)
    PLACE(pc_row_args, accumulate)
    PLACE(pc_norm_sums_args, count)
    PLACE(pc_norm_map_args, count)
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

/* ---- tasks for the thread pool ---- */

typedef void (*run_function)(int count, void (*task)(void *, int, int), void *context);

typedef struct {
    run_function run; /* the pool's door */
    atomic_int *hits; /* how often each index was seen */
    int64_t *thread;  /* which thread saw it last */
    int64_t *state;   /* the floating-point control word there */
    float *product;   /* a product below the normal range, computed there */
    int inner;        /* indices of the run inside each task; 0 for none */
    int pause;        /* so many microseconds a task takes */
    atomic_int entered, left;
    atomic_int wait;  /* tasks stay until it is 0 */
    atomic_int wrong_count;
    int count;
} pool_test;

int64_t oracle_fp_state(void)
{
#if defined(__x86_64__)
    return (int64_t)__builtin_ia32_stmxcsr();
#elif defined(__aarch64__)
    uint64_t state;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    return (int64_t)state;
#endif
}

void oracle_set_fp_state(int64_t state)
{
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr((unsigned)state);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(state));
#endif
}

/* Bits that flush subnormals to zero and round upward. */
int64_t oracle_fp_mischief(void)
{
#if defined(__x86_64__)
    return 0x8040 | 0x4000;
#elif defined(__aarch64__)
    return (1 << 24) | (1 << 22);
#endif
}

static void count_inner(void *context, int index, int count)
{
    pool_test *test = context;
    (void)index;
    (void)count;
    atomic_fetch_add(&test->entered, 1);
}

static void pool_task(void *context, int index, int count)
{
    pool_test *test = context;
    volatile float small = 1e-30f;
    atomic_fetch_add(&test->hits[index], 1);
    atomic_fetch_add(&test->wrong_count, count != test->count);
    test->thread[index] = (int64_t)pthread_self();
    test->state[index] = oracle_fp_state();
    test->product[index] = small * 1e-10f;
    if (test->inner) {
        test->run(test->inner, count_inner, test);
    } else {
        atomic_fetch_add(&test->entered, 1);
    }
    while (atomic_load(&test->wait)) {
        sched_yield();
    }
    usleep((useconds_t)test->pause);
    atomic_fetch_add(&test->left, 1);
}

/* One run, with a caller whose floating-point state is `state` (-1: as it is). Returns the state after the run. */
int64_t oracle_pool_run(pool_test *test, int64_t state)
{
    int64_t found = oracle_fp_state();
    if (state >= 0) {
        oracle_set_fp_state(state);
    }
    test->run(test->count, pool_task, test);
    int64_t after = oracle_fp_state();
    oracle_set_fp_state(found);
    return after;
}

int oracle_pool_entered(pool_test *test) { return atomic_load(&test->entered); }
void oracle_pool_let_go(pool_test *test) { atomic_store(&test->wait, 0); }

static void tick(void *context, int index, int count)
{
    (void)count;
    atomic_fetch_add((_Atomic int64_t *)context, index + 1);
}

/* Many short runs in a row; returns how many of them lost or repeated an index. */
int64_t oracle_pool_hammer(run_function run, int64_t repeats, int most)
{
    int64_t bad = 0;
    for (int64_t i = 0; i < repeats; i++) {
        _Atomic int64_t sum = 0;
        int count = 1 + (int)(i * 7 % most);
        run(count, tick, &sum);
        bad += sum != (int64_t)count * (count + 1) / 2;
    }
    return bad;
}

#else /* one dtype */

/* The contract of conv_tile in kernels.h. `fused` is false for an ISA without fused multiply-add. */
void NAME(conv_tile)(const pc_tile_args *a, int fused)
{
    for (int64_t p = 0; p < a->rows; p++) {
        for (int64_t q = 0; q < a->columns; q++) {
            T *out = (T *)a->out + p * a->out_step + q;
            T sum = a->accumulate ? *out : a->init ? ((const T *)a->init)[p * a->init_step] : 0;
            for (int64_t o = 0; o < a->outer; o++) {
                for (int64_t r = 0; r < a->row_count; r++) {
                    for (int64_t t = 0; t < a->col_count; t++) {
                        T x = ((const T *)a->vec)[o * a->vec_outer + a->vec_row[r] + a->vec_col[t] + q];
                        T w = ((const T *)a->scal)[o * a->scal_outer + a->scal_row[r] + a->scal_col[t] +
                                                   p * a->scal_step];
                        T product = x * w;
                        sum = fused ? FMA(x, w, sum) : product + sum;
                    }
                }
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

/* The contracts of the pools' rows. */
void NAME(max_pool)(const pc_pool_args *a, int with_taps)
{
    for (int64_t q = 0; q < a->columns; q++) {
        T best = (T)-INFINITY;
        for (int64_t r = 0; r < a->row_count; r++) {
            for (int64_t t = 0; t < a->col_count; t++) {
                T x = ((const T *)a->src)[a->row[r] + a->col[t] + q];
                if (isnan(x) || x > best) {
                    best = x;
                    if (with_taps) {
                        ((T_INT *)a->taps)[q] = (T_INT)(a->tap_row[r] + t);
                    }
                }
            }
        }
        ((T *)a->out)[q] = best;
    }
}

void NAME(avg_pool_forward)(const pc_pool_args *a)
{
    for (int64_t q = 0; q < a->columns; q++) {
        T sum = 0;
        for (int64_t r = 0; r < a->row_count; r++) {
            for (int64_t t = 0; t < a->col_count; t++) {
                sum += ((const T *)a->src)[a->row[r] + a->col[t] + q];
            }
        }
        ((T *)a->out)[q] = sum / ((const T *)a->divisor)[q];
    }
}

void NAME(avg_pool_backward_input)(const pc_pool_args *a)
{
    for (int64_t r = 0; r < a->row_count; r++) {
        for (int64_t t = 0; t < a->col_count; t++) {
            for (int64_t q = 0; q < a->columns; q++) {
                ((T *)a->src)[a->row[r] + a->col[t] + q] += ((const T *)a->out)[q];
            }
        }
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

void NAME(relu_backward)(const pc_map_args *a)
{
    for (int64_t q = 0; q < a->count; q++) {
        const int passes = a->in ? !(((const T *)a->in)[q] <= 0) : a->bits[q / 64] >> q % 64 & 1;
        ((T *)a->out)[q] = passes ? ((const T *)a->grad)[q] : 0;
    }
}

void NAME(row_sums)(const pc_row_args *a)
{
    for (int64_t q = 0; q < a->columns; q++) {
        T sum = a->accumulate ? ((T *)a->out)[q] : 0;
        for (int64_t r = 0; r < a->rows; r++) {
            sum += ((const T *)a->in)[r * a->step + q];
        }
        ((T *)a->out)[q] = sum;
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

void NAME(norm_map)(const pc_norm_map_args *a, int fused)
{
    for (int64_t e = 0; e < a->count; e++) {
        const T x = ((const T *)a->in)[e] - (T)a->mean, scaled = x * (T)a->scale;
        T y = fused ? FMA(x, (T)a->scale, (T)a->shift) : scaled + (T)a->shift;
        if (a->more) {
            const T z = ((const T *)a->more)[e], product = z * (T)a->more_scale;
            y = fused ? FMA(z, (T)a->more_scale, y) : product + y;
        }
        ((T *)a->out)[e] = y;
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

#endif
