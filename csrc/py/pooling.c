/* pooling.c: see pooling.h. */
#include "py/pooling.h"

#include <string.h>

#include "py/args.h"
#include "py/run.h"

void pc_pool_config_init(pc_pool_config *config)
{
    *config = (pc_pool_config){
        .window = {.kernel = {1, 1}, .stride = {1, 1}, .dilation = {1, 1}, .pad_rule = PC_PAD_NUMBERS},
        .count_include_pad = true,
    };
}

bool pc_pool_check(pc_pool_config *config, const char *who)
{
    pc_error error;
    pc_status status = pc_window_check(&config->window, &error);
    if (status == PC_OK) {
        status = pc_pool_window_check(&config->window, &error);
    }
    return status == PC_OK || pc_raise(who, status, &error);
}

/* ---- from shape to shape ---- */

bool pc_pool_plan_shape(pc_pool_plan *plan, const pc_pool_config *config, const char *who, const int64_t shape[4],
                        int rank)
{
    pc_error error;
    pc_status status = pc_pool_geometry(shape, &config->window, &plan->geom, &error);
    if (status != PC_OK) {
        return pc_raise(who, status, &error);
    }
    plan->rank = rank;
    memcpy(plan->in_shape, shape, sizeof plan->in_shape);
    plan->out_shape[0] = plan->geom.n;
    plan->out_shape[1] = plan->geom.c;
    plan->out_shape[2] = plan->geom.oh;
    plan->out_shape[3] = plan->geom.ow;
    return true;
}

/* Three or four axes? */
static bool check_rank(const char *who, const char *name, const pc_input *input)
{
    if (input->rank == 3 || input->rank == 4) {
        return true;
    }
    PyObject *shape = pc_input_shape(input);
    if (shape) {
        PyErr_Format(PyExc_ValueError,
                     "%s: expected %s (N, C, H, W) or (C, H, W), got %.200R. Expected 3D or 4D (batch mode) tensor: "
                     "non-empty 3D or 4D (batch mode) tensor expected for input",
                     who, name, shape);
        Py_DECREF(shape);
    }
    return false;
}

bool pc_pool_plan_input(pc_pool_plan *plan, const pc_pool_config *config, const char *who, const pc_input *input)
{
    return check_rank(who, "input", input) && pc_pool_plan_shape(plan, config, who, input->shape, input->rank);
}

bool pc_pool_plan_indices(pc_pool_plan *plan, const char *who, const int64_t in_shape[4], int rank,
                          const pc_input *indices)
{
    if (!check_rank(who, "indices", indices)) {
        return false;
    }
    const int64_t *out = indices->shape;
    if (indices->rank != rank || out[0] != in_shape[0] || out[1] != in_shape[1]) {
        PyObject *got = pc_input_shape(indices), *input = pc_shape_object(in_shape, rank);
        if (got && input) {
            PyErr_Format(PyExc_ValueError,
                         "%s: indices of shape %S do not belong to an input of shape %S: all but the "
                         "last two sizes must agree",
                         who, got, input);
        }
        Py_XDECREF(got);
        Py_XDECREF(input);
        return false;
    }
    for (int i = 1; i < 4; i++) {
        if (in_shape[i] < 1 || out[i] < 1) {
            PyErr_Format(PyExc_ValueError, "%s: only the batch may be empty, got an input or output size of 0", who);
            return false;
        }
    }
    plan->rank = rank;
    memcpy(plan->in_shape, in_shape, sizeof plan->in_shape);
    memcpy(plan->out_shape, out, sizeof plan->out_shape);
    plan->geom = (pc_pool_geom){.n = in_shape[0],
                                .c = in_shape[1],
                                .ih = in_shape[2],
                                .iw = in_shape[3],
                                .oh = out[2],
                                .ow = out[3],
                                .kh = 1,
                                .kw = 1,
                                .sh = 1,
                                .sw = 1,
                                .dh = 1,
                                .dw = 1};
    return true;
}

/* ---- from array to array ---- */

static bool begin(pc_state *state, const pc_pool_plan *plan, pc_pool_pass pass, const pc_tensor *in, const char *who,
                  pc_dtype dtype, pc_run *run)
{
    int threads = pc_threads(state);
    if (threads < 0) {
        return false;
    }
    pc_error error;
    pc_status status = pc_pool_begin(&plan->geom, pass, in, dtype, threads, &run->call, &error);
    if (status != PC_OK) {
        return pc_raise(who, status, &error);
    }
    pc_run_start(run);
    return true;
}

PyObject *pc_max_pool_run_forward(pc_state *state, const pc_pool_plan *plan, const char *who, pc_dtype dtype,
                                  const pc_input *input, PyObject **indices)
{
    PyObject *output = pc_array_new(plan->rank, plan->out_shape, dtype, who, "the output");
    PyObject *places = output && indices ? pc_array_new_indices(plan->rank, plan->out_shape, who) : NULL;
    pc_run run;
    pc_tensor in;
    bool good = output && (places || !indices) && pc_input_read(input, dtype, who, &in) &&
                begin(state, plan, places ? PC_MAX_INDICES : PC_MAX_FORWARD, &in, who, dtype, &run);
    if (good) {
        pc_max_pool_forward(&plan->geom, pc_array_data(output), places ? pc_array_data(places) : NULL, &in, &run.call);
        good = pc_run_finish(&run);
    }
    if (!good) {
        Py_CLEAR(output);
        Py_CLEAR(places);
    }
    if (indices) {
        *indices = places;
    }
    return output;
}

PyObject *pc_avg_pool_run_forward(pc_state *state, const pc_pool_plan *plan, const pc_pool_config *config,
                                  const char *who, pc_dtype dtype, const pc_input *input)
{
    PyObject *output = pc_array_new(plan->rank, plan->out_shape, dtype, who, "the output");
    pc_run run;
    pc_tensor in;
    bool good =
        output && pc_input_read(input, dtype, who, &in) && begin(state, plan, PC_AVG_FORWARD, &in, who, dtype, &run);
    if (good) {
        pc_avg_pool_forward(&plan->geom, pc_array_data(output), &in, config->count_include_pad, config->divisor,
                            &run.call);
        good = pc_run_finish(&run);
    }
    if (!good) {
        Py_CLEAR(output);
    }
    return output;
}

PyObject *pc_max_pool_run_backward(pc_state *state, const pc_pool_plan *plan, const char *who, pc_dtype dtype,
                                   const pc_input *grad_output, const pc_input *indices)
{
    PyObject *gradient = pc_array_new(plan->rank, plan->in_shape, dtype, who, "the input's gradient");
    pc_run run;
    pc_tensor grad, places;
    bool good = gradient && pc_input_read(grad_output, dtype, who, &grad) &&
                pc_input_read_indices(indices, who, &places) &&
                begin(state, plan, PC_MAX_BACKWARD, &grad, who, dtype, &run);
    if (good) {
        bool in_range = pc_max_pool_backward(&plan->geom, pc_array_data(gradient), &grad, &places, &run.call);
        good = pc_run_finish(&run);
        if (good && !in_range) {
            PyErr_Format(PyExc_ValueError, "%s: indices must be -1 or lie in a plane of %lld x %lld elements", who,
                         (long long)plan->geom.ih, (long long)plan->geom.iw);
            good = false;
        }
    }
    if (!good) {
        Py_CLEAR(gradient);
    }
    return gradient;
}

PyObject *pc_avg_pool_run_backward(pc_state *state, const pc_pool_plan *plan, const pc_pool_config *config,
                                   const char *who, pc_dtype dtype, const pc_input *grad_output)
{
    PyObject *gradient = pc_array_new(plan->rank, plan->in_shape, dtype, who, "the input's gradient");
    pc_run run;
    pc_tensor grad;
    bool good = gradient && pc_input_read(grad_output, dtype, who, &grad) &&
                begin(state, plan, PC_AVG_BACKWARD, &grad, who, dtype, &run);
    if (good) {
        pc_avg_pool_backward(&plan->geom, pc_array_data(gradient), &grad, config->count_include_pad, config->divisor,
                             &run.call);
        good = pc_run_finish(&run);
    }
    if (!good) {
        Py_CLEAR(gradient);
    }
    return gradient;
}
