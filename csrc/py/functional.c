/* functional.c: the stateless functions. Each binds its arguments, opens the arrays, lets the configuration and the
 * geometry agree, and goes through convolve.h or pooling.h as the layers do.
 *
 * The type of a call is np.result_type(input, weight, float32); the bias and a gradient follow it.
 */
#include <string.h>

#include "base/checked.h"
#include "py/args.h"
#include "py/array.h"
#include "py/convolve.h"
#include "py/pooling.h"

/* ---- convolutions ---- */

/* The arrays of one call; all NULL until opened. */
typedef struct {
    pc_input input, grad_output;
    PyObject *weight, *bias;
    pc_dtype dtype;
    int64_t weight_shape[4];
} conv_arrays;

static void close_conv(conv_arrays *arrays)
{
    pc_input_close(&arrays->input);
    pc_input_close(&arrays->grad_output);
    Py_CLEAR(arrays->weight);
    Py_CLEAR(arrays->bias);
}

static bool is_given(PyObject *value) { return value && value != Py_None; }

/* `bias` and `grad_output` may be NULL or None. */
static bool open_conv(conv_arrays *arrays, const pc_conv_config *config, const char *who, PyObject *input,
                      PyObject *weight, PyObject *bias, PyObject *grad_output)
{
    pc_dtype natural, unused;
    *arrays = (conv_arrays){.weight = NULL};
    if (!pc_conv_open(config, &arrays->input, input, who, "input") ||
        !(arrays->weight = pc_array_open(weight, who, "weight", &natural)) ||
        (is_given(bias) && !(arrays->bias = pc_array_open(bias, who, "bias", &unused))) ||
        (grad_output && !pc_conv_open(config, &arrays->grad_output, grad_output, who, "grad_output"))) {
        return false;
    }
    arrays->dtype = arrays->input.natural == PC_F64 || natural == PC_F64 ? PC_F64 : PC_F32;
    return true;
}

static bool check_weight(conv_arrays *arrays, const pc_conv_config *config, const char *who)
{
    int64_t *w = arrays->weight_shape, groups = config->groups;
    const int rank = config->line ? 3 : 4;
    if (pc_array_rank(arrays->weight) != rank) {
        PyObject *shape = pc_array_shape_object(arrays->weight);
        if (shape) {
            PyErr_Format(PyExc_ValueError, "%s: expected weight (%s, %s), got %.200R", who,
                         config->transposed ? "in_channels, out_channels/groups" : "out_channels, in_channels/groups",
                         config->line ? "k" : "kH, kW", shape);
            Py_DECREF(shape);
        }
        return false;
    }
    w[2] = 1;
    for (int i = 0; i < rank; i++) {
        w[i < 2 ? i : 4 - rank + i] = pc_array_size(arrays->weight, i);
    }
    if (groups < 1) {
        PyErr_Format(
            PyExc_ValueError,
            "%s: non-positive groups is not supported: expected groups to be greater than 0, but got groups=%lld", who,
            (long long)groups);
        return false;
    }
    if (w[0] < groups) {
        PyErr_Format(
            PyExc_ValueError,
            "%s: Given groups=%lld, expected weight to be at least %lld at dimension 0, but got weight of size "
            "[%lld, %lld, %lld, %lld] instead",
            who, (long long)groups, (long long)groups, (long long)w[0], (long long)w[1], (long long)w[2],
            (long long)w[3]);
        return false;
    }
    if (w[0] % groups != 0) {
        PyErr_Format(PyExc_ValueError,
                     "%s: Given groups=%lld, expected weight to be divisible by %lld at dimension 0, but got weight of "
                     "size [[%lld, %lld, %lld, %lld]] instead",
                     who, (long long)groups, (long long)groups, (long long)w[0], (long long)w[1], (long long)w[2],
                     (long long)w[3]);
        return false;
    }
    return true;
}

/* The channels that the weight speaks of; the rest of the configuration is parsed already. */
static bool configure(conv_arrays *arrays, pc_conv_config *config, const char *who)
{
    if (!check_weight(arrays, config, who)) {
        return false;
    }
    const int64_t *w = arrays->weight_shape;
    int64_t inner;
    if (pc_mul(&inner, w[1], config->groups)) {
        PyErr_Format(PyExc_ValueError, "%s: groups is too large, got groups=%lld", who, (long long)config->groups);
        return false;
    }
    config->in_channels = config->transposed ? w[0] : inner;
    config->out_channels = config->transposed ? inner : w[0];
    config->window.kernel[0] = w[2];
    config->window.kernel[1] = w[3];
    return pc_conv_check(config, who);
}

static bool check_bias(const conv_arrays *arrays, const pc_conv_config *config, const char *who)
{
    if (!arrays->bias || (pc_array_rank(arrays->bias) == 1 && pc_array_size(arrays->bias, 0) == config->out_channels)) {
        return true;
    }
    const int64_t *w = arrays->weight_shape;
    PyObject *shape = pc_array_shape_object(arrays->bias);
    PyObject *list = shape ? PySequence_List(shape) : NULL;
    if (list) {
        PyErr_Format(PyExc_ValueError,
                     "%s: Given %sweight of size [%lld, %lld, %lld, %lld], expected bias to be 1-dimensional with %lld "
                     "elements, but got bias of size %.200R instead",
                     who, config->transposed ? "transposed=1, " : "", (long long)w[0], (long long)w[1], (long long)w[2],
                     (long long)w[3], (long long)config->out_channels, list);
    }
    Py_XDECREF(shape);
    Py_XDECREF(list);
    return false;
}

/* Takes over a new reference. */
static bool replace(PyObject **slot, PyObject *array)
{
    if (array) {
        Py_SETREF(*slot, array);
    }
    return array != NULL;
}

static bool settle_weight(conv_arrays *arrays, const char *who)
{
    return replace(&arrays->weight, pc_array_contiguous(arrays->weight, arrays->dtype, who, "weight"));
}

static PyObject *conv_forward(PyObject *module, const char *who, pc_conv_config *config, PyObject *const *values)
{
    conv_arrays arrays;
    pc_conv_plan plan;
    PyObject *output = NULL;
    if (open_conv(&arrays, config, who, values[0], values[1], values[2], NULL) && configure(&arrays, config, who) &&
        pc_conv_plan_input(&plan, config, who, &arrays.input, NULL) && check_bias(&arrays, config, who) &&
        pc_input_settle(&arrays.input, arrays.dtype, who, "input") && settle_weight(&arrays, who) &&
        (!arrays.bias || replace(&arrays.bias, pc_array_contiguous(arrays.bias, arrays.dtype, who, "bias")))) {
        output = pc_conv_run_forward(pc_state_of(module), &plan, who, arrays.dtype, &arrays.input, arrays.weight,
                                     arrays.bias);
    }
    close_conv(&arrays);
    return output;
}

static PyObject *conv_backward(PyObject *module, const char *who, pc_conv_config *config, PyObject *const *values,
                               const bool mask[3])
{
    conv_arrays arrays;
    pc_conv_plan plan;
    PyObject *result = NULL, *gradients[3] = {NULL, NULL, NULL};
    if (open_conv(&arrays, config, who, values[1], values[2], NULL, values[0]) && configure(&arrays, config, who) &&
        pc_conv_plan_input(&plan, config, who, &arrays.input, NULL) &&
        pc_conv_check_grad(&plan, who, &arrays.grad_output) &&
        pc_input_settle(&arrays.input, arrays.dtype, who, "input") && settle_weight(&arrays, who) &&
        pc_input_settle(&arrays.grad_output, arrays.dtype, who, "grad_output") &&
        pc_conv_run_backward(pc_state_of(module), &plan, who, arrays.dtype, &arrays.input, &arrays.grad_output,
                             arrays.weight, arrays.weight_shape, mask, gradients)) {
        result = PyTuple_New(3);
        for (int i = 0; result && i < 3; i++) {
            PyTuple_SET_ITEM(result, i, Py_NewRef(gradients[i] ? gradients[i] : Py_None));
        }
    }
    for (int i = 0; i < 3; i++) {
        Py_XDECREF(gradients[i]);
    }
    close_conv(&arrays);
    return result;
}

/* The numbers of conv2d and conv1d: stride, padding, dilation, groups. */
static bool parse_conv(PyObject *const values[4], const char *who, bool line, pc_conv_config *config)
{
    pc_conv_config_init(config, false);
    config->line = line;
    return pc_conv_parse_size(values[0], who, "stride", line, config->window.stride) &&
           pc_conv_parse_padding(values[1], who, config) &&
           pc_conv_parse_size(values[2], who, "dilation", line, config->window.dilation) &&
           pc_parse_int(values[3], who, "groups", &config->groups);
}

/* The numbers of conv_transpose2d: stride, padding, output_padding, groups, dilation. */
static bool parse_transpose(PyObject *const values[5], const char *who, pc_conv_config *config)
{
    pc_conv_config_init(config, true);
    return pc_parse_pair(values[0], who, "stride", PC_WORDS_CONV, config->window.stride) &&
           pc_parse_symmetric_padding(values[1], who, PC_WORDS_CONV, &config->window) &&
           pc_parse_pair(values[2], who, "output_padding", PC_WORDS_CONV, config->output_padding) &&
           pc_parse_int(values[3], who, "groups", &config->groups) &&
           pc_parse_pair(values[4], who, "dilation", PC_WORDS_CONV, config->window.dilation);
}

static PyObject *convolve(PyObject *module, const char *who, bool line, PyObject *const *args, Py_ssize_t count,
                          PyObject *names)
{
    const pc_signature signature = {
        who, {"input", "weight", "bias", "stride", "padding", "dilation", "groups", NULL}, 2, 7};
    PyObject *values[PC_MAX_ARGUMENTS];
    pc_conv_config config;
    if (!pc_bind(&signature, args, count, names, values) || !parse_conv(values + 3, who, line, &config)) {
        return NULL;
    }
    return conv_forward(module, who, &config, values);
}

static PyObject *convolve_backward(PyObject *module, const char *who, bool line, PyObject *const *args,
                                   Py_ssize_t count, PyObject *names)
{
    const pc_signature signature = {
        who, {"grad_output", "input", "weight", "stride", "padding", "dilation", "groups", "output_mask", NULL}, 3, 3};
    PyObject *values[PC_MAX_ARGUMENTS];
    pc_conv_config config;
    bool mask[3] = {true, true, true};
    if (!pc_bind(&signature, args, count, names, values) || !parse_conv(values + 3, who, line, &config) ||
        !pc_parse_mask(values[7], who, mask)) {
        return NULL;
    }
    return conv_backward(module, who, &config, values, mask);
}

static PyObject *conv1d(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return convolve(module, "conv1d", true, args, count, names);
}

static PyObject *conv1d_backward(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return convolve_backward(module, "conv1d_backward", true, args, count, names);
}

static PyObject *conv2d(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return convolve(module, "conv2d", false, args, count, names);
}

static PyObject *conv2d_backward(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return convolve_backward(module, "conv2d_backward", false, args, count, names);
}

static PyObject *conv_transpose2d(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    static const pc_signature signature = {
        "conv_transpose2d",
        {"input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation", NULL},
        2,
        8};
    PyObject *values[PC_MAX_ARGUMENTS];
    pc_conv_config config;
    if (!pc_bind(&signature, args, count, names, values) || !parse_transpose(values + 3, signature.who, &config)) {
        return NULL;
    }
    return conv_forward(module, signature.who, &config, values);
}

static PyObject *conv_transpose2d_backward(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    static const pc_signature signature = {"conv_transpose2d_backward",
                                           {"grad_output", "input", "weight", "stride", "padding", "output_padding",
                                            "groups", "dilation", "output_mask", NULL},
                                           3,
                                           3};
    PyObject *values[PC_MAX_ARGUMENTS];
    pc_conv_config config;
    bool mask[3] = {true, true, true};
    if (!pc_bind(&signature, args, count, names, values) || !parse_transpose(values + 3, signature.who, &config) ||
        !pc_parse_mask(values[8], signature.who, mask)) {
        return NULL;
    }
    return conv_backward(module, signature.who, &config, values, mask);
}

/* ---- pools ---- */

/* kernel_size, stride, padding */
static bool parse_pool(PyObject *const values[3], const char *who, pc_pool_config *config)
{
    pc_pool_config_init(config);
    pc_window *window = &config->window;
    return pc_parse_pair(values[0], who, "kernel_size", PC_WORDS_POOL, window->kernel) &&
           pc_parse_pool_stride(values[1], who, window->kernel, window->stride) &&
           pc_parse_symmetric_padding(values[2], who, PC_WORDS_POOL, window);
}

static PyObject *max_pool2d(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    static const pc_signature signature = {
        "max_pool2d",
        {"input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices", NULL},
        2,
        7};
    const char *who = signature.who;
    PyObject *values[PC_MAX_ARGUMENTS];
    pc_pool_config config;
    bool return_indices = false;
    if (!pc_bind(&signature, args, count, names, values) || !parse_pool(values + 1, who, &config) ||
        !pc_parse_pair(values[4], who, "dilation", PC_WORDS_POOL, config.window.dilation) ||
        !pc_parse_flag(values[5], who, "ceil_mode", &config.window.ceil_mode) ||
        !pc_parse_flag(values[6], who, "return_indices", &return_indices) || !pc_pool_check(&config, who)) {
        return NULL;
    }
    pc_input input;
    pc_pool_plan plan;
    if (!pc_input_open(&input, values[0], who, "input")) {
        return NULL;
    }
    PyObject *output = NULL, *indices = NULL;
    if (pc_pool_plan_input(&plan, &config, who, &input) && pc_input_settle(&input, input.natural, who, "input")) {
        output = pc_max_pool_run_forward(pc_state_of(module), &plan, who, input.natural, &input,
                                         return_indices ? &indices : NULL);
    }
    pc_input_close(&input);
    if (output && return_indices) {
        Py_SETREF(output, PyTuple_Pack(2, output, indices));
        Py_DECREF(indices);
    }
    return output;
}

static PyObject *max_pool2d_backward(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    static const pc_signature signature = {
        "max_pool2d_backward", {"grad_output", "indices", "input_shape", NULL}, 3, 3};
    const char *who = signature.who;
    PyObject *values[PC_MAX_ARGUMENTS], *gradient = NULL;
    int64_t shape[4];
    int rank;
    pc_input grad_output, indices = {.array = NULL};
    if (!pc_bind(&signature, args, count, names, values) ||
        !pc_parse_shape(values[2], who, "input_shape", shape, &rank) ||
        !pc_input_open(&grad_output, values[0], who, "grad_output")) {
        return NULL;
    }
    pc_pool_plan plan;
    if (pc_input_open_indices(&indices, values[1], who, "indices") &&
        pc_pool_plan_indices(&plan, who, shape, rank, &indices) &&
        pc_check_grad_shape(who, &grad_output, plan.out_shape, rank) &&
        pc_input_settle(&grad_output, grad_output.natural, who, "grad_output") &&
        pc_input_settle_indices(&indices, who, "indices")) {
        gradient =
            pc_max_pool_run_backward(pc_state_of(module), &plan, who, grad_output.natural, &grad_output, &indices);
    }
    pc_input_close(&indices);
    pc_input_close(&grad_output);
    return gradient;
}

/* ceil_mode, count_include_pad, divisor_override */
static bool parse_avg(PyObject *const values[3], const char *who, pc_pool_config *config)
{
    return pc_parse_flag(values[0], who, "ceil_mode", &config->window.ceil_mode) &&
           pc_parse_flag(values[1], who, "count_include_pad", &config->count_include_pad) &&
           pc_parse_divisor(values[2], who, &config->divisor) && pc_pool_check(config, who);
}

static PyObject *avg_pool2d(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    static const pc_signature signature = {
        "avg_pool2d",
        {"input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override", NULL},
        2,
        7};
    const char *who = signature.who;
    PyObject *values[PC_MAX_ARGUMENTS], *output = NULL;
    pc_pool_config config;
    pc_input input;
    if (!pc_bind(&signature, args, count, names, values) || !parse_pool(values + 1, who, &config) ||
        !parse_avg(values + 4, who, &config) || !pc_input_open(&input, values[0], who, "input")) {
        return NULL;
    }
    pc_pool_plan plan;
    if (pc_pool_plan_input(&plan, &config, who, &input) && pc_input_settle(&input, input.natural, who, "input")) {
        output = pc_avg_pool_run_forward(pc_state_of(module), &plan, &config, who, input.natural, &input);
    }
    pc_input_close(&input);
    return output;
}

static PyObject *avg_pool2d_backward(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    static const pc_signature signature = {"avg_pool2d_backward",
                                           {"grad_output", "input_shape", "kernel_size", "stride", "padding",
                                            "ceil_mode", "count_include_pad", "divisor_override", NULL},
                                           3,
                                           8};
    const char *who = signature.who;
    PyObject *values[PC_MAX_ARGUMENTS], *gradient = NULL;
    pc_pool_config config;
    pc_input grad_output;
    int64_t shape[4];
    int rank;
    if (!pc_bind(&signature, args, count, names, values) || !parse_pool(values + 2, who, &config) ||
        !parse_avg(values + 5, who, &config) || !pc_parse_shape(values[1], who, "input_shape", shape, &rank) ||
        !pc_input_open(&grad_output, values[0], who, "grad_output")) {
        return NULL;
    }
    pc_pool_plan plan;
    if (pc_pool_plan_shape(&plan, &config, who, shape, rank) &&
        pc_check_grad_shape(who, &grad_output, plan.out_shape, rank) &&
        pc_input_settle(&grad_output, grad_output.natural, who, "grad_output")) {
        gradient =
            pc_avg_pool_run_backward(pc_state_of(module), &plan, &config, who, grad_output.natural, &grad_output);
    }
    pc_input_close(&grad_output);
    return gradient;
}

/* ---- the table ---- */

PyDoc_STRVAR(conv1d_doc, "conv1d($module, /, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1)\n"
                         "--\n\nConvolution of a batch of sequences, or of one.");
PyDoc_STRVAR(conv1d_backward_doc,
             "conv1d_backward($module, /, grad_output, input, weight, *, stride=1, padding=0, dilation=1, groups=1, "
             "output_mask=(True, True, True))\n--\n\n"
             "(grad_input, grad_weight, grad_bias) of conv1d, None where output_mask is False.");
PyDoc_STRVAR(conv2d_doc, "conv2d($module, /, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1)\n"
                         "--\n\nConvolution of a batch of images, or of one.");
PyDoc_STRVAR(conv2d_backward_doc,
             "conv2d_backward($module, /, grad_output, input, weight, *, stride=1, padding=0, dilation=1, groups=1, "
             "output_mask=(True, True, True))\n--\n\n"
             "(grad_input, grad_weight, grad_bias) of conv2d, None where output_mask is False.");
PyDoc_STRVAR(conv_transpose2d_doc,
             "conv_transpose2d($module, /, input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, "
             "dilation=1)\n--\n\nTransposed convolution of a batch of images, or of one.");
PyDoc_STRVAR(conv_transpose2d_backward_doc,
             "conv_transpose2d_backward($module, /, grad_output, input, weight, *, stride=1, padding=0, "
             "output_padding=0, groups=1, dilation=1, output_mask=(True, True, True))\n--\n\n"
             "(grad_input, grad_weight, grad_bias) of conv_transpose2d, None where output_mask is False.");
PyDoc_STRVAR(max_pool2d_doc, "max_pool2d($module, /, input, kernel_size, stride=None, padding=0, dilation=1, "
                             "ceil_mode=False, return_indices=False)\n--\n\n"
                             "The largest of each window, or (largest, index).");
PyDoc_STRVAR(max_pool2d_backward_doc, "max_pool2d_backward($module, /, grad_output, indices, input_shape)\n--\n\n"
                                      "The input's gradient of max_pool2d, from the indices that it returned.");
PyDoc_STRVAR(avg_pool2d_doc, "avg_pool2d($module, /, input, kernel_size, stride=None, padding=0, ceil_mode=False, "
                             "count_include_pad=True, divisor_override=None)\n--\n\n"
                             "The mean of each window.");
PyDoc_STRVAR(avg_pool2d_backward_doc,
             "avg_pool2d_backward($module, /, grad_output, input_shape, kernel_size, stride=None, padding=0, "
             "ceil_mode=False, count_include_pad=True, divisor_override=None)\n--\n\n"
             "The input's gradient of avg_pool2d.");

/* clang-format off */
#define FUNCTION(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL | METH_KEYWORDS, name##_doc}
/* clang-format on */

static PyMethodDef methods[] = {
    FUNCTION(conv1d),           FUNCTION(conv1d_backward),
    FUNCTION(conv2d),           FUNCTION(conv2d_backward),
    FUNCTION(conv_transpose2d), FUNCTION(conv_transpose2d_backward),
    FUNCTION(max_pool2d),       FUNCTION(max_pool2d_backward),
    FUNCTION(avg_pool2d),       FUNCTION(avg_pool2d_backward),
    {NULL, NULL, 0, NULL},
};

int pc_add_functional(PyObject *module) { return PyModule_AddFunctions(module, methods); }
