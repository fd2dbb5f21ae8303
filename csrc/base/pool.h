/* pool.h: a private pool of threads. Who may call: ops/ (run), py/ (the fork and shutdown rules hold by themselves).
 *
 * pc_pool_run calls task(context, index, count) once for each index in 0 .. count-1 and returns when all are done. The
 * caller works too. Which thread runs which index is nobody's business: tasks may not depend on it, so fewer threads
 * (one that cannot be created, a pool busy with another caller, a forked child before its pool is rebuilt) do the same
 * work with the same bits. Each thread runs its tasks in the default floating-point environment; the caller's is
 * restored, exception flags included.
 */
#ifndef PC_BASE_POOL_H
#define PC_BASE_POOL_H

typedef void (*pc_task)(void *context, int index, int count);

void pc_pool_run(int count, pc_task task, void *context);

/* Threads alive now, the caller not counted. For tests and `info`. */
int pc_pool_workers(void);

#endif
