/* convolve.c: see convolve.h. Plan, allocate, run, hand over: each function does these in this order, and whatever
 * fails leaves nothing behind. */
#include "py/convolve.h"

#include <stdio.h>
#include <string.h>

#include "py/args.h"
#include "py/run.h"

void pc_conv_config_init(pc_conv_config *config, bool transposed)
{
    *config = (pc_conv_config){
        .transposed = transposed,
        .groups = 1,
        .window = {.kernel = {1, 1}, .stride = {1, 1}, .dilation = {1, 1}, .pad_rule = PC_PAD_NUMBERS},
    };
}

bool pc_conv_parse_size(PyObject *value, const char *who, const char *name, bool line, int64_t pair[2])
{
    return line ? pc_parse_single(value, who, name, 1, pair) : pc_parse_pair(value, who, name, PC_WORDS_CONV, pair);
}

bool pc_conv_parse_padding(PyObject *value, const char *who, pc_conv_config *config)
{
    return config->line ? pc_parse_line_padding(value, who, &config->window, &config->per_side)
                        : pc_parse_padding(value, who, &config->window, &config->per_side);
}

bool pc_conv_check(pc_conv_config *config, const char *who)
{
    pc_error error;
    pc_status status =
        pc_channels_check(config->in_channels, config->out_channels, config->groups, config->window.kernel, &error);
    if (status == PC_OK) {
        status = pc_window_check(&config->window, &error);
    }
    if (status == PC_OK && config->transposed) {
        status = pc_output_padding_check(&config->window, config->output_padding, &error);
    }
    return status == PC_OK || pc_raise(who, status, &error);
}

void pc_conv_weight_shape(const pc_conv_config *config, int64_t shape[4])
{
    shape[0] = config->transposed ? config->in_channels : config->out_channels;
    shape[1] = (config->transposed ? config->out_channels : config->in_channels) / config->groups;
    shape[2] = config->window.kernel[0];
    shape[3] = config->window.kernel[1];
}

/* ---- from shape to shape ---- */

bool pc_conv_plan_shape(pc_conv_plan *plan, const pc_conv_config *config, const char *who, const int64_t shape[4],
                        int rank, const int64_t *output_size)
{
    pc_error error;
    pc_conv_geom *geom = &plan->geom;
    pc_status status;
    if (config->transposed) {
        status = pc_conv_transpose_geometry(shape, config->in_channels, config->out_channels, config->groups,
                                            &config->window, config->output_padding, output_size, geom, &error);
    } else {
        status = pc_conv_geometry(shape, config->in_channels, config->out_channels, config->groups, &config->window,
                                  geom, &error);
    }
    if (status != PC_OK) {
        return pc_raise(who, status, &error);
    }
    plan->transposed = config->transposed;
    plan->line = config->line;
    plan->rank = rank;
    memcpy(plan->in_shape, shape, sizeof plan->in_shape);
    plan->out_shape[0] = shape[0];
    plan->out_shape[1] = config->out_channels;
    plan->out_shape[2] = config->transposed ? geom->ih : geom->oh;
    plan->out_shape[3] = config->transposed ? geom->iw : geom->ow;
    return true;
}

bool pc_conv_open(const pc_conv_config *config, pc_input *input, PyObject *value, const char *who, const char *name)
{
    return config->line ? pc_input_open_line(input, value, who, name) : pc_input_open(input, value, who, name);
}

static bool refuse_input(const pc_conv_config *config, const char *who, const pc_input *input)
{
    const char *axes = config->line ? "L" : "H, W";
    const long long channels = config->in_channels;
    PyObject *shape = pc_input_shape(input);
    PyObject *list = shape ? PySequence_List(shape) : NULL;
    if (list && input->rank != 3 && input->rank != 4) {
        PyErr_Format(PyExc_ValueError,
                     "%s: expected input (N, %lld, %s) or (%lld, %s), got %.200R. Expected %dD (unbatched) or %dD "
                     "(batched) input to %s, but got input of size: %.200R",
                     who, channels, axes, channels, axes, shape, config->line ? 2 : 3, config->line ? 3 : 4,
                     config->line         ? "conv1d"
                     : config->transposed ? "conv_transpose2d"
                                          : "conv2d",
                     list);
    } else if (list) {
        int64_t w[4];
        char weight[96];
        pc_conv_weight_shape(config, w);
        if (config->line) {
            snprintf(weight, sizeof weight, "[%lld, %lld, %lld]", (long long)w[0], (long long)w[1], (long long)w[3]);
        } else {
            snprintf(weight, sizeof weight, "[%lld, %lld, %lld, %lld]", (long long)w[0], (long long)w[1],
                     (long long)w[2], (long long)w[3]);
        }
        PyErr_Format(
            PyExc_ValueError,
            "%s: expected input (N, %lld, %s) or (%lld, %s), got %R. Given %s=%lld, weight of size %s, expected "
            "input%R to have %lld channels, but got %lld channels instead",
            who, channels, axes, channels, axes, shape, config->transposed ? "transposed" : "groups",
            config->transposed ? 1LL : (long long)config->groups, weight, list, channels, (long long)input->shape[1]);
    }
    Py_XDECREF(shape);
    Py_XDECREF(list);
    return false;
}

bool pc_conv_plan_input(pc_conv_plan *plan, const pc_conv_config *config, const char *who, const pc_input *input,
                        const int64_t *output_size)
{
    if ((input->rank != 3 && input->rank != 4) || input->shape[1] != config->in_channels) {
        return refuse_input(config, who, input);
    }
    return pc_conv_plan_shape(plan, config, who, input->shape, input->rank, output_size);
}

bool pc_conv_check_grad(const pc_conv_plan *plan, const char *who, const pc_input *grad_output)
{
    return pc_check_grad_shape(who, grad_output, plan->out_shape, plan->rank);
}

/* ---- from array to array ---- */

static PyObject *new_images(const pc_conv_plan *plan, const int64_t shape[4], pc_dtype dtype, const char *who,
                            const char *name)
{
    return plan->line ? pc_array_new_line(plan->rank, shape, dtype, who, name)
                      : pc_array_new(plan->rank, shape, dtype, who, name);
}

typedef struct {
    pc_conv_pass pass;
    PyObject *out;
    const pc_input *first, *second; /* in the order of the primitive's arguments; the second may be NULL */
    PyObject *weight, *bias;        /* may be NULL */
} conv_work;

static bool run_conv(const pc_conv_plan *plan, const char *who, pc_dtype dtype, int threads, const conv_work *work)
{
    pc_run run;
    pc_error error;
    pc_tensor first, second;
    if (!pc_input_read(work->first, dtype, who, &first) ||
        (work->second && !pc_input_read(work->second, dtype, who, &second))) {
        return false;
    }
    void *out = pc_array_data(work->out);
    const void *weight = work->weight ? pc_array_data(work->weight) : NULL;
    const void *bias = work->bias ? pc_array_data(work->bias) : NULL;
    pc_status status = pc_conv_begin(&plan->geom, work->pass, dtype, threads, &run.call, &error);
    if (status != PC_OK) {
        return pc_raise(who, status, &error);
    }
    pc_run_start(&run);
    switch (work->pass) {
    case PC_CONV_FORWARD:
        pc_conv_forward(&plan->geom, out, &first, weight, bias, &run.call);
        break;
    case PC_CONV_BACKWARD_INPUT:
        pc_conv_backward_input(&plan->geom, out, &first, weight, bias, &run.call);
        break;
    case PC_CONV_BACKWARD_WEIGHT:
        pc_conv_backward_weight(&plan->geom, out, &first, &second, &run.call);
        break;
    }
    return pc_run_finish(&run);
}

PyObject *pc_conv_run_forward(pc_state *state, const pc_conv_plan *plan, const char *who, pc_dtype dtype,
                              const pc_input *input, PyObject *weight, PyObject *bias)
{
    int threads = pc_threads(state);
    if (threads < 0) {
        return NULL;
    }
    PyObject *output = new_images(plan, plan->out_shape, dtype, who, "the output");
    if (!output) {
        return NULL;
    }
    conv_work work = {
        .pass = plan->transposed ? PC_CONV_BACKWARD_INPUT : PC_CONV_FORWARD,
        .out = output,
        .first = input,
        .weight = weight,
        .bias = bias,
    };
    if (!run_conv(plan, who, dtype, threads, &work)) {
        Py_CLEAR(output);
    }
    return output;
}

static PyObject *weight_gradient(const pc_conv_plan *plan, const char *who, pc_dtype dtype, int threads,
                                 const pc_input *input, const pc_input *grad_output, const int64_t shape[4])
{
    static const char name[] = "the weight's gradient";
    PyObject *gradient =
        plan->line ? pc_array_new_line(4, shape, dtype, who, name) : pc_array_new(4, shape, dtype, who, name);
    if (!gradient) {
        return NULL;
    }
    conv_work work = {
        .pass = PC_CONV_BACKWARD_WEIGHT,
        .out = gradient,
        .first = plan->transposed ? input : grad_output,
        .second = plan->transposed ? grad_output : input,
    };
    if (!run_conv(plan, who, dtype, threads, &work)) {
        Py_CLEAR(gradient);
    }
    return gradient;
}

static PyObject *bias_gradient(const pc_conv_plan *plan, const char *who, pc_dtype dtype, int threads,
                               const pc_input *grad_output)
{
    PyObject *gradient = pc_array_new_vector(plan->out_shape[1], dtype, who, "the bias' gradient");
    if (!gradient) {
        return NULL;
    }
    pc_run run;
    pc_error error;
    pc_tensor tensor;
    pc_status status;
    bool good = pc_input_read(grad_output, dtype, who, &tensor);
    if (good && (status = pc_channel_sum_begin(plan->out_shape, dtype, threads, &run.call, &error)) != PC_OK) {
        good = pc_raise(who, status, &error);
    }
    if (good) {
        void *sums = pc_array_data(gradient);
        pc_run_start(&run);
        pc_channel_sum(plan->out_shape, sums, &tensor, &run.call);
        good = pc_run_finish(&run);
    }
    if (!good) {
        Py_CLEAR(gradient);
    }
    return gradient;
}

static PyObject *input_gradient(const pc_conv_plan *plan, const char *who, pc_dtype dtype, int threads,
                                const pc_input *grad_output, PyObject *weight)
{
    PyObject *gradient = new_images(plan, plan->in_shape, dtype, who, "the input's gradient");
    if (!gradient) {
        return NULL;
    }
    conv_work work = {
        .pass = plan->transposed ? PC_CONV_FORWARD : PC_CONV_BACKWARD_INPUT,
        .out = gradient,
        .first = grad_output,
        .weight = weight,
    };
    if (!run_conv(plan, who, dtype, threads, &work)) {
        Py_CLEAR(gradient);
    }
    return gradient;
}

bool pc_conv_run_backward(pc_state *state, const pc_conv_plan *plan, const char *who, pc_dtype dtype,
                          const pc_input *input, const pc_input *grad_output, PyObject *weight,
                          const int64_t weight_shape[4], const bool mask[3], PyObject *gradients[3])
{
    gradients[0] = gradients[1] = gradients[2] = NULL;
    int threads = pc_threads(state);
    bool good = threads > 0;
    if (good && mask[1]) {
        gradients[1] = weight_gradient(plan, who, dtype, threads, input, grad_output, weight_shape);
        good = gradients[1] != NULL;
    }
    if (good && mask[2]) {
        gradients[2] = bias_gradient(plan, who, dtype, threads, grad_output);
        good = gradients[2] != NULL;
    }
    if (good && mask[0]) {
        gradients[0] = input_gradient(plan, who, dtype, threads, grad_output, weight);
        good = gradients[0] != NULL;
    }
    for (int i = 0; !good && i < 3; i++) {
        Py_CLEAR(gradients[i]);
    }
    return good;
}
