/* counting.c: what really ran. Linked into a copy of the extension with --wrap, which leads the calls of ops/ here; the
 * sources know nothing of it, and a release pays nothing.
 *
 *     pc_isa_chosen    the same table and its narrow one, each kernel behind a function that counts
 *     pc_scratch_take, pc_pool_run, pc_slab_pack    note what they are asked for
 */
#include <pthread.h>
#include <stdatomic.h>

#include "base/pool.h"
#include "base/scratch.h"
#include "isa/dispatch.h"
#include "ops/slab.h"

/* Beside the counts of kernels: the largest of each that was seen. counting.py has the same names. */
enum {
    SCRATCH,
    THREADS,
    SLAB_SAMPLES,
    SLAB_ROWS,
    SLAB_COLUMNS,
    SLAB_CHANNELS,
    TILE_ROWS,
    TILE_VECTORS,
    BAND_ROWS,
    BAND_COLUMNS,
    MAXIMA
};
static atomic_llong maxima[MAXIMA];

enum {
#define PC_KERNEL(name, f32, f64, args) COUNT_##name,
#include "kernels/kernels.def"
#undef PC_KERNEL
    COUNTS
};
static atomic_llong counts[COUNTS];

static void note(int which, int64_t value)
{
    long long known = atomic_load(&maxima[which]);
    while (value > known && !atomic_compare_exchange_weak(&maxima[which], &known, value)) {
    }
}

const pc_isa *__real_pc_isa_chosen(void);
const pc_isa *__wrap_pc_isa_chosen(void);
void *__real_pc_scratch_take(size_t bytes);
void *__wrap_pc_scratch_take(size_t bytes);
void __real_pc_pool_run(int count, pc_task task, void *context);
void __wrap_pc_pool_run(int count, pc_task task, void *context);
void __real_pc_slab_pack(const pc_slab *, const pc_axis *, const pc_axis *, pc_dtype, void *, const pc_tensor *,
                         int64_t, int64_t, int64_t, bool);
void __wrap_pc_slab_pack(const pc_slab *, const pc_axis *, const pc_axis *, pc_dtype, void *, const pc_tensor *,
                         int64_t, int64_t, int64_t, bool);

/* What a kernel is told of its tile. */
static void see_dense(const pc_dense_args *a) { note(TILE_ROWS, a->rows); }
static void see_weight(const pc_weight_args *a) { note(TILE_VECTORS, a->vectors); }
static void see_rows(const pc_rows_args *a) { note(BAND_ROWS, a->rows); }
static void see_walk(const pc_walk_args *a) { note(BAND_ROWS, a->rows); }
static void see_rows_weight(const pc_rows_weight_args *a) { note(BAND_ROWS, a->rows); }
static void see_pool(const pc_pool_args *a)
{
    note(BAND_ROWS, a->rows);
    note(BAND_COLUMNS, a->columns);
}
static void see_nothing(const void *a) { (void)a; }

#define COUNTED(which, name, args, table)                                                                              \
    static void which##_##name##_##table(const args *a)                                                                \
    {                                                                                                                  \
        atomic_fetch_add(&counts[COUNT_##name], 1);                                                                    \
        _Generic((a),                                                                                                  \
            const pc_dense_args *: see_dense,                                                                          \
            const pc_weight_args *: see_weight,                                                                        \
            const pc_rows_args *: see_rows,                                                                            \
            const pc_walk_args *: see_walk,                                                                            \
            const pc_rows_weight_args *: see_rows_weight,                                                              \
            const pc_pool_args *: see_pool,                                                                            \
            default: see_nothing)(a);                                                                                  \
        which()->table.name(a);                                                                                        \
    }

static const pc_isa *chosen(void) { return __real_pc_isa_chosen(); }
static const pc_isa *narrow(void) { return chosen()->narrow; }

#define PC_KERNEL(name, symbol32, symbol64, args)                                                                      \
    COUNTED(chosen, name, args, f32)                                                                                   \
    COUNTED(chosen, name, args, f64)                                                                                   \
    COUNTED(narrow, name, args, f32)                                                                                   \
    COUNTED(narrow, name, args, f64)
#include "kernels/kernels.def"
#undef PC_KERNEL

static pc_isa counting, counting_narrow;

static void fill_table(void)
{
    counting = *chosen();
    counting_narrow = *narrow();
    counting.narrow = counting_narrow.narrow = &counting_narrow;
#define PC_KERNEL(name, symbol32, symbol64, args)                                                                      \
    counting.f32.name = chosen()->f32.name ? chosen_##name##_f32 : NULL;                                               \
    counting.f64.name = chosen()->f64.name ? chosen_##name##_f64 : NULL;                                               \
    counting_narrow.f32.name = narrow()->f32.name ? narrow_##name##_f32 : NULL;                                        \
    counting_narrow.f64.name = narrow()->f64.name ? narrow_##name##_f64 : NULL;
#include "kernels/kernels.def"
#undef PC_KERNEL
}

/* The table is chosen before anybody asks for it. */
const pc_isa *__wrap_pc_isa_chosen(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_table);
    return &counting;
}

void *__wrap_pc_scratch_take(size_t bytes)
{
    note(SCRATCH, (int64_t)bytes);
    return __real_pc_scratch_take(bytes);
}

void __wrap_pc_pool_run(int count, pc_task task, void *context)
{
    note(THREADS, count);
    __real_pc_pool_run(count, task, context);
}

void __wrap_pc_slab_pack(const pc_slab *slab, const pc_axis *y, const pc_axis *x, pc_dtype dtype, void *packed,
                         const pc_tensor *source, int64_t sample, int64_t channel, int64_t channels, bool rim)
{
    note(SLAB_SAMPLES, slab->samples);
    note(SLAB_ROWS, slab->y.count);
    note(SLAB_COLUMNS, slab->x.count);
    note(SLAB_CHANNELS, channels);
    __real_pc_slab_pack(slab, y, x, dtype, packed, source, sample, channel, channels, rim);
}

/* Moves everything seen so far into the two arrays, and starts anew. */
__attribute__((visibility("default"))) void counting_take(int64_t *kernels, int64_t *largest);
void counting_take(int64_t *kernels, int64_t *largest)
{
    for (int i = 0; i < COUNTS; i++) {
        kernels[i] = atomic_exchange(&counts[i], 0);
    }
    for (int i = 0; i < MAXIMA; i++) {
        largest[i] = atomic_exchange(&maxima[i], 0);
    }
}
