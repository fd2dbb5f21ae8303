/* pooling.h: one pooling call, forward or backward, from opened arrays to new ones; for the layers and the functions. */
#ifndef PC_PY_POOLING_H
#define PC_PY_POOLING_H

#include "py/array.h"
#include "py/state.h"

#include "geom/geom.h"

typedef struct {
    pc_window window;
    bool count_include_pad; /* average only, as is the divisor; 0: by the rule */
    int64_t divisor;
} pc_pool_config;

void pc_pool_config_init(pc_pool_config *config);
/* What can be said before an input. */
bool pc_pool_check(pc_pool_config *config, const char *who);

typedef struct {
    int rank; /* 3 or 4: input, output and their gradients alike */
    int64_t in_shape[4];
    int64_t out_shape[4];
    pc_pool_geom geom;
} pc_pool_plan;

bool pc_pool_plan_shape(pc_pool_plan *plan, const pc_pool_config *config, const char *who, const int64_t shape[4],
                        int rank);
/* The same, with an array's rank checked first, in torch's words. */
bool pc_pool_plan_input(pc_pool_plan *plan, const pc_pool_config *config, const char *who, const pc_input *input);
/* From the shapes of input and output alone: what max pooling's backward needs, and all that it may look at. */
bool pc_pool_plan_indices(pc_pool_plan *plan, const char *who, const int64_t in_shape[4], int rank,
                          const pc_input *indices);

/* A new output; with `indices`, a new int64 array there as well. `input` is settled. */
PyObject *pc_max_pool_run_forward(pc_state *state, const pc_pool_plan *plan, const char *who, pc_dtype dtype,
                                  const pc_input *input, PyObject **indices);
PyObject *pc_avg_pool_run_forward(pc_state *state, const pc_pool_plan *plan, const pc_pool_config *config,
                                  const char *who, pc_dtype dtype, const pc_input *input);

/* A new gradient of the input. `grad_output` has the output's shape; it and `indices` are settled. */
PyObject *pc_max_pool_run_backward(pc_state *state, const pc_pool_plan *plan, const char *who, pc_dtype dtype,
                                   const pc_input *grad_output, const pc_input *indices);
PyObject *pc_avg_pool_run_backward(pc_state *state, const pc_pool_plan *plan, const pc_pool_config *config,
                                   const char *who, pc_dtype dtype, const pc_input *grad_output);

#endif
