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

static bool signal_raised(void *context)
{
    pc_run *run = context;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (nanoseconds_between(&run->asked, &now) < SIGNAL_PERIOD_NS) {
        return false;
    }
    PyEval_RestoreThread(run->thread);
    run->raised = PyErr_CheckSignals() < 0;
    run->thread = PyEval_SaveThread();
    clock_gettime(CLOCK_MONOTONIC, &run->asked);
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
        clock_gettime(CLOCK_MONOTONIC, &run->asked);
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
