/* relu.c: ReLU, the layer and its two functions. It takes arrays of any rank, and its type is the input's.
 *
 * What lies in C order is read where it lies. Anything else is copied once, into the result itself, which is then
 * worked on in place. For backward the layer keeps one bit per element, in a bytes object that nobody else has: neither
 * the input nor the output need live on, and both may be written to.
 */
#include "py/layer.h"
#include "py/run.h"

#include <stddef.h>

typedef struct {
    pc_layer layer;
    bool inplace;
} relu_layer;

/* ---- from array to array ---- */

static bool begin(pc_state *state, const char *who, int64_t count, pc_dtype dtype, pc_run *run)
{
    int threads = pc_threads(state);
    if (threads < 0) {
        return false;
    }
    pc_error error;
    pc_status status = pc_relu_begin(count, dtype, threads, &run->call, &error);
    if (status != PC_OK) {
        return pc_raise(who, status, &error);
    }
    pc_run_start(run);
    return true;
}

/* `array`, of any layout, as a source of elements in C order and a fresh result of its shape; both may be the same. */
static bool source_and_result(PyObject *array, pc_dtype dtype, const char *who, const char *name, PyObject **source,
                              PyObject **result)
{
    *source = pc_array_contiguous(array, dtype, who, name);
    *result = *source == array ? pc_array_new_like(array, dtype, who, "the result") : Py_XNewRef(*source);
    return *source && *result;
}

/* A new output; with `bits`, a new bytes object there as well. */
static PyObject *run_forward(pc_state *state, const char *who, PyObject *array, pc_dtype dtype, PyObject **bits)
{
    PyObject *source, *output, *passes = NULL;
    bool good = source_and_result(array, dtype, who, "input", &source, &output);
    int64_t count = good ? pc_array_count(source) : 0;
    if (good && bits) {
        passes = PyBytes_FromStringAndSize(NULL, pc_ceil_div(count, 64) * (int64_t)sizeof(uint64_t));
        good = passes != NULL;
    }
    pc_run run;
    if (good && (good = begin(state, who, count, dtype, &run))) {
        uint64_t *words = passes ? (uint64_t *)PyBytes_AS_STRING(passes) : NULL;
        pc_relu_forward(count, pc_array_data(output), words, pc_array_data(source), &run.call);
        good = pc_run_finish(&run);
    }
    Py_XDECREF(source);
    if (!good) {
        Py_CLEAR(output);
        Py_CLEAR(passes);
    }
    if (bits) {
        *bits = passes;
    }
    return output;
}

/* By the input, or where that is NULL by the bits. */
static PyObject *run_backward(pc_state *state, const char *who, PyObject *grad_output, pc_dtype dtype, PyObject *input,
                              PyObject *bits)
{
    PyObject *source, *gradient, *in = NULL;
    bool good = source_and_result(grad_output, dtype, who, "grad_output", &source, &gradient);
    if (good && input) {
        in = pc_array_contiguous(input, dtype, who, "input");
        good = in != NULL;
    }
    int64_t count = good ? pc_array_count(source) : 0;
    if (good && (in ? pc_array_count(in) : PyBytes_GET_SIZE(bits) / 8 * 64) < count) {
        PyErr_Format(PyExc_RuntimeError, "%s: an array was given another shape while the call went on", who);
        good = false;
    }
    pc_run run;
    if (good && (good = begin(state, who, count, dtype, &run))) {
        pc_relu_backward(count, pc_array_data(gradient), pc_array_data(source), in ? pc_array_data(in) : NULL,
                         in ? NULL : (const uint64_t *)PyBytes_AS_STRING(bits), &run.call);
        good = pc_run_finish(&run);
    }
    Py_XDECREF(source);
    Py_XDECREF(in);
    if (!good) {
        Py_CLEAR(gradient);
    }
    return gradient;
}

/* ---- the layer ---- */

static PyObject *forward(pc_layer *layer, PyObject *value, PyObject *Py_UNUSED(size), pc_saved *saved)
{
    pc_dtype dtype;
    PyObject *array = pc_array_open(value, layer->name, "input", &dtype), *bits = NULL;
    PyObject *output = array ? run_forward(layer->state, layer->name, array, dtype, saved ? &bits : NULL) : NULL;
    if (output && saved) {
        PyObject *shape = pc_array_shape_object(output);
        PyObject *kept = shape ? PyTuple_Pack(2, bits, shape) : NULL;
        Py_XDECREF(shape);
        if (kept) {
            *saved = (pc_saved){.array = kept, .rank = 1, .dtype = dtype};
        } else {
            Py_CLEAR(output);
        }
    }
    Py_XDECREF(bits);
    Py_XDECREF(array);
    return output;
}

static PyObject *backward(pc_layer *layer, const pc_saved *saved, PyObject *value, bool input_grad)
{
    pc_dtype natural;
    PyObject *grad_output = pc_array_open(value, layer->name, "grad_output", &natural), *gradient = NULL;
    if (grad_output && pc_check_grad_like(layer->name, grad_output, PyTuple_GET_ITEM(saved->array, 1))) {
        gradient = input_grad ? run_backward(layer->state, layer->name, grad_output, saved->dtype, NULL,
                                             PyTuple_GET_ITEM(saved->array, 0))
                              : Py_NewRef(Py_None);
    }
    Py_XDECREF(grad_output);
    return gradient;
}

static bool output_shape(pc_layer *Py_UNUSED(layer), const int64_t shape[4], int Py_UNUSED(rank), int64_t out_shape[4])
{
    for (int i = 0; i < 4; i++) {
        out_shape[i] = shape[i];
    }
    return true;
}

static int clear(PyObject *object)
{
    ((pc_layer *)object)->ready = false;
    return pc_layer_clear(object);
}

static const pc_layer_kind kind = {{"ReLU.forward", {"input", NULL}, 1, 1}, forward, backward, output_shape, clear};

static PyObject *relu_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return pc_layer_new(type, &kind);
}

static int relu_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static const pc_signature signature = {"ReLU", {"inplace", NULL}, 0, 1};
    PyObject *values[PC_MAX_ARGUMENTS];
    bool inplace = false;
    if (!pc_bind_tuple(&signature, args, kwargs, values) || !pc_parse_truth(values[0], &inplace)) {
        return -1;
    }
    ((relu_layer *)object)->inplace = inplace;
    pc_layer_ready((pc_layer *)object, "ReLU");
    return 0;
}

static PyObject *get_inplace(PyObject *object, void *Py_UNUSED(closure))
{
    return pc_layer_check((pc_layer *)object) ? PyBool_FromLong(((relu_layer *)object)->inplace) : NULL;
}

static PyObject *get_config(PyObject *object, PyObject *Py_UNUSED(unused))
{
    PyObject *inplace = get_inplace(object, NULL);
    return inplace ? Py_BuildValue("{s:N}", "inplace", inplace) : NULL;
}

static PyMethodDef layer_methods[] = {
    {"_config", get_config, METH_NOARGS, "_config($self, /)\n--\n\nThe constructor's keyword arguments."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"inplace", get_inplace, NULL, "As it was given; the output is a new array in any case.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(layer_doc, "ReLU(inplace=False)\n--\n\n"
                        "The ReLU layer without its Python side.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)layer_doc},
    {Py_tp_new, relu_new},
    {Py_tp_init, relu_init},
    {Py_tp_methods, layer_methods},
    {Py_tp_getset, getset},
    {Py_tp_members, pc_layer_members},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_traverse, pc_layer_traverse},
    {Py_tp_clear, clear},
    {Py_tp_dealloc, pc_layer_dealloc},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyconv._core.ReLU",
    .basicsize = sizeof(relu_layer),
    .flags = PC_LAYER_FLAGS,
    .slots = slots,
};

/* ---- the functions ---- */

static PyObject *relu(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    static const pc_signature signature = {"relu", {"input", "inplace", NULL}, 1, 2};
    PyObject *values[PC_MAX_ARGUMENTS], *array, *output = NULL;
    bool inplace;
    pc_dtype dtype;
    if (!pc_bind(&signature, args, count, names, values) || !pc_parse_truth(values[1], &inplace) ||
        !(array = pc_array_open(values[0], "relu", "input", &dtype))) {
        return NULL;
    }
    output = run_forward(pc_state_of(module), "relu", array, dtype, NULL);
    Py_DECREF(array);
    return output;
}

static PyObject *relu_backward(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    static const pc_signature signature = {"relu_backward", {"grad_output", "input", NULL}, 2, 2};
    const char *who = signature.who;
    PyObject *values[PC_MAX_ARGUMENTS], *grad_output = NULL, *input = NULL, *shape = NULL, *gradient = NULL;
    pc_dtype natural, dtype;
    if (pc_bind(&signature, args, count, names, values) &&
        (grad_output = pc_array_open(values[0], who, "grad_output", &natural)) &&
        (input = pc_array_open(values[1], who, "input", &dtype)) && (shape = pc_array_shape_object(input)) &&
        pc_check_grad_like(who, grad_output, shape)) {
        gradient = run_backward(pc_state_of(module), who, grad_output, dtype, input, NULL);
    }
    Py_XDECREF(shape);
    Py_XDECREF(input);
    Py_XDECREF(grad_output);
    return gradient;
}

PyDoc_STRVAR(relu_doc, "relu($module, /, input, inplace=False)\n--\n\nmax(0, input), elementwise; a new array.");
PyDoc_STRVAR(relu_backward_doc, "relu_backward($module, /, grad_output, input)\n--\n\n"
                                "The input's gradient of relu: grad_output where not input <= 0, else 0.");

static PyMethodDef functions[] = {
    {"relu", PC_FASTCALL(relu), METH_FASTCALL | METH_KEYWORDS, relu_doc},
    {"relu_backward", PC_FASTCALL(relu_backward), METH_FASTCALL | METH_KEYWORDS, relu_backward_doc},
    {NULL, NULL, 0, NULL},
};

int pc_add_relu(PyObject *module, pc_state *state)
{
    PyTypeObject *type = pc_add_type(module, &spec, state->layer);
    if (!type) {
        return -1;
    }
    Py_DECREF(type); /* the module has it */
    return PyModule_AddFunctions(module, functions);
}
