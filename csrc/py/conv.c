/* conv.c: Conv2d and ConvTranspose2d. One struct and one life for both; what differs is which arguments the
 * constructor takes, and a flag in the configuration.
 *
 * The weight and the bias are ndarrays that the layer owns and everybody may write to: `conv.weight -= lr * g` is the
 * way to train. Nobody can be kept from reshaping such an array in place, so each call looks at it anew.
 */
#include "py/convolve.h"
#include "py/layer.h"

#include <stdio.h>

typedef struct {
    pc_layer layer;
    pc_conv_config config;
    pc_dtype dtype;
    bool weight_requires_grad, bias_requires_grad;
    PyObject *weight;      /* ndarray, of the layer's own */
    PyObject *bias;        /* the same, or NULL for good */
    PyObject *weight_grad; /* ndarray, or NULL: no gradient yet */
    PyObject *bias_grad;
} conv_layer;

/* ---- parameters and gradients ---- */

/* What an array of this layer must look like: the weight, the bias, or the gradient of either. */
typedef struct {
    int rank;
    int64_t shape[4];
} form;

static form weight_form(const conv_layer *self)
{
    form wanted = {.rank = 4};
    pc_conv_weight_shape(&self->config, wanted.shape);
    return wanted;
}

static form bias_form(const conv_layer *self) { return (form){.rank = 1, .shape = {self->config.out_channels}}; }

static bool check_array(const conv_layer *self, PyObject *array, const form *wanted, const char *name)
{
    if (pc_array_is(array, wanted->rank, wanted->shape, self->dtype)) {
        return true;
    }
    PyErr_Format(PyExc_RuntimeError,
                 "%s: the shape, the type or the memory order of its %s was changed in place; it must be C-contiguous %s "
                 "again, as it was made",
                 self->layer.name, name, pc_dtype_name(self->dtype));
    return false;
}

static bool check_parameters(const conv_layer *self)
{
    form weight = weight_form(self), bias = bias_form(self);
    return check_array(self, self->weight, &weight, "weight") &&
           (!self->bias || check_array(self, self->bias, &bias, "bias"));
}

static bool check_gradient(const conv_layer *self, PyObject *gradient, const form *wanted, const char *name)
{
    if (!gradient) {
        return true;
    }
    if (!check_array(self, gradient, wanted, name)) {
        return false;
    }
    if (!pc_array_writeable(gradient)) {
        PyErr_Format(PyExc_RuntimeError, "%s: its %s was made read-only, nothing can be added to it", self->layer.name,
                     name);
        return false;
    }
    return true;
}

/* Adds new gradients (or NULL) to what stands there now, which may be something else than before the GIL went. */
static bool add_gradients(conv_layer *self, PyObject *weight_grad, PyObject *bias_grad)
{
    form weight = weight_form(self), bias = bias_form(self);
    if ((weight_grad && !pc_array_is(weight_grad, weight.rank, weight.shape, self->dtype)) ||
        (bias_grad && !pc_array_is(bias_grad, bias.rank, bias.shape, self->dtype))) {
        PyErr_Format(PyExc_RuntimeError, "%s: the layer was changed while its gradients were computed",
                     self->layer.name);
        return false;
    }
    if ((weight_grad && !check_gradient(self, self->weight_grad, &weight, "weight_grad")) ||
        (bias_grad && !check_gradient(self, self->bias_grad, &bias, "bias_grad"))) {
        return false;
    }
    PyObject *fresh[2] = {weight_grad, bias_grad};
    PyObject **standing[2] = {&self->weight_grad, &self->bias_grad};
    for (int i = 0; i < 2; i++) {
        if (fresh[i] && *standing[i]) {
            pc_array_add(*standing[i], fresh[i], self->dtype);
        } else if (fresh[i]) {
            *standing[i] = Py_NewRef(fresh[i]);
        }
    }
    return true;
}

/* A contiguous array of the layer's type and the wanted shape from anything: a strong reference, or NULL. */
static PyObject *fitting(const conv_layer *self, PyObject *value, const form *wanted, const char *name)
{
    pc_dtype natural;
    PyObject *array = pc_array_open(value, self->layer.name, name, &natural);
    if (!array) {
        return NULL;
    }
    bool same = pc_array_rank(array) == wanted->rank;
    for (int i = 0; same && i < wanted->rank; i++) {
        same = pc_array_size(array, i) == wanted->shape[i];
    }
    PyObject *fit = NULL;
    if (same) {
        fit = pc_array_contiguous(array, self->dtype, self->layer.name, name);
    } else {
        PyObject *got = pc_array_shape_object(array);
        PyObject *expected = PyTuple_New(wanted->rank);
        for (int i = 0; expected && i < wanted->rank; i++) {
            PyTuple_SET_ITEM(expected, i, PyLong_FromLongLong(wanted->shape[i]));
        }
        if (got && expected && !PyErr_Occurred()) {
            PyErr_Format(PyExc_ValueError, "%s: expected %s of shape %S, got %.200S", self->layer.name, name, expected,
                         got);
        }
        Py_XDECREF(got);
        Py_XDECREF(expected);
    }
    Py_DECREF(array);
    return fit;
}

/* ---- forward and backward ---- */

static PyObject *forward(pc_layer *layer, PyObject *value, PyObject *size_value, pc_saved *saved)
{
    conv_layer *self = (conv_layer *)layer;
    pc_input input;
    pc_saved made = {.array = NULL};
    if (!pc_input_open(&input, value, layer->name, "input")) {
        return NULL;
    }
    PyObject *output = NULL, *weight = NULL, *bias = NULL;
    if (size_value && (input.rank == 3 || input.rank == 4) &&
        !pc_parse_output_size(size_value, layer->name, input.rank, &made.sized, made.output_size)) {
        goto exit;
    }
    /* From here on the layer is read, and what is read stays: no Python code can run between the next lines, and
     * whatever runs later finds copies and references. */
    if (!check_parameters(self)) {
        goto exit;
    }
    pc_conv_config config = self->config;
    pc_dtype dtype = self->dtype;
    weight = Py_NewRef(self->weight);
    bias = Py_XNewRef(self->bias);
    pc_conv_plan plan;
    if (!pc_conv_plan_input(&plan, &config, layer->name, &input, made.sized ? made.output_size : NULL) ||
        !pc_input_settle(&input, dtype, layer->name, "input")) {
        goto exit;
    }
    output = pc_conv_run_forward(layer->state, &plan, layer->name, dtype, &input, weight, bias);
    if (output && saved) {
        made.array = Py_NewRef(input.array);
        made.rank = input.rank;
        memcpy(made.shape, input.shape, sizeof made.shape);
        made.dtype = dtype;
        *saved = made;
    }
exit:
    Py_XDECREF(weight);
    Py_XDECREF(bias);
    pc_input_close(&input);
    return output;
}

/* The input that forward saved is the caller's array, who may have done anything to it since. */
static bool open_saved(pc_input *input, const pc_saved *saved, const char *who)
{
    if (!pc_input_open(input, saved->array, who, "the saved input")) {
        return false;
    }
    if (input->rank == saved->rank && memcmp(input->shape, saved->shape, sizeof input->shape) == 0 &&
        input->natural == saved->dtype) {
        return true;
    }
    PyErr_Format(PyExc_RuntimeError, "%s: the input array was given another shape or type between forward and backward",
                 who);
    pc_input_close(input);
    return false;
}

static PyObject *backward(pc_layer *layer, const pc_saved *saved, PyObject *value, bool input_grad)
{
    conv_layer *self = (conv_layer *)layer;
    PyObject *result = NULL, *weight = NULL, *gradients[3] = {NULL, NULL, NULL};
    pc_input input = {.array = NULL}, grad_output;
    if (!pc_input_open(&grad_output, value, layer->name, "grad_output")) {
        return NULL;
    }
    if (!open_saved(&input, saved, layer->name) || !check_parameters(self)) {
        goto exit;
    }
    pc_conv_config config = self->config;
    pc_dtype dtype = self->dtype;
    bool mask[3] = {input_grad, self->weight_requires_grad, self->bias && self->bias_requires_grad};
    weight = Py_NewRef(self->weight);
    if (dtype != saved->dtype) {
        PyErr_Format(PyExc_RuntimeError, "%s: its dtype was changed between forward and backward", layer->name);
        goto exit;
    }
    pc_conv_plan plan;
    int64_t weight_shape[4];
    pc_conv_weight_shape(&config, weight_shape);
    if (!pc_conv_plan_input(&plan, &config, layer->name, &input, saved->sized ? saved->output_size : NULL) ||
        !pc_conv_check_grad(&plan, layer->name, &grad_output) ||
        !pc_input_settle(&input, dtype, layer->name, "the saved input") ||
        !pc_input_settle(&grad_output, dtype, layer->name, "grad_output")) {
        goto exit;
    }
    if (pc_conv_run_backward(layer->state, &plan, layer->name, dtype, &input, &grad_output, weight, weight_shape, mask,
                             gradients) &&
        add_gradients(self, gradients[1], gradients[2])) {
        result = Py_NewRef(gradients[0] ? gradients[0] : Py_None);
    }
exit:
    for (int i = 0; i < 3; i++) {
        Py_XDECREF(gradients[i]);
    }
    Py_XDECREF(weight);
    pc_input_close(&input);
    pc_input_close(&grad_output);
    return result;
}

static bool output_shape(pc_layer *layer, const int64_t shape[4], int rank, int64_t out_shape[4])
{
    const pc_conv_config *config = &((conv_layer *)layer)->config;
    pc_conv_plan plan;
    if (!pc_conv_plan_shape(&plan, config, layer->name, shape, rank, NULL)) {
        return false;
    }
    memcpy(out_shape, plan.out_shape, sizeof plan.out_shape);
    return true;
}

/* ---- life ---- */

static int traverse(PyObject *object, visitproc visit, void *arg)
{
    conv_layer *self = (conv_layer *)object;
    Py_VISIT(self->weight);
    Py_VISIT(self->bias);
    Py_VISIT(self->weight_grad);
    Py_VISIT(self->bias_grad);
    return pc_layer_traverse(object, visit, arg);
}

static int clear(PyObject *object)
{
    conv_layer *self = (conv_layer *)object;
    self->layer.ready = false; /* a layer without its arrays is none */
    Py_CLEAR(self->weight);
    Py_CLEAR(self->bias);
    Py_CLEAR(self->weight_grad);
    Py_CLEAR(self->bias_grad);
    return pc_layer_clear(object);
}

static const pc_layer_kind conv_kind = {{"Conv2d.forward", {"input", NULL}, 1, 1}, forward, backward, output_shape,
                                        clear};
static const pc_layer_kind transpose_kind = {
    {"ConvTranspose2d.forward", {"input", "output_size", NULL}, 1, 2}, forward, backward, output_shape, clear};

static PyObject *conv_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return pc_layer_new(type, &conv_kind);
}

static PyObject *transpose_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return pc_layer_new(type, &transpose_kind);
}

/* Everything is built before anything is replaced, so a constructor that fails on an old layer leaves it whole. */
static int become(conv_layer *self, const pc_conv_config *config, pc_dtype dtype, bool has_bias, const char *name)
{
    int64_t shape[4];
    pc_conv_weight_shape(config, shape);
    PyObject *weight = pc_parameter_new(4, shape, dtype, name, "the weight");
    PyObject *bias =
        weight && has_bias ? pc_parameter_new(1, &config->out_channels, dtype, name, "the bias") : NULL;
    if (!weight || (has_bias && !bias)) {
        Py_XDECREF(weight);
        return -1;
    }
    PyObject *old[4] = {self->weight, self->bias, self->weight_grad, self->bias_grad};
    self->config = *config;
    self->dtype = dtype;
    self->weight = weight;
    self->bias = bias;
    self->weight_grad = self->bias_grad = NULL;
    self->weight_requires_grad = self->bias_requires_grad = true;
    pc_layer_ready(&self->layer, name);
    for (int i = 0; i < 4; i++) {
        Py_XDECREF(old[i]);
    }
    return 0;
}

static int conv_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static const pc_signature signature = {"Conv2d",
                                           {"in_channels", "out_channels", "kernel_size", "stride", "padding",
                                            "dilation", "groups", "bias", "padding_mode", "device", "dtype", NULL},
                                           3,
                                           11};
    static const char who[] = "Conv2d";
    PyObject *values[PC_MAX_ARGUMENTS];
    pc_conv_config config;
    pc_conv_config_init(&config, false);
    pc_window *window = &config.window;
    bool bias = true;
    pc_dtype dtype = PC_F32;
    if (!pc_bind_tuple(&signature, args, kwargs, values) ||
        !pc_parse_int(values[0], who, "in_channels", &config.in_channels) ||
        !pc_parse_int(values[1], who, "out_channels", &config.out_channels) ||
        !pc_parse_pair(values[2], who, "kernel_size", PC_WORDS_CONV, window->kernel) ||
        !pc_parse_pair(values[3], who, "stride", PC_WORDS_CONV, window->stride) ||
        !pc_parse_padding(values[4], who, window, &config.per_side) ||
        !pc_parse_pair(values[5], who, "dilation", PC_WORDS_CONV, window->dilation) ||
        !pc_parse_int(values[6], who, "groups", &config.groups) || !pc_parse_truth(values[7], &bias) ||
        !pc_parse_padding_mode(values[8], who, &window->pad_mode) || !pc_parse_device(values[9], who) ||
        !pc_parse_dtype(values[10], who, &dtype)) {
        return -1;
    }
    char name[PC_LAYER_NAME];
    snprintf(name, sizeof name, "Conv2d(%lld, %lld)", (long long)config.in_channels, (long long)config.out_channels);
    return pc_conv_check(&config, name) ? become((conv_layer *)object, &config, dtype, bias, name) : -1;
}

/* Torch asks this before all else. */
static bool check_transposed_mode(PyObject *value, const char *who)
{
    pc_pad_mode mode = PC_PAD_ZEROS;
    if (value && PyUnicode_Check(value) && PyUnicode_CompareWithASCIIString(value, "zeros") != 0) {
        PyErr_Format(PyExc_ValueError,
                     "%s: Only \"zeros\" padding mode is supported for ConvTranspose2d, but got padding_mode=%.100R", who,
                     value);
        return false;
    }
    return pc_parse_padding_mode(value, who, &mode);
}

static bool check_transposed_padding(PyObject *value, const char *who)
{
    if (value && PyUnicode_Check(value)) {
        PyErr_Format(PyExc_ValueError, "%s: padding must be numbers; a word such as %.100R is for Conv2d alone", who,
                     value);
        return false;
    }
    return true;
}

static int transpose_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static const pc_signature signature = {"ConvTranspose2d",
                                           {"in_channels", "out_channels", "kernel_size", "stride", "padding",
                                            "output_padding", "groups", "bias", "dilation", "padding_mode", "device",
                                            "dtype", NULL},
                                           3,
                                           12};
    static const char who[] = "ConvTranspose2d";
    PyObject *values[PC_MAX_ARGUMENTS];
    pc_conv_config config;
    pc_conv_config_init(&config, true);
    pc_window *window = &config.window;
    bool bias = true;
    pc_dtype dtype = PC_F32;
    if (!pc_bind_tuple(&signature, args, kwargs, values) || !check_transposed_mode(values[9], who) ||
        !pc_parse_int(values[0], who, "in_channels", &config.in_channels) ||
        !pc_parse_int(values[1], who, "out_channels", &config.out_channels) ||
        !pc_parse_pair(values[2], who, "kernel_size", PC_WORDS_CONV, window->kernel) ||
        !pc_parse_pair(values[3], who, "stride", PC_WORDS_CONV, window->stride) ||
        !check_transposed_padding(values[4], who) ||
        !pc_parse_symmetric_padding(values[4], who, PC_WORDS_CONV, window) ||
        !pc_parse_pair(values[5], who, "output_padding", PC_WORDS_CONV, config.output_padding) ||
        !pc_parse_int(values[6], who, "groups", &config.groups) || !pc_parse_truth(values[7], &bias) ||
        !pc_parse_pair(values[8], who, "dilation", PC_WORDS_CONV, window->dilation) ||
        !pc_parse_device(values[10], who) || !pc_parse_dtype(values[11], who, &dtype)) {
        return -1;
    }
    char name[PC_LAYER_NAME];
    snprintf(name, sizeof name, "ConvTranspose2d(%lld, %lld)", (long long)config.in_channels,
             (long long)config.out_channels);
    return pc_conv_check(&config, name) ? become((conv_layer *)object, &config, dtype, bias, name) : -1;
}
