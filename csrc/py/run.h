/* run.h: how a planned call is carried out: threads, the GIL, Ctrl-C.
 *
 *     pc_run run;
 *     int threads = pc_threads(state);                            may fail
 *     status = pc_<op>_begin(&geom, ..., threads, &run.call, &error);
 *     if (status != PC_OK) return pc_raise(...);
 *     pc_run_start(&run);                                         the GIL goes, where the work is worth it
 *     pc_<op>(&geom, ..., &run.call);
 *     if (!pc_run_finish(&run)) ...                               the GIL is back, the scratch too; false: interrupted
 *
 * Between begin and finish nothing returns and nothing touches Python.
 */
#ifndef PC_PY_RUN_H
#define PC_PY_RUN_H

#include "py/state.h"

#include <stdbool.h>
#include <time.h>

#include "ops/ops.h"

typedef struct {
    pc_call call;
    PyThreadState *thread; /* saved while the GIL is gone, else NULL */
    struct timespec asked; /* when signals were looked at last */
    bool raised;           /* a signal handler raised: its exception is set */
} pc_run;

void pc_run_start(pc_run *run);
bool pc_run_finish(pc_run *run);

/* How many threads a call here and now may use: num_threads_var's number, else the process-wide one. -1 with an
 * exception when somebody put something else into the variable. */
int pc_threads(pc_state *state);

#endif
