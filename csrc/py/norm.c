/* norm.c: BatchNorm2d, the layer, and batch_norm with its backward.
 *
 * Weight and bias live in the layer, as a convolution's do. The running arrays are the module's buffers, attributes like
 * any other (running_mean, running_var, num_batches_tracked), so that state_dict, conversion and copying need not know
 * about them here: each call asks for them by name and looks at what it gets.
 */
#include "py/normalise.h"
#include "py/parameters.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    pc_owner owner;
    int64_t num_features;
    double eps, momentum;
    bool cumulative; /* momentum is None */
    bool affine, track_running_stats;
} norm_layer;

/* ---- the layer: forward and backward ---- */

/* What is in the attribute: a new reference, None where there is none. */
static PyObject *buffer(norm_layer *self, const char *name)
{
    PyObject *value = PyObject_GetAttrString((PyObject *)self, name);
    if (!value && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        value = Py_NewRef(Py_None);
    }
    return value;
}

static bool check_input(const norm_layer *self, PyObject *array)
{
    const char *who = self->owner.layer.name;
    if (pc_array_rank(array) == 4 && pc_array_size(array, 1) == self->num_features) {
        return true;
    }
    PyObject *shape = pc_array_shape_object(array);
    if (shape && pc_array_rank(array) != 4) {
        PyErr_Format(PyExc_ValueError, "%s: expected 4D input (got %dD input): (N, %lld, H, W), got %.200S", who,
                     pc_array_rank(array), (long long)self->num_features, shape);
    } else if (shape) {
        PyErr_Format(
            PyExc_ValueError,
            "%s: expected input (N, %lld, H, W), got %.200S: running_mean should contain %lld elements not %lld", who,
            (long long)self->num_features, shape, (long long)pc_array_size(array, 1), (long long)self->num_features);
    }
    Py_XDECREF(shape);
    return false;
}

/* What a training call with tracking changes, once it has succeeded: all of it or nothing. */
static bool move_running(norm_layer *self, const pc_norm_call *call, pc_dtype dtype, PyObject *statistics,
                         PyObject *output, PyObject *batches)
{
    const char *who = self->owner.layer.name;
    const int64_t *counter = batches == Py_None ? NULL : pc_array_counter(batches);
    if (batches != Py_None && !counter) {
        PyErr_Format(
            PyExc_TypeError,
            "%s: num_batches_tracked is updated and must be a writeable int64 array of one element, got %.100R", who,
            batches);
        return false;
    }
    const int64_t tracked = !counter ? 0 : *counter < INT64_MAX ? *counter + 1 : *counter;
    const double momentum = !self->cumulative ? self->momentum : tracked ? 1 / (double)tracked : 0;
    if (!pc_norm_move(call, who, dtype, statistics, output, momentum)) {
        return false;
    }
    int64_t *place = counter ? pc_array_counter(batches) : NULL;
    if (place) {
        *place = tracked;
    }
    return true;
}

static PyObject *forward(pc_layer *layer, PyObject *value, PyObject *Py_UNUSED(size), pc_saved *saved)
{
    norm_layer *self = (norm_layer *)layer;
    pc_dtype natural;
    PyObject *array = pc_array_open(value, layer->name, "input", &natural);
    PyObject *mean = NULL, *var = NULL, *batches = NULL, *statistics = NULL, *output = NULL;
    pc_norm_call call = {.eps = 0};
    if (!array || !(mean = buffer(self, "running_mean")) || !(var = buffer(self, "running_var")) ||
        !(batches = buffer(self, "num_batches_tracked")) || !pc_owner_check_parameters(&self->owner) ||
        !check_input(self, array)) {
        goto exit;
    }
    const bool tracks = layer->training && self->track_running_stats;
    pc_dtype dtype = self->owner.dtype;
    call.channels = self->num_features;
    call.batch = layer->training || (mean == Py_None && var == Py_None);
    call.eps = self->eps;
    call.running_mean = call.batch && !tracks ? NULL : mean;
    call.running_var = call.batch && !tracks ? NULL : var;
    call.weight = Py_XNewRef(self->owner.parameters[PC_WEIGHT]);
    call.bias = Py_XNewRef(self->owner.parameters[PC_BIAS]);
    output = pc_norm_run_forward(layer->state, &call, layer->name, dtype, array, &statistics);
    if (!output) {
        goto exit;
    }
    pc_saved made = {.array = NULL, .rank = 4, .dtype = dtype, .batch = call.batch};
    for (int i = 0; i < 4; i++) {
        made.shape[i] = pc_array_size(output, i);
    }
    if (saved && !(made.array = PyTuple_Pack(2, array, statistics))) {
        Py_CLEAR(output);
    }
    if (output && tracks && !move_running(self, &call, dtype, statistics, output, batches)) {
        Py_CLEAR(output);
    }
    if (output && saved) {
        *saved = made;
    } else {
        Py_XDECREF(made.array);
    }
exit:
    Py_XDECREF(call.weight);
    Py_XDECREF(call.bias);
    Py_XDECREF(statistics);
    Py_XDECREF(batches);
    Py_XDECREF(var);
    Py_XDECREF(mean);
    Py_XDECREF(array);
    return output;
}

/* The input that forward saved is the caller's array, who may have done anything to it since. */
static PyObject *open_saved(const pc_saved *saved, const char *who)
{
    pc_dtype natural;
    PyObject *array = pc_array_open(PyTuple_GET_ITEM(saved->array, 0), who, "the saved input", &natural);
    bool same = array && pc_array_rank(array) == 4;
    for (int i = 0; same && i < 4; i++) {
        same = pc_array_size(array, i) == saved->shape[i];
    }
    if (array && !same) {
        PyErr_Format(PyExc_RuntimeError, "%s: the input array was given another shape between forward and backward",
                     who);
        Py_CLEAR(array);
    }
    return array;
}

static PyObject *backward(pc_layer *layer, const pc_saved *saved, PyObject *value, bool input_grad)
{
    norm_layer *self = (norm_layer *)layer;
    pc_dtype natural;
    PyObject *grad_output = pc_array_open(value, layer->name, "grad_output", &natural);
    PyObject *array = NULL, *shape = NULL, *result = NULL, *gradients[3] = {NULL, NULL, NULL};
    pc_norm_call call = {.channels = saved->shape[1], .batch = saved->batch};
    if (!grad_output || !(array = open_saved(saved, layer->name)) || !(shape = pc_shape_object(saved->shape, 4)) ||
        !pc_check_grad_like(layer->name, grad_output, shape) || !pc_owner_check_parameters(&self->owner)) {
        goto exit;
    }
    if (self->owner.dtype != saved->dtype || self->num_features != saved->shape[1]) {
        PyErr_Format(PyExc_RuntimeError, "%s: its %s was changed between forward and backward", layer->name,
                     self->owner.dtype != saved->dtype ? "dtype" : "number of features");
        goto exit;
    }
    bool mask[3] = {input_grad, self->owner.parameters[PC_WEIGHT] && self->owner.requires_grad[PC_WEIGHT],
                    self->owner.parameters[PC_BIAS] && self->owner.requires_grad[PC_BIAS]};
    call.weight = Py_XNewRef(self->owner.parameters[PC_WEIGHT]);
    if (pc_norm_run_backward(layer->state, &call, layer->name, saved->dtype, array, grad_output,
                             PyTuple_GET_ITEM(saved->array, 1), mask, gradients) &&
        pc_owner_add_gradients(&self->owner, gradients + 1)) {
        result = Py_NewRef(gradients[0] ? gradients[0] : Py_None);
    }
exit:
    for (int i = 0; i < 3; i++) {
        Py_XDECREF(gradients[i]);
    }
    Py_XDECREF(call.weight);
    Py_XDECREF(shape);
    Py_XDECREF(array);
    Py_XDECREF(grad_output);
    return result;
}

static bool output_shape(pc_layer *layer, const int64_t shape[4], int rank, int64_t out_shape[4])
{
    const norm_layer *self = (norm_layer *)layer;
    if (rank != 4 || shape[1] != self->num_features) {
        PyObject *tuple = pc_shape_object(shape, rank);
        if (tuple) {
            PyErr_Format(PyExc_ValueError, "%s: expected input_shape (N, %lld, H, W), got %S", layer->name,
                         (long long)self->num_features, tuple);
        }
        Py_XDECREF(tuple);
        return false;
    }
    memcpy(out_shape, shape, 4 * sizeof *shape);
    return true;
}

/* ---- life ---- */

static const pc_layer_kind kind = {
    {"BatchNorm2d.forward", {"input", NULL}, 1, 1}, forward, backward, output_shape, pc_owner_clear};

static PyObject *norm_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return pc_layer_new(type, &kind);
}

static bool parse_eps(PyObject *value, const char *who, double *eps)
{
    double number = *eps;
    if (!pc_parse_float(value, who, "eps", &number)) {
        return false;
    }
    if (!(number >= 0)) {
        PyErr_Format(PyExc_ValueError, "%s: batch_norm eps must be non-negative, but got %.100R", who, value);
        return false;
    }
    *eps = number;
    return true;
}

/* A number, or None for the mean of all batches. */
static bool parse_momentum(PyObject *value, const char *who, double *momentum, bool *cumulative)
{
    if (value == Py_None) {
        *cumulative = true;
        return true;
    }
    if (!pc_parse_float(value, who, "momentum", momentum)) {
        return false;
    }
    *cumulative = value ? false : *cumulative;
    return true;
}

static int norm_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static const char who[] = "BatchNorm2d";
    static const pc_signature signature = {
        who,
        {"num_features", "eps", "momentum", "affine", "track_running_stats", "device", "dtype", "bias", NULL},
        1,
        7};
    norm_layer *self = (norm_layer *)object;
    PyObject *values[PC_MAX_ARGUMENTS], *fresh[2];
    int64_t features = 0;
    double eps = 1e-5, momentum = 0.1;
    bool cumulative = false, affine = true, track = true, bias = true;
    pc_dtype dtype = PC_F32;
    if (!pc_bind_tuple(&signature, args, kwargs, values) || !pc_parse_int(values[0], who, "num_features", &features) ||
        !parse_eps(values[1], who, &eps) || !parse_momentum(values[2], who, &momentum, &cumulative) ||
        !pc_parse_truth(values[3], &affine) || !pc_parse_truth(values[4], &track) || !pc_parse_device(values[5], who) ||
        !pc_parse_dtype(values[6], who, &dtype) || !pc_parse_truth(values[7], &bias)) {
        return -1;
    }
    if (features < 1) {
        PyErr_Format(PyExc_ValueError, "%s: num_features must be greater than 0, got %lld", who, (long long)features);
        return -1;
    }
    char name[PC_LAYER_NAME];
    snprintf(name, sizeof name, "%s(%lld)", who, (long long)features);
    const pc_form forms[2] = {{affine, {features}}, {affine && bias, {features}}};
    if (!pc_owner_make(forms, dtype, name, fresh)) {
        return -1;
    }
    self->num_features = features;
    self->eps = eps;
    self->momentum = momentum;
    self->cumulative = cumulative;
    self->affine = affine;
    self->track_running_stats = track;
    pc_owner_become(&self->owner, forms, dtype, fresh, name);
    return 0;
}

/* ---- attributes ---- */

static PyObject *get_features(PyObject *object, void *Py_UNUSED(closure))
{
    return pc_layer_check((pc_layer *)object) ? PyLong_FromLongLong(((norm_layer *)object)->num_features) : NULL;
}

static PyObject *get_flag(PyObject *object, void *offset)
{
    return pc_layer_check((pc_layer *)object) ? PyBool_FromLong(*((bool *)object + (size_t)offset)) : NULL;
}

static PyObject *get_eps(PyObject *object, void *Py_UNUSED(closure))
{
    return pc_layer_check((pc_layer *)object) ? PyFloat_FromDouble(((norm_layer *)object)->eps) : NULL;
}

static PyObject *get_momentum(PyObject *object, void *Py_UNUSED(closure))
{
    norm_layer *self = (norm_layer *)object;
    if (!pc_layer_check(&self->owner.layer)) {
        return NULL;
    }
    return self->cumulative ? Py_NewRef(Py_None) : PyFloat_FromDouble(self->momentum);
}

static bool check_set(PyObject *object, PyObject *value, const char *name)
{
    if (!value) {
        PyErr_Format(PyExc_AttributeError, "%s cannot be deleted", name);
        return false;
    }
    return pc_layer_check((pc_layer *)object);
}

static int set_eps(PyObject *object, PyObject *value, void *Py_UNUSED(closure))
{
    norm_layer *self = (norm_layer *)object;
    return check_set(object, value, "eps") && parse_eps(value, self->owner.layer.name, &self->eps) ? 0 : -1;
}

static int set_momentum(PyObject *object, PyObject *value, void *Py_UNUSED(closure))
{
    norm_layer *self = (norm_layer *)object;
    return check_set(object, value, "momentum") &&
                   parse_momentum(value, self->owner.layer.name, &self->momentum, &self->cumulative)
               ? 0
               : -1;
}

/* The constructor's keyword arguments, for pickling. */
static PyObject *get_config(PyObject *object, PyObject *Py_UNUSED(unused))
{
    static const char *const names[] = {"num_features", "eps", "momentum", "affine", "track_running_stats", "dtype"};
    const norm_layer *self = (norm_layer *)object;
    PyObject *config = pc_layer_check((pc_layer *)object) ? PyDict_New() : NULL;
    for (size_t i = 0; config && i < sizeof names / sizeof *names; i++) {
        if (!pc_dict_take(config, names[i], PyObject_GetAttrString(object, names[i]))) {
            Py_CLEAR(config);
        }
    }
    bool bias = !self->affine || self->owner.parameters[PC_BIAS];
    if (config && !pc_dict_take(config, "bias", PyBool_FromLong(bias))) {
        Py_CLEAR(config);
    }
    return config;
}

static PyMethodDef layer_methods[] = {
    {"_config", get_config, METH_NOARGS, "_config($self, /)\n--\n\nThe constructor's keyword arguments."},
    PC_OWNER_METHODS,
    {NULL, NULL, 0, NULL},
};

#define AT(field) (void *)offsetof(norm_layer, field)

static PyGetSetDef getset[] = {
    {"num_features", get_features, NULL, "Channels of the input.", NULL},
    {"eps", get_eps, set_eps, "What is added to the variance.", NULL},
    {"momentum", get_momentum, set_momentum, "How far one batch moves the running statistics; None: their mean.", NULL},
    {"affine", get_flag, NULL, "Was a weight asked for?", AT(affine)},
    {"track_running_stats", get_flag, NULL, "Are there running statistics?", AT(track_running_stats)},
    PC_OWNER_ATTRIBUTES,
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(layer_doc, "BatchNorm2d(num_features, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True, "
                        "device=None, dtype=None, *, bias=True)\n--\n\n"
                        "The batch normalisation layer without its Python side; parameters start as zeros.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)layer_doc},
    {Py_tp_new, norm_new},
    {Py_tp_init, norm_init},
    {Py_tp_methods, layer_methods},
    {Py_tp_getset, getset},
    {Py_tp_members, pc_layer_members},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_traverse, pc_owner_traverse},
    {Py_tp_clear, pc_owner_clear},
    {Py_tp_dealloc, pc_layer_dealloc},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyconv._core.BatchNorm2d",
    .basicsize = sizeof(norm_layer),
    .flags = PC_LAYER_FLAGS,
    .slots = slots,
};

/* ---- the functions ---- */

/* An array of (N, C, ...). */
static PyObject *open_input(PyObject *value, const char *who, pc_dtype *dtype)
{
    PyObject *array = pc_array_open(value, who, "input", dtype);
    if (array && pc_array_rank(array) < 2) {
        PyObject *shape = pc_array_shape_object(array);
        if (shape) {
            PyErr_Format(PyExc_ValueError, "%s: expected input (N, C, ...), got %S", who, shape);
        }
        Py_XDECREF(shape);
        Py_CLEAR(array);
    }
    return array;
}

static PyObject *batch_norm(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    static const pc_signature signature = {
        "batch_norm",
        {"input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps", NULL},
        3,
        8};
    const char *who = signature.who;
    PyObject *values[PC_MAX_ARGUMENTS], *array = NULL, *output = NULL, *statistics = NULL;
    pc_norm_call call = {.eps = 1e-5};
    double momentum = 0.1;
    pc_dtype dtype;
    if (!pc_bind(&signature, args, count, names, values) || !pc_parse_truth(values[5], &call.batch) ||
        !pc_parse_float(values[6], who, "momentum", &momentum) || !pc_parse_float(values[7], who, "eps", &call.eps) ||
        !(array = open_input(values[0], who, &dtype))) {
        return NULL;
    }
    const int64_t channels = call.channels = pc_array_size(array, 1);
    call.running_mean = values[1];
    call.running_var = values[2];
    if (pc_norm_vector(values[3], channels, dtype, who, "weight", &call.weight) &&
        pc_norm_vector(values[4], channels, dtype, who, "bias", &call.bias) &&
        (output = pc_norm_run_forward(pc_state_of(module), &call, who, dtype, array, &statistics)) &&
        !pc_norm_move(&call, who, dtype, statistics, output, momentum)) {
        Py_CLEAR(output);
    }
    Py_XDECREF(statistics);
    Py_XDECREF(call.weight);
    Py_XDECREF(call.bias);
    Py_DECREF(array);
    return output;
}

static PyObject *batch_norm_backward(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    static const pc_signature signature = {
        "batch_norm_backward",
        {"grad_output", "input", "running_mean", "running_var", "weight", "training", "eps", "output_mask", NULL},
        4,
        7};
    const char *who = signature.who;
    pc_state *state = pc_state_of(module);
    PyObject *values[PC_MAX_ARGUMENTS], *array = NULL, *grad_output = NULL, *shape = NULL, *statistics = NULL;
    PyObject *result = NULL, *gradients[3] = {NULL, NULL, NULL};
    pc_norm_call call = {.eps = 1e-5};
    bool mask[3] = {true, true, true};
    pc_dtype dtype, natural;
    if (pc_bind(&signature, args, count, names, values) && pc_parse_truth(values[5], &call.batch) &&
        pc_parse_float(values[6], who, "eps", &call.eps) && pc_parse_mask(values[7], who, mask) &&
        (grad_output = pc_array_open(values[0], who, "grad_output", &natural)) &&
        (array = open_input(values[1], who, &dtype)) && (shape = pc_array_shape_object(array)) &&
        pc_check_grad_like(who, grad_output, shape) && (call.channels = pc_array_size(array, 1)) >= 0 &&
        pc_norm_vector(values[4], call.channels, dtype, who, "weight", &call.weight)) {
        call.running_mean = values[2];
        call.running_var = values[3];
        statistics = pc_norm_statistics(state, &call, who, dtype, array);
    }
    if (statistics && pc_norm_run_backward(state, &call, who, dtype, array, grad_output, statistics, mask, gradients)) {
        result = PyTuple_New(3);
        for (int i = 0; result && i < 3; i++) {
            PyTuple_SET_ITEM(result, i, Py_NewRef(gradients[i] ? gradients[i] : Py_None));
        }
    }
    for (int i = 0; i < 3; i++) {
        Py_XDECREF(gradients[i]);
    }
    Py_XDECREF(statistics);
    Py_XDECREF(call.weight);
    Py_XDECREF(shape);
    Py_XDECREF(array);
    Py_XDECREF(grad_output);
    return result;
}

PyDoc_STRVAR(batch_norm_doc, "batch_norm($module, /, input, running_mean, running_var, weight=None, bias=None, "
                             "training=False, momentum=0.1, eps=1e-05)\n--\n\n"
                             "Normalise each channel, by its own statistics or by the running ones.");
PyDoc_STRVAR(batch_norm_backward_doc,
             "batch_norm_backward($module, /, grad_output, input, running_mean, running_var, weight=None, "
             "training=False, eps=1e-05, *, output_mask=(True, True, True))\n--\n\n"
             "(grad_input, grad_weight, grad_bias) of batch_norm, None where output_mask is False.");

static PyMethodDef functions[] = {
    {"batch_norm", PC_FASTCALL(batch_norm), METH_FASTCALL | METH_KEYWORDS, batch_norm_doc},
    {"batch_norm_backward", PC_FASTCALL(batch_norm_backward), METH_FASTCALL | METH_KEYWORDS, batch_norm_backward_doc},
    {NULL, NULL, 0, NULL},
};

int pc_add_norm(PyObject *module, pc_state *state)
{
    PyTypeObject *type = pc_add_type(module, &spec, state->layer);
    if (!type) {
        return -1;
    }
    Py_DECREF(type); /* the module has it */
    return PyModule_AddFunctions(module, functions);
}
