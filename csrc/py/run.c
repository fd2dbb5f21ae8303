/* run.c: see run.h.
 *
 * Ctrl-C: only Python's main thread runs signal handlers, so only a process' first thread looks for signals; all others
 * would fight for the GIL in vain. It asks every 30 ms: seldom enough to cost nothing, often enough to feel at once.
 * A handler may run any Python code, which may call us again: nothing of a call is visible before it is finished.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* gettid */
#endif
#include "py/run.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Below this many multiply-adds (a few microseconds) giving the GIL away costs more than it gives. */
static const double WORTH_THE_GIL = 20000;
static const int64_t SIGNAL_PERIOD_NS = 30 * 1000 * 1000;

static bool on_main_thread(void)
{
#if defined(__linux__)
    return (pid_t)syscall(SYS_gettid) == getpid();
#else
    return true; /* asking in vain does no harm */
#endif
}

static int64_t nanoseconds_between(const struct timespec *from, const struct timespec *to)
{
    return (int64_t)(to->tv_sec - from->tv_sec) * 1000000000 + (to->tv_nsec - from->tv_nsec);
}

/* Asked between blocks, by a clock that is read in a few nanoseconds where there is one; milliseconds do not matter. */
static struct timespec about_now(void)
{
    struct timespec now = {0, 0};
#if defined(CLOCK_MONOTONIC_COARSE)
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return now;
}

static bool signal_raised(void *context)
{
    pc_run *run = context;
    const struct timespec now = about_now();
    if (nanoseconds_between(&run->asked, &now) < SIGNAL_PERIOD_NS) {
        return false;
    }
    PyEval_RestoreThread(run->thread);
    run->raised = PyErr_CheckSignals() < 0;
    run->thread = PyEval_SaveThread();
    run->asked = about_now();
    return run->raised;
}

void pc_run_start(pc_run *run)
{
    run->thread = NULL;
    run->raised = false;
    if (run->call.work < WORTH_THE_GIL) {
        return;
    }
    if (on_main_thread()) {
        run->asked = about_now();
        run->call.stop = (pc_stop){signal_raised, run};
    }
    run->thread = PyEval_SaveThread();
}

bool pc_run_finish(pc_run *run)
{
    if (run->thread) {
        PyEval_RestoreThread(run->thread);
    }
    pc_end(&run->call);
    return !run->raised;
}
