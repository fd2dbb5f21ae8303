/* adaptive.c: AdaptiveAvgPool2d, the layer and its two functions. Its type is the input's. */
#include "py/layer.h"
#include "py/run.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    pc_layer layer;
    int64_t output_size[2]; /* PC_SIZE_KEPT for None */
    PyObject *given;        /* as it was written: an int, a tuple or a list */
} adaptive_layer;

/* ---- arguments ---- */

/* An int, or a pair of ints in which None leaves an axis as it is. */
static bool parse_output_size(PyObject *value, const char *who, int64_t size[2])
{
    bool kept[2] = {false, false};
    PyObject *numbers = NULL;
    if ((PyTuple_Check(value) || PyList_Check(value)) && PySequence_Size(value) == 2) {
        numbers = PySequence_Tuple(value);
        for (int i = 0; numbers && i < 2; i++) {
            kept[i] = PyTuple_GET_ITEM(numbers, i) == Py_None;
        }
        if (numbers && (kept[0] || kept[1])) {
            PyObject *first = PyTuple_GET_ITEM(numbers, kept[0] ? 1 : 0);
            Py_SETREF(numbers, kept[0] && kept[1] ? Py_BuildValue("(ii)", 0, 0) : PyTuple_Pack(1, first));
        }
    }
    if (PyErr_Occurred()) {
        return false;
    }
    bool good = pc_parse_pair(numbers ? numbers : value, who, "output_size", PC_WORDS_ADAPTIVE, size);
    Py_XDECREF(numbers);
    for (int i = 0; good && i < 2; i++) {
        size[i] = kept[i] ? PC_SIZE_KEPT : pc_max(size[i], -INT64_MAX); /* no number means kept */
    }
    pc_error error;
    pc_status status = good ? pc_adaptive_size_check(size, &error) : PC_OK;
    return good && (status == PC_OK || pc_raise(who, status, &error));
}

static PyObject *size_object(int64_t size)
{
    return size == PC_SIZE_KEPT ? Py_NewRef(Py_None) : PyLong_FromLongLong(size);
}

static PyObject *as_given(PyObject *value, const int64_t size[2])
{
    if (size[0] != PC_SIZE_KEPT && size[1] != PC_SIZE_KEPT) {
        return pc_pair_as_given(value, size);
    }
    PyObject *first = size_object(size[0]), *second = size_object(size[1]);
    PyObject *pair = first && second ? PyTuple_Pack(2, first, second) : NULL;
    Py_XDECREF(first);
    Py_XDECREF(second);
    if (pair && PyList_Check(value)) {
        Py_SETREF(pair, PySequence_List(pair));
    }
    return pair;
}

/* ---- from shape to shape, from array to array ---- */

static bool plan(pc_adaptive_geom *geom, const char *who, const int64_t shape[4], const int64_t size[2],
                 int64_t out_shape[4])
{
    pc_error error;
    pc_status status = pc_adaptive_geometry(shape, size, geom, &error);
    if (status != PC_OK) {
        return pc_raise(who, status, &error);
    }
    const int64_t sizes[4] = {geom->n, geom->c, geom->oh, geom->ow};
    memcpy(out_shape, sizes, sizeof sizes);
    return true;
}

static bool check_rank(const char *who, const char *name, const pc_input *input)
{
    if (input->rank == 3 || input->rank == 4) {
        return true;
    }
    PyObject *shape = pc_input_shape(input);
    PyObject *list = shape ? PySequence_List(shape) : NULL;
    if (list) {
        PyErr_Format(PyExc_ValueError,
                     "%s: expected %s (N, C, H, W) or (C, H, W), got %.200R. Expected 3D or 4D tensor, but got %.200R",
                     who, name, shape, list);
    }
    Py_XDECREF(shape);
    Py_XDECREF(list);
    return false;
}

/* A new array of that shape: the output of `from`, or with `backward` the gradient of the input. */
static PyObject *run(pc_state *state, const pc_adaptive_geom *geom, bool backward, const char *who, pc_dtype dtype,
                     const pc_input *from, const int64_t shape[4], int rank)
{
    int threads = pc_threads(state);
    PyObject *result =
        threads > 0 ? pc_array_new(rank, shape, dtype, who, backward ? "the input's gradient" : "the output") : NULL;
    pc_tensor tensor;
    pc_run call;
    pc_error error;
    bool good = result && pc_input_read(from, dtype, who, &tensor);
    pc_status status = good ? pc_adaptive_begin(geom, backward, &tensor, dtype, threads, &call.call, &error) : PC_OK;
    if (status != PC_OK) {
        good = pc_raise(who, status, &error);
    }
    if (good) {
        void *data = pc_array_data(result);
        pc_run_start(&call);
        if (backward) {
            pc_adaptive_backward(geom, data, &tensor, &call.call);
        } else {
            pc_adaptive_forward(geom, data, &tensor, &call.call);
        }
        good = pc_run_finish(&call);
    }
    if (!good) {
        Py_CLEAR(result);
    }
    return result;
}

/* The whole forward; `size` is read after the input was opened. */
static PyObject *run_forward(pc_state *state, const char *who, PyObject *value, const int64_t size[2], pc_saved *saved)
{
    pc_input input;
    pc_adaptive_geom geom;
    int64_t shape[4];
    PyObject *output = NULL;
    if (!pc_input_open(&input, value, who, "input")) {
        return NULL;
    }
    if (check_rank(who, "input", &input) && plan(&geom, who, input.shape, size, shape) &&
        pc_input_settle(&input, input.natural, who, "input")) {
        output = run(state, &geom, false, who, input.natural, &input, shape, input.rank);
    }
    if (output && saved) {
        *saved = (pc_saved){.array = NULL, .rank = input.rank, .dtype = input.natural};
        memcpy(saved->shape, input.shape, sizeof saved->shape);
        saved->output_size[0] = geom.oh;
        saved->output_size[1] = geom.ow;
    }
    pc_input_close(&input);
    return output;
}

/* ---- the layer ---- */

static PyObject *forward(pc_layer *layer, PyObject *value, PyObject *Py_UNUSED(size), pc_saved *saved)
{
    return run_forward(layer->state, layer->name, value, ((adaptive_layer *)layer)->output_size, saved);
}

static PyObject *backward(pc_layer *layer, const pc_saved *saved, PyObject *value, bool input_grad)
{
    const char *who = layer->name;
    pc_input grad_output;
    pc_adaptive_geom geom;
    int64_t shape[4];
    PyObject *gradient = NULL;
    if (!pc_input_open(&grad_output, value, who, "grad_output")) {
        return NULL;
    }
    if (plan(&geom, who, saved->shape, saved->output_size, shape) &&
        pc_check_grad_shape(who, &grad_output, shape, saved->rank) &&
        pc_input_settle(&grad_output, saved->dtype, who, "grad_output")) {
        gradient = input_grad
                       ? run(layer->state, &geom, true, who, saved->dtype, &grad_output, saved->shape, saved->rank)
                       : Py_NewRef(Py_None);
    }
    pc_input_close(&grad_output);
    return gradient;
}

static bool output_shape(pc_layer *layer, const int64_t shape[4], int Py_UNUSED(rank), int64_t out_shape[4])
{
    pc_adaptive_geom geom;
    return plan(&geom, layer->name, shape, ((adaptive_layer *)layer)->output_size, out_shape);
}

static int traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(((adaptive_layer *)object)->given);
    return pc_layer_traverse(object, visit, arg);
}

static int clear(PyObject *object)
{
    ((pc_layer *)object)->ready = false;
    Py_CLEAR(((adaptive_layer *)object)->given);
    return pc_layer_clear(object);
}

static const pc_layer_kind kind = {
    {"AdaptiveAvgPool2d.forward", {"input", NULL}, 1, 1}, forward, backward, output_shape, clear};

static PyObject *adaptive_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return pc_layer_new(type, &kind);
}

static int adaptive_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static const char who[] = "AdaptiveAvgPool2d";
    static const pc_signature signature = {who, {"output_size", NULL}, 1, 1};
    adaptive_layer *self = (adaptive_layer *)object;
    PyObject *values[PC_MAX_ARGUMENTS];
    int64_t size[2];
    if (!pc_bind_tuple(&signature, args, kwargs, values) || !parse_output_size(values[0], who, size)) {
        return -1;
    }
    PyObject *given = as_given(values[0], size), *text = given ? PyObject_Repr(given) : NULL;
    const char *word = text ? PyUnicode_AsUTF8(text) : NULL;
    char name[PC_LAYER_NAME];
    if (word) {
        snprintf(name, sizeof name, "%s(output_size=%s)", who, word);
    }
    Py_XDECREF(text);
    if (!word) {
        Py_XDECREF(given);
        return -1;
    }
    PyObject *old = self->given;
    self->given = given;
    memcpy(self->output_size, size, sizeof size);
    pc_layer_ready(&self->layer, name);
    Py_XDECREF(old);
    return 0;
}

static PyObject *get_output_size(PyObject *object, void *Py_UNUSED(closure))
{
    if (!pc_layer_check((pc_layer *)object)) {
        return NULL;
    }
    /* A list could be changed, and the layer would not follow: each reader has one of their own. */
    PyObject *given = ((adaptive_layer *)object)->given;
    return PyList_CheckExact(given) ? PyList_GetSlice(given, 0, PyList_GET_SIZE(given)) : Py_NewRef(given);
}

static PyObject *get_config(PyObject *object, PyObject *Py_UNUSED(unused))
{
    PyObject *size = get_output_size(object, NULL);
    return size ? Py_BuildValue("{s:N}", "output_size", size) : NULL;
}

static PyMethodDef layer_methods[] = {
    {"_config", get_config, METH_NOARGS, "_config($self, /)\n--\n\nThe constructor's keyword arguments."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"output_size", get_output_size, NULL, "The output's height and width, as it was given.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(layer_doc, "AdaptiveAvgPool2d(output_size)\n--\n\n"
                        "The adaptive average pooling layer without its Python side.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)layer_doc},
    {Py_tp_new, adaptive_new},
    {Py_tp_init, adaptive_init},
    {Py_tp_methods, layer_methods},
    {Py_tp_getset, getset},
    {Py_tp_members, pc_layer_members},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_dealloc, pc_layer_dealloc},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyconv._core.AdaptiveAvgPool2d",
    .basicsize = sizeof(adaptive_layer),
    .flags = PC_LAYER_FLAGS,
    .slots = slots,
};

/* ---- the functions ---- */

static PyObject *adaptive_avg_pool2d(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    static const pc_signature signature = {"adaptive_avg_pool2d", {"input", "output_size", NULL}, 2, 2};
    PyObject *values[PC_MAX_ARGUMENTS];
    int64_t size[2];
    if (!pc_bind(&signature, args, count, names, values) || !parse_output_size(values[1], signature.who, size)) {
        return NULL;
    }
    return run_forward(pc_state_of(module), signature.who, values[0], size, NULL);
}

static PyObject *adaptive_avg_pool2d_backward(PyObject *module, PyObject *const *args, Py_ssize_t count,
                                              PyObject *names)
{
    static const pc_signature signature = {"adaptive_avg_pool2d_backward", {"grad_output", "input_shape", NULL}, 2, 2};
    const char *who = signature.who;
    PyObject *values[PC_MAX_ARGUMENTS], *gradient = NULL;
    int64_t shape[4], out_shape[4];
    int rank;
    pc_input grad_output;
    pc_adaptive_geom geom;
    if (!pc_bind(&signature, args, count, names, values) ||
        !pc_parse_shape(values[1], who, "input_shape", shape, &rank) ||
        !pc_input_open(&grad_output, values[0], who, "grad_output")) {
        return NULL;
    }
    if (check_rank(who, "grad_output", &grad_output) && plan(&geom, who, shape, grad_output.shape + 2, out_shape) &&
        pc_check_grad_shape(who, &grad_output, out_shape, rank) &&
        pc_input_settle(&grad_output, grad_output.natural, who, "grad_output")) {
        gradient = run(pc_state_of(module), &geom, true, who, grad_output.natural, &grad_output, shape, rank);
    }
    pc_input_close(&grad_output);
    return gradient;
}

PyDoc_STRVAR(adaptive_avg_pool2d_doc, "adaptive_avg_pool2d($module, /, input, output_size)\n--\n\n"
                                      "Means of windows chosen so that the output gets a given size.");
PyDoc_STRVAR(adaptive_avg_pool2d_backward_doc,
             "adaptive_avg_pool2d_backward($module, /, grad_output, input_shape)\n--\n\n"
             "The input's gradient of adaptive_avg_pool2d.");

static PyMethodDef functions[] = {
    {"adaptive_avg_pool2d", PC_FASTCALL(adaptive_avg_pool2d), METH_FASTCALL | METH_KEYWORDS, adaptive_avg_pool2d_doc},
    {"adaptive_avg_pool2d_backward", PC_FASTCALL(adaptive_avg_pool2d_backward), METH_FASTCALL | METH_KEYWORDS,
     adaptive_avg_pool2d_backward_doc},
    {NULL, NULL, 0, NULL},
};

int pc_add_adaptive(PyObject *module, pc_state *state)
{
    PyTypeObject *type = pc_add_type(module, &spec, state->layer);
    if (!type) {
        return -1;
    }
    Py_DECREF(type); /* the module has it */
    return PyModule_AddFunctions(module, functions);
}
