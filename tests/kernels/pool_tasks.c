/* pool_tasks.c: the tasks with which the thread pool is tested. Part of the oracle's library. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

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
    atomic_int wait; /* tasks stay until it is 0 */
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
