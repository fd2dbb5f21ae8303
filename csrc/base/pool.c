/* pool.c: workers that wait until a run is announced, and hand out its indices among themselves.
 *
 * Waiting begins awake. A sleeper that is woken has to be given a CPU first, and the next layer of a network is usually
 * called at once. So a worker that has finished looks out for the next run for a while, and so does a caller for its
 * last worker, before they sleep: networks of layers of 50 to 200 us took 5 to 20 % longer on two threads without. A
 * while is short, because somebody else may want the CPU.
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
#include "base/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/fpenv.h"

enum { MAX_WORKERS = 255, STACK = 1 << 20, LOOKS = 2000 };

typedef struct {
    pc_task task;
    void *context;
    int count;
    atomic_int next;
    atomic_int inside; /* workers in this run; written under the lock */
} pc_run;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t announced = PTHREAD_COND_INITIALIZER;
static pthread_cond_t left = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool busy; /* under the lock, as all below */
static int workers;
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

static void *work(void *unused)
{
    (void)unused;
    unsigned long seen = 0;
    pthread_mutex_lock(&lock);
    for (;;) {
        if (serial == seen) {
            pthread_mutex_unlock(&lock);
            for (int i = 0; i < LOOKS && atomic_load_explicit(&serial, memory_order_relaxed) == seen; i++) {
                relax();
            }
            pthread_mutex_lock(&lock);
        }
        while (!current || serial == seen) {
            pthread_cond_wait(&announced, &lock);
        }
        pc_run *run = current;
        seen = serial;
        run->inside++;
        pthread_mutex_unlock(&lock);
        draw(run);
        pthread_mutex_lock(&lock);
        if (--run->inside == 0) {
            pthread_cond_signal(&left);
        }
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
        pthread_t thread;
        if (pthread_create(&thread, &attributes, work, NULL) != 0) {
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
    atomic_init(&run.inside, 0);
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
            pthread_cond_broadcast(&announced);
        }
        pthread_mutex_unlock(&lock);
    }
    draw(&run);
    if (shared && forks != born) {
        atomic_store_explicit(&run.next, 0, memory_order_relaxed);
        draw(&run);
    } else if (shared) {
        pthread_mutex_lock(&lock);
        current = NULL; /* whoever has not come yet need not */
        pthread_mutex_unlock(&lock);
        for (int i = 0; i < LOOKS && atomic_load_explicit(&run.inside, memory_order_relaxed) > 0; i++) {
            relax();
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
