/* normalise.h: one batch normalisation, forward or backward, from opened arrays to new ones; for the layer and the
 * functions. */
#ifndef PC_PY_NORMALISE_H
#define PC_PY_NORMALISE_H

#include "py/array.h"
#include "py/state.h"

/* What a call is told beside its input. References are borrowed; NULL and None are the same. */
typedef struct {
    int64_t channels; /* of the input, as it was when the vectors were made */
    bool batch;       /* by the batch's own statistics, which move the running ones; else by the running ones */
    double eps;
    PyObject *running_mean, *running_var; /* anything that may be an array */
    PyObject *weight, *bias;              /* contiguous vectors of the call's type */
} pc_norm_call;

/* (c,) arrays of that type, contiguous, from anything; *vector stays NULL for NULL and None. */
bool pc_norm_vector(PyObject *value, int64_t size, pc_dtype dtype, const char *who, const char *name,
                    PyObject **vector);

/* A new output. *statistics becomes a bytes object of doubles: the c means, the c biased variances and eps. The running
 * arrays are not changed, only looked at: can they be? */
PyObject *pc_norm_run_forward(pc_state *state, const pc_norm_call *call, const char *who, pc_dtype dtype,
                              PyObject *array, PyObject **statistics);

/* What forward leaves to its caller: running = (1 - momentum) * running + momentum * the batch's, with the unbiased
 * variance. All or nothing; nothing where there is no running array, or not more than one value per channel. */
bool pc_norm_move(const pc_norm_call *call, const char *who, pc_dtype dtype, PyObject *statistics, PyObject *output,
                  double momentum);

/* The statistics that a backward without its forward goes by. `array` is the input. */
PyObject *pc_norm_statistics(pc_state *state, const pc_norm_call *call, const char *who, pc_dtype dtype,
                             PyObject *array);

/* New gradients (input, weight, bias) where `mask` says so, NULL elsewhere and after a failure. */
bool pc_norm_run_backward(pc_state *state, const pc_norm_call *call, const char *who, pc_dtype dtype, PyObject *array,
                          PyObject *grad_output, PyObject *statistics, const bool mask[3], PyObject *gradients[3]);

#endif
