/* conv.c: Conv1d, Conv2d and ConvTranspose2d. One struct and one life for all; what differs is which arguments the
 * constructor takes, and flags in the configuration. Their common base is the type `_Conv`, with all attributes.
 */
#include "py/convolve.h"
#include "py/explain.h"
#include "py/parameters.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    pc_owner owner;
    pc_conv_config config;
} conv_layer;

/* ---- forward and backward ---- */

static PyObject *forward(pc_layer *layer, PyObject *value, PyObject *size_value, pc_saved *saved)
{
    conv_layer *self = (conv_layer *)layer;
    pc_input input;
    pc_saved made = {.array = NULL};
    if (!pc_conv_open(&self->config, &input, value, layer->name, "input")) {
        return NULL;
    }
    PyObject *output = NULL, *weight = NULL, *bias = NULL;
    if (size_value && (input.rank == 3 || input.rank == 4) &&
        !pc_parse_output_size(size_value, layer->name, input.rank, &made.sized, made.output_size)) {
        goto exit;
    }
    /* From here on the layer is read, and what is read stays: no Python code can run between the next lines, and
     * whatever runs later finds copies and references. */
    if (!pc_owner_check_parameters(&self->owner)) {
        goto exit;
    }
    pc_conv_config config = self->config;
    pc_dtype dtype = self->owner.dtype;
    weight = Py_NewRef(self->owner.parameters[PC_WEIGHT]);
    bias = Py_XNewRef(self->owner.parameters[PC_BIAS]);
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
    if (!pc_conv_open(&self->config, &grad_output, value, layer->name, "grad_output")) {
        return NULL;
    }
    if (!open_saved(&input, saved, layer->name) || !pc_owner_check_parameters(&self->owner)) {
        goto exit;
    }
    pc_conv_config config = self->config;
    pc_dtype dtype = self->owner.dtype;
    bool mask[3] = {input_grad, self->owner.requires_grad[PC_WEIGHT],
                    self->owner.parameters[PC_BIAS] && self->owner.requires_grad[PC_BIAS]};
    weight = Py_NewRef(self->owner.parameters[PC_WEIGHT]);
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
        pc_owner_add_gradients(&self->owner, gradients + 1)) {
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

static const pc_layer_kind conv_kind = {
    {"Conv2d.forward", {"input", NULL}, 1, 1}, forward, backward, output_shape, pc_owner_clear};
static const pc_layer_kind line_kind = {
    {"Conv1d.forward", {"input", NULL}, 1, 1}, forward, backward, output_shape, pc_owner_clear};
static const pc_layer_kind transpose_kind = {
    {"ConvTranspose2d.forward", {"input", "output_size", NULL}, 1, 2}, forward, backward, output_shape, pc_owner_clear};

static PyObject *conv_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return pc_layer_new(type, &conv_kind);
}

static PyObject *line_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return pc_layer_new(type, &line_kind);
}

static PyObject *transpose_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return pc_layer_new(type, &transpose_kind);
}

/* Everything is built before anything is replaced, so a constructor that fails on an old layer leaves it whole. */
static int become(conv_layer *self, const pc_conv_config *config, pc_dtype dtype, bool has_bias, const char *name)
{
    pc_form forms[2] = {{.rank = config->line ? 3 : 4}, {.rank = has_bias ? 1 : 0, .shape = {config->out_channels}}};
    int64_t *shape = forms[PC_WEIGHT].shape;
    PyObject *fresh[2];
    pc_conv_weight_shape(config, shape);
    if (config->line) {
        shape[2] = shape[3];
    }
    if (!pc_owner_make(forms, dtype, name, fresh)) {
        return -1;
    }
    self->config = *config;
    pc_owner_become(&self->owner, forms, dtype, fresh, name);
    return 0;
}

/* Conv1d and Conv2d differ in what a size may look like. */
static int init(PyObject *object, const char *who, bool line, PyObject *args, PyObject *kwargs)
{
    const pc_signature signature = {who,
                                    {"in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation",
                                     "groups", "bias", "padding_mode", "device", "dtype", NULL},
                                    3,
                                    11};
    PyObject *values[PC_MAX_ARGUMENTS];
    pc_conv_config config;
    pc_conv_config_init(&config, false);
    config.line = line;
    pc_window *window = &config.window;
    bool bias = true;
    pc_dtype dtype = PC_F32;
    if (!pc_bind_tuple(&signature, args, kwargs, values) ||
        !pc_parse_int(values[0], who, "in_channels", &config.in_channels) ||
        !pc_parse_int(values[1], who, "out_channels", &config.out_channels) ||
        !pc_conv_parse_size(values[2], who, "kernel_size", line, window->kernel) ||
        !pc_conv_parse_size(values[3], who, "stride", line, window->stride) ||
        !pc_conv_parse_padding(values[4], who, &config) ||
        !pc_conv_parse_size(values[5], who, "dilation", line, window->dilation) ||
        !pc_parse_int(values[6], who, "groups", &config.groups) || !pc_parse_truth(values[7], &bias) ||
        !pc_parse_padding_mode(values[8], who, &window->pad_mode) || !pc_parse_device(values[9], who) ||
        !pc_parse_dtype(values[10], who, &dtype)) {
        return -1;
    }
    char name[PC_LAYER_NAME];
    snprintf(name, sizeof name, "%s(%lld, %lld)", who, (long long)config.in_channels, (long long)config.out_channels);
    return pc_conv_check(&config, name) ? become((conv_layer *)object, &config, dtype, bias, name) : -1;
}

static int conv_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    return init(object, "Conv2d", false, args, kwargs);
}

static int line_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    return init(object, "Conv1d", true, args, kwargs);
}

/* Torch asks this before all else. */
static bool check_transposed_mode(PyObject *value, const char *who)
{
    pc_pad_mode mode = PC_PAD_ZEROS;
    if (value && PyUnicode_Check(value) && PyUnicode_CompareWithASCIIString(value, "zeros") != 0) {
        PyErr_Format(PyExc_ValueError,
                     "%s: Only \"zeros\" padding mode is supported for ConvTranspose2d, but got padding_mode=%.100R",
                     who, value);
        return false;
    }
    return pc_parse_padding_mode(value, who, &mode);
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

/* ---- attributes ---- */

static PyObject *get_number(PyObject *object, void *offset)
{
    return pc_layer_check((pc_layer *)object) ? PyLong_FromLongLong(*(int64_t *)((char *)object + (size_t)offset))
                                              : NULL;
}

static PyObject *get_pair(PyObject *object, void *offset)
{
    if (!pc_layer_check((pc_layer *)object)) {
        return NULL;
    }
    const int64_t *pair = (int64_t *)((char *)object + (size_t)offset);
    return ((conv_layer *)object)->config.line ? Py_BuildValue("(L)", (long long)pair[1]) : pc_pair_object(pair);
}

static PyObject *get_padding(PyObject *object, void *Py_UNUSED(closure))
{
    const pc_conv_config *config = &((conv_layer *)object)->config;
    const int64_t(*pad)[2] = config->window.pad;
    if (!pc_layer_check((pc_layer *)object)) {
        return NULL;
    }
    switch (config->window.pad_rule) {
    case PC_PAD_SAME:
        return PyUnicode_FromString("same");
    case PC_PAD_VALID:
        return PyUnicode_FromString("valid");
    case PC_PAD_NUMBERS:
        break;
    }
    if (config->line) {
        return config->per_side ? Py_BuildValue("((LL))", (long long)pad[1][0], (long long)pad[1][1])
                                : Py_BuildValue("(L)", (long long)pad[1][0]);
    }
    return config->per_side ? Py_BuildValue("((LL)(LL))", (long long)pad[0][0], (long long)pad[0][1],
                                            (long long)pad[1][0], (long long)pad[1][1])
                            : Py_BuildValue("(LL)", (long long)pad[0][0], (long long)pad[1][0]);
}

static PyObject *get_padding_mode(PyObject *object, void *Py_UNUSED(closure))
{
    return pc_layer_check((pc_layer *)object)
               ? PyUnicode_FromString(pc_padding_mode_name(((conv_layer *)object)->config.window.pad_mode))
               : NULL;
}

static PyObject *get_transposed(PyObject *object, void *Py_UNUSED(closure))
{
    return pc_layer_check((pc_layer *)object) ? PyBool_FromLong(((conv_layer *)object)->config.transposed) : NULL;
}

/* The constructor's keyword arguments, for pickling: what they say is what the attributes say. */
static PyObject *get_config(PyObject *object, PyObject *Py_UNUSED(unused))
{
    static const char *const names[] = {"in_channels", "out_channels", "kernel_size",  "stride", "padding",
                                        "dilation",    "groups",       "padding_mode", "dtype"};
    const conv_layer *self = (conv_layer *)object;
    PyObject *config = pc_layer_check((pc_layer *)object) ? PyDict_New() : NULL;
    for (size_t i = 0; config && i < sizeof names / sizeof *names; i++) {
        if (!pc_dict_take(config, names[i], PyObject_GetAttrString(object, names[i]))) {
            Py_CLEAR(config);
        }
    }
    if (config && (!pc_dict_take(config, "bias", PyBool_FromLong(self->owner.parameters[PC_BIAS] != NULL)) ||
                   (self->config.transposed &&
                    !pc_dict_take(config, "output_padding", pc_pair_object(self->config.output_padding))))) {
        Py_CLEAR(config);
    }
    return config;
}

static PyObject *explain(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    pc_layer *layer = (pc_layer *)object;
    pc_explain_arguments given = {.dtype = PC_F32};
    pc_conv_plan plan;
    if (!pc_layer_check(layer) || !pc_explain_bind(&given, layer->name, args, count, names)) {
        return NULL;
    }
    const conv_layer *self = (conv_layer *)object;
    if (!pc_conv_plan_shape(&plan, &self->config, layer->name, given.shape, given.rank, NULL)) {
        return NULL;
    }
    return pc_explain_conv(layer->state, &plan, layer->name, given.has_dtype ? given.dtype : self->owner.dtype);
}

static PyMethodDef methods[] = {
    {"_explain", PC_FASTCALL(explain), METH_FASTCALL | METH_KEYWORDS, PC_EXPLAIN_DOC},
    {"_config", get_config, METH_NOARGS, "_config($self, /)\n--\n\nThe constructor's keyword arguments."},
    PC_OWNER_METHODS,
    {NULL, NULL, 0, NULL},
};

#define AT(field) (void *)offsetof(conv_layer, field)

static PyGetSetDef getset[] = {
    {"in_channels", get_number, NULL, "Channels of the input.", AT(config.in_channels)},
    {"out_channels", get_number, NULL, "Channels of the output.", AT(config.out_channels)},
    {"groups", get_number, NULL, "Blocks of channels that do not see each other.", AT(config.groups)},
    {"kernel_size", get_pair, NULL, "Height and width of the window.", AT(config.window.kernel)},
    {"stride", get_pair, NULL, "How far the window moves.", AT(config.window.stride)},
    {"dilation", get_pair, NULL, "Distance of neighbouring taps of the window.", AT(config.window.dilation)},
    {"output_padding", get_pair, NULL, "Rows and columns added to one side of the output.", AT(config.output_padding)},
    {"padding", get_padding, NULL, "(ph, pw), ((top, bottom), (left, right)), 'same' or 'valid'.", NULL},
    {"padding_mode", get_padding_mode, NULL, "zeros, reflect, replicate or circular.", NULL},
    {"transposed", get_transposed, NULL, "Is this a transposed convolution?", NULL},
    PC_OWNER_ATTRIBUTES,
    {NULL, NULL, NULL, NULL, NULL},
};

/* ---- types ---- */

static PyType_Slot base_slots[] = {
    {Py_tp_doc, "What the convolutions share."},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_tp_members, pc_layer_members},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_traverse, pc_owner_traverse},
    {Py_tp_clear, pc_owner_clear},
    {Py_tp_dealloc, pc_layer_dealloc},
    {0, NULL},
};

static PyType_Spec base_spec = {
    .name = "pyconv._core._Conv",
    .basicsize = sizeof(conv_layer),
    .flags = PC_LAYER_FLAGS | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = base_slots,
};

PyDoc_STRVAR(conv_doc, "Conv2d(in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, "
                       "bias=True, padding_mode='zeros', device=None, dtype=None)\n--\n\n"
                       "The convolution layer without its Python side; parameters start as zeros.");

static PyType_Slot conv_slots[] = {
    {Py_tp_doc, (void *)conv_doc},
    {Py_tp_new, conv_new},
    {Py_tp_init, conv_init},
    {Py_tp_members, pc_layer_members},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_traverse, pc_owner_traverse},
    {Py_tp_clear, pc_owner_clear},
    {Py_tp_dealloc, pc_layer_dealloc},
    {0, NULL},
};

static PyType_Spec conv_spec = {
    .name = "pyconv._core.Conv2d",
    .basicsize = sizeof(conv_layer),
    .flags = PC_LAYER_FLAGS,
    .slots = conv_slots,
};

PyDoc_STRVAR(line_doc, "Conv1d(in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, "
                       "bias=True, padding_mode='zeros', device=None, dtype=None)\n--\n\n"
                       "The convolution layer in one dimension without its Python side; parameters start as zeros.");

static PyType_Slot line_slots[] = {
    {Py_tp_doc, (void *)line_doc},
    {Py_tp_new, line_new},
    {Py_tp_init, line_init},
    {Py_tp_members, pc_layer_members},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_traverse, pc_owner_traverse},
    {Py_tp_clear, pc_owner_clear},
    {Py_tp_dealloc, pc_layer_dealloc},
    {0, NULL},
};

static PyType_Spec line_spec = {
    .name = "pyconv._core.Conv1d",
    .basicsize = sizeof(conv_layer),
    .flags = PC_LAYER_FLAGS,
    .slots = line_slots,
};

PyDoc_STRVAR(transpose_doc,
             "ConvTranspose2d(in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0, groups=1, "
             "bias=True, dilation=1, padding_mode='zeros', device=None, dtype=None)\n--\n\n"
             "The transposed convolution layer without its Python side; parameters start as zeros.");
PyDoc_STRVAR(transpose_forward_doc, "forward($self, /, input, output_size=None)\n--\n\n"
                                    "The layer's output, a new array. In training mode keeps what backward needs.");
PyDoc_STRVAR(transpose_vjp_doc, "vjp($self, /, input, output_size=None)\n--\n\n"
                                "(output, pullback): works in any mode and leaves what backward would use alone.");

static PyMethodDef transpose_methods[] = {
    {"forward", PC_FASTCALL(pc_layer_forward), METH_FASTCALL | METH_KEYWORDS, transpose_forward_doc},
    {"vjp", PC_FASTCALL(pc_layer_vjp), METH_FASTCALL | METH_KEYWORDS, transpose_vjp_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot transpose_slots[] = {
    {Py_tp_doc, (void *)transpose_doc},  {Py_tp_new, transpose_new},
    {Py_tp_init, transpose_init},        {Py_tp_methods, transpose_methods},
    {Py_tp_members, pc_layer_members},   {Py_tp_call, PyVectorcall_Call},
    {Py_tp_traverse, pc_owner_traverse}, {Py_tp_clear, pc_owner_clear},
    {Py_tp_dealloc, pc_layer_dealloc},   {0, NULL},
};

static PyType_Spec transpose_spec = {
    .name = "pyconv._core.ConvTranspose2d",
    .basicsize = sizeof(conv_layer),
    .flags = PC_LAYER_FLAGS,
    .slots = transpose_slots,
};

int pc_add_convs(PyObject *module, pc_state *state)
{
    state->conv = pc_add_type(module, &base_spec, state->layer);
    if (!state->conv) {
        return -1;
    }
    PyType_Spec *specs[3] = {&conv_spec, &line_spec, &transpose_spec};
    for (int i = 0; i < 3; i++) {
        PyTypeObject *type = pc_add_type(module, specs[i], state->conv);
        if (!type) {
            return -1;
        }
        Py_DECREF(type); /* the module has it */
    }
    return 0;
}
