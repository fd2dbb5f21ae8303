/* pool.c: MaxPool2d and AvgPool2d. They have no parameters; their type is the input's.
 *
 * Attributes are kept as they were written, as torch keeps them: an int stays an int, a list a list.
 */
#include "py/explain.h"
#include "py/layer.h"
#include "py/pooling.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { KERNEL_SIZE, STRIDE, PADDING, DILATION, GIVEN };

typedef struct {
    pc_layer layer;
    pc_pool_config config;
    bool return_indices; /* max only */
    PyObject *given[GIVEN];
} pool_layer;

/* ---- forward and backward ---- */

/* What both do with an input before they run. */
static bool open_input(pool_layer *self, PyObject *value, pc_input *input, pc_pool_config *config, pc_pool_plan *plan)
{
    const char *who = self->layer.name;
    if (!pc_input_open(input, value, who, "input")) {
        return false;
    }
    *config = self->config; /* now, when no argument can change it any more */
    if (!pc_pool_plan_input(plan, config, who, input) || !pc_input_settle(input, input->natural, who, "input")) {
        pc_input_close(input);
        return false;
    }
    return true;
}

static void save(pc_saved *saved, const pc_input *input, PyObject *array)
{
    if (saved) {
        *saved = (pc_saved){.array = Py_XNewRef(array), .rank = input->rank, .dtype = input->natural};
        memcpy(saved->shape, input->shape, sizeof saved->shape);
    }
}

static PyObject *max_forward(pc_layer *layer, PyObject *value, PyObject *Py_UNUSED(size), pc_saved *saved)
{
    pool_layer *self = (pool_layer *)layer;
    pc_input input;
    pc_pool_config config;
    pc_pool_plan plan;
    if (!open_input(self, value, &input, &config, &plan)) {
        return NULL;
    }
    bool return_indices = self->return_indices;
    PyObject *indices = NULL, *result = NULL;
    PyObject *output = pc_max_pool_run_forward(layer->state, &plan, layer->name, input.natural, &input,
                                               saved || return_indices ? &indices : NULL);
    if (output && return_indices) {
        /* The user may do to theirs what they like: backward trusts nobody's but its own. */
        PyObject *theirs = saved ? pc_array_copy(indices) : Py_NewRef(indices);
        result = theirs ? PyTuple_Pack(2, output, theirs) : NULL;
        Py_XDECREF(theirs);
    } else if (output) {
        result = Py_NewRef(output);
    }
    if (result) {
        save(saved, &input, indices);
    }
    Py_XDECREF(output);
    Py_XDECREF(indices);
    pc_input_close(&input);
    return result;
}

static PyObject *avg_forward(pc_layer *layer, PyObject *value, PyObject *Py_UNUSED(size), pc_saved *saved)
{
    pc_input input;
    pc_pool_config config;
    pc_pool_plan plan;
    if (!open_input((pool_layer *)layer, value, &input, &config, &plan)) {
        return NULL;
    }
    PyObject *output = pc_avg_pool_run_forward(layer->state, &plan, &config, layer->name, input.natural, &input);
    if (output) {
        save(saved, &input, NULL);
    }
    pc_input_close(&input);
    return output;
}

/* A gradient of the planned shape, in the forward's type. */
static bool open_grad(const pc_pool_plan *plan, const pc_saved *saved, const char *who, pc_input *grad_output)
{
    return pc_check_grad_shape(who, grad_output, plan->out_shape, plan->rank) &&
           pc_input_settle(grad_output, saved->dtype, who, "grad_output");
}

static PyObject *max_backward(pc_layer *layer, const pc_saved *saved, PyObject *value, bool input_grad)
{
    const char *who = layer->name;
    pc_input grad_output, indices = {.array = NULL};
    PyObject *gradient = NULL;
    pc_pool_plan plan;
    if (!pc_input_open(&grad_output, value, who, "grad_output")) {
        return NULL;
    }
    /* The indices say all about the forward, so a layer that was made anew since does not matter. */
    if (pc_input_open_indices(&indices, saved->array, who, "the saved indices") &&
        pc_pool_plan_indices(&plan, who, saved->shape, saved->rank, &indices) &&
        open_grad(&plan, saved, who, &grad_output) && pc_input_settle_indices(&indices, who, "the saved indices")) {
        gradient = input_grad ? pc_max_pool_run_backward(layer->state, &plan, who, saved->dtype, &grad_output, &indices)
                              : Py_NewRef(Py_None);
    }
    pc_input_close(&indices);
    pc_input_close(&grad_output);
    return gradient;
}

static PyObject *avg_backward(pc_layer *layer, const pc_saved *saved, PyObject *value, bool input_grad)
{
    const char *who = layer->name;
    pc_input grad_output;
    PyObject *gradient = NULL;
    pc_pool_plan plan;
    if (!pc_input_open(&grad_output, value, who, "grad_output")) {
        return NULL;
    }
    pc_pool_config config = ((pool_layer *)layer)->config;
    if (pc_pool_plan_shape(&plan, &config, who, saved->shape, saved->rank) &&
        open_grad(&plan, saved, who, &grad_output)) {
        gradient = input_grad ? pc_avg_pool_run_backward(layer->state, &plan, &config, who, saved->dtype, &grad_output)
                              : Py_NewRef(Py_None);
    }
    pc_input_close(&grad_output);
    return gradient;
}

static bool output_shape(pc_layer *layer, const int64_t shape[4], int rank, int64_t out_shape[4])
{
    pc_pool_plan plan;
    if (!pc_pool_plan_shape(&plan, &((pool_layer *)layer)->config, layer->name, shape, rank)) {
        return false;
    }
    memcpy(out_shape, plan.out_shape, sizeof plan.out_shape);
    return true;
}

/* ---- life ---- */

static int traverse(PyObject *object, visitproc visit, void *arg)
{
    for (int i = 0; i < GIVEN; i++) {
        Py_VISIT(((pool_layer *)object)->given[i]);
    }
    return pc_layer_traverse(object, visit, arg);
}

static int clear(PyObject *object)
{
    pool_layer *self = (pool_layer *)object;
    self->layer.ready = false;
    for (int i = 0; i < GIVEN; i++) {
        Py_CLEAR(self->given[i]);
    }
    return pc_layer_clear(object);
}

static const pc_layer_kind max_kind = {
    {"MaxPool2d.forward", {"input", NULL}, 1, 1}, max_forward, max_backward, output_shape, clear};
static const pc_layer_kind avg_kind = {
    {"AvgPool2d.forward", {"input", NULL}, 1, 1}, avg_forward, avg_backward, output_shape, clear};

static PyObject *max_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return pc_layer_new(type, &max_kind);
}

static PyObject *avg_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return pc_layer_new(type, &avg_kind);
}

static void drop_given(PyObject *given[GIVEN])
{
    for (int i = 0; i < GIVEN; i++) {
        Py_CLEAR(given[i]);
    }
}

/* The four values that both constructors take, parsed and as written. `values[DILATION]` is NULL for the average. */
static bool parse_window(PyObject *const values[GIVEN], const char *who, pc_window *window, PyObject *given[GIVEN])
{
    for (int i = 0; i < GIVEN; i++) {
        given[i] = NULL;
    }
    if (!pc_parse_pair(values[KERNEL_SIZE], who, "kernel_size", PC_WORDS_POOL, window->kernel) ||
        !pc_parse_pool_stride(values[STRIDE], who, window->kernel, window->stride) ||
        !pc_parse_symmetric_padding(values[PADDING], who, PC_WORDS_POOL, window) ||
        !pc_parse_pair(values[DILATION], who, "dilation", PC_WORDS_POOL, window->dilation)) {
        return false;
    }
    bool strided = values[STRIDE] && values[STRIDE] != Py_None;
    int64_t padding[2] = {window->pad[0][0], window->pad[1][0]};
    given[KERNEL_SIZE] = pc_pair_as_given(values[KERNEL_SIZE], window->kernel);
    given[STRIDE] = pc_pair_as_given(strided ? values[STRIDE] : values[KERNEL_SIZE], window->stride);
    given[PADDING] = pc_pair_as_given(values[PADDING], padding);
    given[DILATION] = pc_pair_as_given(values[DILATION], window->dilation);
    for (int i = 0; i < GIVEN; i++) {
        if (!given[i]) {
            drop_given(given);
            return false;
        }
    }
    return true;
}

/* Takes over `given` in any case. */
static int become(pool_layer *self, const char *type_name, pc_pool_config *config, PyObject *given[GIVEN],
                  bool return_indices)
{
    char name[PC_LAYER_NAME];
    const int64_t *kernel = config->window.kernel;
    if (kernel[0] == kernel[1]) {
        snprintf(name, sizeof name, "%s(kernel_size=%lld)", type_name, (long long)kernel[0]);
    } else {
        snprintf(name, sizeof name, "%s(kernel_size=(%lld, %lld))", type_name, (long long)kernel[0],
                 (long long)kernel[1]);
    }
    if (!pc_pool_check(config, name)) {
        drop_given(given);
        return -1;
    }
    PyObject *old[GIVEN];
    memcpy(old, self->given, sizeof old);
    memcpy(self->given, given, sizeof old);
    self->config = *config;
    self->return_indices = return_indices;
    pc_layer_ready(&self->layer, name);
    drop_given(old);
    return 0;
}

static int max_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static const pc_signature signature = {
        "MaxPool2d", {"kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode", NULL}, 1, 6};
    static const char who[] = "MaxPool2d";
    PyObject *values[PC_MAX_ARGUMENTS], *given[GIVEN];
    pc_pool_config config;
    pc_pool_config_init(&config);
    bool return_indices = false;
    if (!pc_bind_tuple(&signature, args, kwargs, values) ||
        !pc_parse_flag(values[4], who, "return_indices", &return_indices) ||
        !pc_parse_flag(values[5], who, "ceil_mode", &config.window.ceil_mode) ||
        !parse_window(values, who, &config.window, given)) {
        return -1;
    }
    return become((pool_layer *)object, who, &config, given, return_indices);
}

static int avg_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static const pc_signature signature = {
        "AvgPool2d",
        {"kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override", NULL},
        1,
        6};
    static const char who[] = "AvgPool2d";
    PyObject *values[PC_MAX_ARGUMENTS], *given[GIVEN];
    pc_pool_config config;
    pc_pool_config_init(&config);
    if (!pc_bind_tuple(&signature, args, kwargs, values) ||
        !pc_parse_flag(values[3], who, "ceil_mode", &config.window.ceil_mode) ||
        !pc_parse_flag(values[4], who, "count_include_pad", &config.count_include_pad) ||
        !pc_parse_divisor(values[5], who, &config.divisor)) {
        return -1;
    }
    PyObject *const window_values[GIVEN] = {values[0], values[1], values[2], NULL};
    if (!parse_window(window_values, who, &config.window, given)) {
        return -1;
    }
    return become((pool_layer *)object, who, &config, given, false);
}

/* ---- attributes ---- */

static PyObject *get_given(PyObject *object, void *which)
{
    if (!pc_layer_check((pc_layer *)object)) {
        return NULL;
    }
    PyObject *value = ((pool_layer *)object)->given[(intptr_t)which];
    /* A list could be changed, and the layer would not follow: each reader has one of their own. */
    return PyList_CheckExact(value) ? PyList_GetSlice(value, 0, PyList_GET_SIZE(value)) : Py_NewRef(value);
}

static PyObject *get_flag(PyObject *object, void *offset)
{
    return pc_layer_check((pc_layer *)object) ? PyBool_FromLong(*((bool *)object + (size_t)offset)) : NULL;
}

static PyObject *get_divisor(PyObject *object, void *Py_UNUSED(closure))
{
    if (!pc_layer_check((pc_layer *)object)) {
        return NULL;
    }
    int64_t divisor = ((pool_layer *)object)->config.divisor;
    return divisor ? PyLong_FromLongLong(divisor) : Py_NewRef(Py_None);
}

static PyObject *make_config(PyObject *object, const char *const *names)
{
    PyObject *config = pc_layer_check((pc_layer *)object) ? PyDict_New() : NULL;
    for (; config && *names; names++) {
        if (!pc_dict_take(config, *names, PyObject_GetAttrString(object, *names))) {
            Py_CLEAR(config);
        }
    }
    return config;
}

static PyObject *max_config(PyObject *object, PyObject *Py_UNUSED(unused))
{
    static const char *const names[] = {"kernel_size",    "stride",    "padding", "dilation",
                                        "return_indices", "ceil_mode", NULL};
    return make_config(object, names);
}

static PyObject *avg_config(PyObject *object, PyObject *Py_UNUSED(unused))
{
    static const char *const names[] = {"kernel_size",       "stride",           "padding", "ceil_mode",
                                        "count_include_pad", "divisor_override", NULL};
    return make_config(object, names);
}

static PyObject *explain(PyObject *object, bool max, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    pc_layer *layer = (pc_layer *)object;
    pc_explain_arguments given = {.dtype = PC_F32};
    pc_pool_plan plan;
    if (!pc_layer_check(layer) || !pc_explain_bind(&given, layer->name, args, count, names) ||
        !pc_pool_plan_shape(&plan, &((pool_layer *)object)->config, layer->name, given.shape, given.rank)) {
        return NULL;
    }
    return pc_explain_pool(layer->state, &plan, layer->name, given.dtype, max);
}

static PyObject *max_explain(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return explain(self, true, args, count, names);
}

static PyObject *avg_explain(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return explain(self, false, args, count, names);
}

PyDoc_STRVAR(config_doc, "_config($self, /)\n--\n\nThe constructor's keyword arguments.");

static PyMethodDef max_methods[] = {
    {"_config", max_config, METH_NOARGS, config_doc},
    {"_explain", PC_FASTCALL(max_explain), METH_FASTCALL | METH_KEYWORDS, PC_EXPLAIN_DOC},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef avg_methods[] = {
    {"_config", avg_config, METH_NOARGS, config_doc},
    {"_explain", PC_FASTCALL(avg_explain), METH_FASTCALL | METH_KEYWORDS, PC_EXPLAIN_DOC},
    {NULL, NULL, 0, NULL},
};

#define AT(field) (void *)offsetof(pool_layer, field)

#define WINDOW_ATTRIBUTES                                                                                              \
    {"kernel_size", get_given, NULL, "The window, as it was given.", (void *)KERNEL_SIZE},                             \
        {"stride", get_given, NULL, "How far the window moves, as it was given.", (void *)STRIDE},                     \
        {"padding", get_given, NULL, "Padding on both sides, as it was given.", (void *)PADDING},                      \
    {                                                                                                                  \
        "ceil_mode", get_flag, NULL, "Is the output's size rounded up?", AT(config.window.ceil_mode)                   \
    }

static PyGetSetDef max_getset[] = {
    WINDOW_ATTRIBUTES,
    {"dilation", get_given, NULL, "Distance of neighbouring taps, as it was given.", (void *)DILATION},
    {"return_indices", get_flag, NULL, "Does forward return (output, indices)?", AT(return_indices)},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyGetSetDef avg_getset[] = {
    WINDOW_ATTRIBUTES,
    {"count_include_pad", get_flag, NULL, "Does the divisor count padding?", AT(config.count_include_pad)},
    {"divisor_override", get_divisor, NULL, "Divides every sum, unless it is None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* ---- types ---- */

PyDoc_STRVAR(max_doc, "MaxPool2d(kernel_size, stride=None, padding=0, dilation=1, return_indices=False, "
                      "ceil_mode=False)\n--\n\n"
                      "The max pooling layer without its Python side.");

static PyType_Slot max_slots[] = {
    {Py_tp_doc, (void *)max_doc},
    {Py_tp_new, max_new},
    {Py_tp_init, max_init},
    {Py_tp_methods, max_methods},
    {Py_tp_getset, max_getset},
    {Py_tp_members, pc_layer_members},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_dealloc, pc_layer_dealloc},
    {0, NULL},
};

static PyType_Spec max_spec = {
    .name = "pyconv._core.MaxPool2d",
    .basicsize = sizeof(pool_layer),
    .flags = PC_LAYER_FLAGS,
    .slots = max_slots,
};

PyDoc_STRVAR(avg_doc, "AvgPool2d(kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, "
                      "divisor_override=None)\n--\n\n"
                      "The average pooling layer without its Python side.");

static PyType_Slot avg_slots[] = {
    {Py_tp_doc, (void *)avg_doc},
    {Py_tp_new, avg_new},
    {Py_tp_init, avg_init},
    {Py_tp_methods, avg_methods},
    {Py_tp_getset, avg_getset},
    {Py_tp_members, pc_layer_members},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_dealloc, pc_layer_dealloc},
    {0, NULL},
};

static PyType_Spec avg_spec = {
    .name = "pyconv._core.AvgPool2d",
    .basicsize = sizeof(pool_layer),
    .flags = PC_LAYER_FLAGS,
    .slots = avg_slots,
};

int pc_add_pools(PyObject *module, pc_state *state)
{
    PyType_Spec *specs[2] = {&max_spec, &avg_spec};
    for (int i = 0; i < 2; i++) {
        PyTypeObject *type = pc_add_type(module, specs[i], state->layer);
        if (!type) {
            return -1;
        }
        Py_DECREF(type); /* the module has it */
    }
    return 0;
}
