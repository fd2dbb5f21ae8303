/* pool.c: workers that wait until a run is announced, and hand out its indices among themselves.
 *
 * Waiting begins awake. A sleeper that is woken has to be given a CPU first, which takes as long as a small layer, and
 * the next layer of a network is usually called at once. So a worker that has finished looks out for the next run: for
 * half a millisecond where the last run came within that, else for a moment, and every few microseconds it lets anybody
 * have the CPU who wants it. So does a caller for its last worker, for a moment. The demo's training step, whose
 * convolutions on two threads are up to 300 us apart, takes 0.89 to 0.95 of the time it takes with a moment alone.
 *
 * Who does sleep is woken on a CPU that the caller does not use (Linux). A virtual machine's kernel takes idle CPUs for
 * preempted ones and lets a sleeper wake where it last ran. If that is where its caller runs, both stay there for
 * milliseconds. So the caller takes its CPU out of such a worker's affinity before it calls, and the worker, as soon as
 * it has come, puts back what it had. In such a guest two tasks of 145 us after a pause took 380, 341, 323, 300, 295 us
 * call by call, alone 290; now 302, 184, 158, 162, 160. Where all went well before, the first call may take 15 to 70 us
 * more. Threads of the host are left alone. And the lock is free when workers are called: they want it first thing.
 *
 * One run at a time: `busy` is taken without waiting, and a second caller does its work alone. The run lives on the
 * caller's stack; workers find it through `current` and count themselves in while they hold the lock, so the caller
 * can leave only after the last of them has left. Indices are drawn from an atomic counter: a thread that is late, or
 * was never created, costs time and nothing else.
 *
 * fork: the child has no workers, whatever the parent had. The handlers hold the lock across the fork, so the child
 * finds the state whole, and then forget the workers; the next run starts new ones. A caller that forked in the middle
 * of its own run (a signal handler can) does the whole run again in the child: what a worker had drawn there will never
 * be finished, and tasks write all they read.
 */
#if defined(__linux__)
#define _GNU_SOURCE /* affinity */
#endif
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/fpenv.h"

enum { MAX_WORKERS = 255, STACK = 1 << 20, FEW = 8, LOOKS = 128 };

/* How long to look out before sleeping, in nanoseconds. */
static const int64_t MOMENT = 40000, WHILE = 500000;

typedef struct {
    pc_task task;
    void *context;
    int count;
    atomic_int next;
    atomic_ulong inside; /* workers in this run; written under the lock */
} pc_run;

typedef struct {
    pthread_t thread;
    bool asleep;
    int cpu;   /* where it last waited, or -1 */
    bool sent; /* to another CPU, and not back */
#if defined(__linux__)
    cpu_set_t allowed; /* before */
#endif
} pc_worker;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t announced = PTHREAD_COND_INITIALIZER;
static pthread_cond_t left = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool busy; /* under the lock, as all below */
static int workers;
static pc_worker worker[MAX_WORKERS];
static atomic_ulong serial; /* of the last announcement */
static pc_run *current;     /* NULL between runs */
static unsigned long forks; /* that this process is away from the first */

static void before_fork(void) { pthread_mutex_lock(&lock); }

static void after_fork_parent(void) { pthread_mutex_unlock(&lock); }

static void after_fork_child(void)
{
    forks++;
    workers = 0;
    busy = false;
    current = NULL;
    /* What the parent's workers waited on is not to be trusted here. */
    pthread_cond_init(&announced, NULL);
    pthread_cond_init(&left, NULL);
    pthread_mutex_init(&lock, NULL);
}

static void register_fork(void) { pthread_atfork(before_fork, after_fork_parent, after_fork_child); }

static void draw(pc_run *run)
{
    pc_fpenv found = pc_fpenv_enter();
    for (;;) {
        int index = atomic_fetch_add_explicit(&run->next, 1, memory_order_relaxed);
        if (index >= run->count) {
            break;
        }
        run->task(run->context, index, run->count);
    }
    pc_fpenv_leave(found);
}

/* Lets time pass while another thread works. */
static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now(void)
{
    struct timespec time = {0, 0};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Looks at `place` until it is no longer `value`, or until the time `end`. */
static void look_out(const atomic_ulong *place, unsigned long value, int64_t end)
{
    do {
        for (int i = 0; i < LOOKS; i++) {
            if (atomic_load_explicit(place, memory_order_relaxed) != value) {
                return;
            }
            relax();
        }
        sched_yield();
    } while (now() < end);
}

static int this_cpu(void)
{
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

/* Called with the lock held: no worker shall come to the caller's CPU if it may use another. Of many workers, only
 * those that are known to be there: two system calls for each would take too long. Where the calls fail (a sandbox, more
 * CPUs than the set has room for) workers come where the kernel wants them. */
static void send_away(void)
{
#if defined(__linux__)
    const int cpu = this_cpu();
    for (int i = 0; i < workers && cpu >= 0; i++) {
        pc_worker *w = &worker[i];
        const bool may_come = w->cpu == cpu || (w->asleep && workers <= FEW);
        if (may_come && !w->sent && pthread_getaffinity_np(w->thread, sizeof w->allowed, &w->allowed) == 0) {
            cpu_set_t others = w->allowed;
            CPU_CLR((size_t)cpu, &others);
            w->sent = CPU_COUNT(&others) > 0 && pthread_setaffinity_np(w->thread, sizeof others, &others) == 0;
        }
    }
#endif
}

/* The worker's own affinity again. What somebody made of it between send_away and here is lost: a moment, and nobody
 * else should know of this thread. */
static void come_back(pc_worker *me)
{
#if defined(__linux__)
    if (me->sent) {
        pthread_setaffinity_np(me->thread, sizeof me->allowed, &me->allowed);
        me->sent = false;
    }
#else
    (void)me;
#endif
}

static void *work(void *slot)
{
    pc_worker *me = slot;
    unsigned long seen = 0;
    int64_t idle = now(), patience = WHILE;
    pthread_mutex_lock(&lock);
    for (;;) {
        me->cpu = this_cpu();
        if (serial == seen) {
            pthread_mutex_unlock(&lock);
            look_out(&serial, seen, idle + patience);
            pthread_mutex_lock(&lock);
        }
        while (serial == seen) {
            me->asleep = true;
            pthread_cond_wait(&announced, &lock);
            me->asleep = false;
        }
        patience = now() - idle < WHILE ? WHILE : MOMENT;
        pc_run *run = current; /* or NULL: too late */
        seen = serial;
        if (run) {
            run->inside++;
            pthread_mutex_unlock(&lock);
            come_back(me); /* nobody looks at it while it is inside */
            draw(run);
            pthread_mutex_lock(&lock);
            if (--run->inside == 0) {
                pthread_cond_signal(&left);
            }
        } else {
            come_back(me);
        }
        idle = now();
    }
    return NULL;
}

/* Called with the lock held. A thread that cannot be made is one worker fewer. */
static void start_workers(int wanted)
{
    if (workers >= wanted) {
        return;
    }
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) {
        return;
    }
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK);
    /* Workers take no signal: handlers belong to the host's threads. */
    sigset_t all, found;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &found);
    while (workers < wanted) {
        pc_worker *w = &worker[workers];
        *w = (pc_worker){.cpu = -1};
        if (pthread_create(&w->thread, &attributes, work, w) != 0) {
            break;
        }
        workers++;
    }
    pthread_sigmask(SIG_SETMASK, &found, NULL);
    pthread_attr_destroy(&attributes);
}

void pc_pool_run(int count, pc_task task, void *context)
{
    pc_run run = {.task = task, .context = context, .count = count};
    atomic_init(&run.next, 0);
    atomic_init(&run.inside, 0UL);
    bool shared = false;
    const unsigned long born = forks;
    if (count > 1) {
        pthread_once(&once, register_fork);
        pthread_mutex_lock(&lock);
        if (!busy) {
            start_workers(count - 1 < MAX_WORKERS ? count - 1 : MAX_WORKERS);
            busy = shared = workers > 0;
        }
        if (shared) {
            current = &run;
            serial++;
            send_away();
        }
        pthread_mutex_unlock(&lock);
        if (shared) {
            pthread_cond_broadcast(&announced);
        }
    }
    draw(&run);
    if (shared && forks != born) {
        atomic_store_explicit(&run.next, 0, memory_order_relaxed);
        draw(&run);
    } else if (shared) {
        pthread_mutex_lock(&lock);
        current = NULL; /* whoever has not come yet need not */
        pthread_mutex_unlock(&lock);
        const int64_t end = now() + MOMENT;
        for (unsigned long inside; (inside = run.inside) > 0 && now() < end;) {
            look_out(&run.inside, inside, end);
        }
        pthread_mutex_lock(&lock);
        while (run.inside > 0) {
            pthread_cond_wait(&left, &lock);
        }
        busy = false;
        pthread_mutex_unlock(&lock);
    }
}

int pc_pool_workers(void)
{
    pthread_mutex_lock(&lock);
    int alive = workers;
    pthread_mutex_unlock(&lock);
    return alive;
}
