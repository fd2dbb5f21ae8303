/* explain.h: what a layer would do with an input, as Python objects: a list of dicts, one for each pass, which
 * pyconv/_plan.py turns into what users see.
 */
#ifndef PC_PY_EXPLAIN_H
#define PC_PY_EXPLAIN_H

#include "py/convolve.h"
#include "py/pooling.h"

/* What a layer's `_explain` was given. */
typedef struct {
    int64_t shape[4];
    int rank;
    bool has_dtype;
    pc_dtype dtype; /* a default before, and where there is none */
} pc_explain_arguments;

bool pc_explain_bind(pc_explain_arguments *given, const char *who, PyObject *const *args, Py_ssize_t count,
                     PyObject *names);
#define PC_EXPLAIN_DOC                                                                                                 \
    "_explain($self, /, input_shape, dtype=None)\n--\n\nWhat each pass would do: a list of dicts, for pyconv._plan."

/* For as many threads as a call here and now would have. */
PyObject *pc_explain_conv(pc_state *state, const pc_conv_plan *plan, const char *who, pc_dtype dtype);
PyObject *pc_explain_pool(pc_state *state, const pc_pool_plan *plan, const char *who, pc_dtype dtype, bool max);

#endif
