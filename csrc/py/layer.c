/* layer.c: see layer.h. */
#include "py/layer.h"

#include <stddef.h>
#include <string.h>

/* ---- life ---- */

static PyObject *layer_vectorcall(PyObject *self, PyObject *const *args, size_t flags_and_count, PyObject *names);

PyMemberDef pc_layer_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(pc_layer, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyObject *pc_layer_new(PyTypeObject *type, const pc_layer_kind *kind)
{
    PyObject *module = PyType_GetModuleByDef(type, &pc_module);
    pc_layer *layer = module ? (pc_layer *)type->tp_alloc(type, 0) : NULL;
    if (layer) {
        layer->vectorcall = layer_vectorcall;
        layer->state = pc_state_of(module);
        layer->kind = kind;
        layer->training = true;
    }
    return (PyObject *)layer;
}

void pc_layer_forget(pc_layer *layer)
{
    PyObject *forgotten = layer->saved.array;
    layer->saved = (pc_saved){.array = NULL};
    layer->calls = 0;
    Py_XDECREF(forgotten); /* last: it may run any Python code */
}

void pc_layer_ready(pc_layer *layer, const char *name)
{
    layer->training = true;
    layer->ready = true;
    memset(layer->name, 0, sizeof layer->name);
    memcpy(layer->name, name, strnlen(name, sizeof layer->name - 1));
    pc_layer_forget(layer);
}

bool pc_layer_check(pc_layer *layer)
{
    if (!layer->ready) {
        PyErr_Format(PyExc_RuntimeError, "%.100s: its __init__ was not called, or did not succeed",
                     Py_TYPE(layer)->tp_name);
    }
    return layer->ready;
}

int pc_layer_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((pc_layer *)self)->saved.array);
    return 0;
}

int pc_layer_clear(PyObject *self)
{
    pc_layer *layer = (pc_layer *)self;
    layer->saved.rank = 0;
    Py_CLEAR(layer->saved.array);
    return 0;
}

void pc_layer_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    /* The C type's own clear: a Python subclass has another one, and its dealloc has called it. */
    ((pc_layer *)self)->kind->clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- forward ---- */

static bool bind_input(pc_layer *layer, PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject **values)
{
    if (!pc_layer_check(layer)) {
        return false;
    }
    if (count == 1 && !names) {
        values[0] = args[0];
        values[1] = NULL;
        return true;
    }
    values[1] = NULL;
    return pc_bind(&layer->kind->forward_signature, args, count, names, values);
}

PyObject *pc_layer_forward(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    pc_layer *layer = (pc_layer *)self;
    PyObject *values[PC_MAX_ARGUMENTS];
    if (!bind_input(layer, args, count, names, values)) {
        return NULL;
    }
    pc_saved saved = {.array = NULL};
    PyObject *output = layer->kind->forward(layer, values[0], values[1], layer->training ? &saved : NULL);
    if (output) {
        /* In eval mode this forgets what an earlier forward left: a backward now would belong to nothing. */
        PyObject *forgotten = layer->saved.array;
        layer->saved = saved;
        layer->calls = saved.rank == 0 ? 0 : layer->answered ? 1 : layer->calls + 1;
        layer->answered = false;
        Py_XDECREF(forgotten);
    }
    return output;
}

/* Is this what self.forward gives when nobody has overridden it? */
static bool is_own_forward(PyObject *forward, PyObject *self)
{
    return PyCFunction_Check(forward) && PyCFunction_GET_FUNCTION(forward) == PC_FASTCALL(pc_layer_forward) &&
           PyCFunction_GET_SELF(forward) == self;
}

static PyObject *layer_vectorcall(PyObject *self, PyObject *const *args, size_t flags_and_count, PyObject *names)
{
    pc_layer *layer = (pc_layer *)self;
    if (layer->watched) {
        PyObject *watched = PyObject_GetAttr(self, layer->state->watched_name);
        PyObject *output = watched ? PyObject_Vectorcall(watched, args, flags_and_count, names) : NULL;
        Py_XDECREF(watched);
        return output;
    }
    PyObject *forward = PyObject_GetAttr(self, layer->state->forward_name);
    if (!forward) {
        return NULL;
    }
    PyObject *output = is_own_forward(forward, self)
                           ? pc_layer_forward(self, args, PyVectorcall_NARGS(flags_and_count), names)
                           : PyObject_Vectorcall(forward, args, flags_and_count, names);
    Py_DECREF(forward);
    return output;
}

/* ---- backward ---- */

PyObject *pc_layer_pull(pc_layer *layer, const pc_saved *saved, const char *who, PyObject *const *args,
                        Py_ssize_t count, PyObject *names)
{
    const pc_signature signature = {who, {"grad_output", "input_grad", NULL}, 1, 2};
    PyObject *values[PC_MAX_ARGUMENTS];
    bool input_grad = true;
    pc_saved kept = *saved;
    Py_XINCREF(kept.array);
    PyObject *gradient = NULL;
    if (pc_bind(&signature, args, count, names, values) && pc_parse_truth(values[1], &input_grad)) {
        gradient = layer->kind->backward(layer, &kept, values[0], input_grad);
    }
    Py_XDECREF(kept.array);
    return gradient;
}

static PyObject *layer_backward(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    pc_layer *layer = (pc_layer *)self;
    if (!pc_layer_check(layer)) {
        return NULL;
    }
    if (layer->saved.rank == 0) {
        PyErr_Format(PyExc_RuntimeError, "%s: backward needs a forward in training mode before it; %s", layer->name,
                     layer->training ? "call the layer first" : "in eval mode nothing is kept for it, but vjp works");
        return NULL;
    }
    if (layer->answered && layer->calls > 1) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s: backward was called again after %lld forwards, and only knows the last of them; use "
                     "`y, pullback = layer.vjp(x)`, which gives each call a pullback of its own",
                     layer->name, (long long)layer->calls);
        return NULL;
    }
    PyObject *gradient = pc_layer_pull(layer, &layer->saved, "backward", args, count, names);
    if (gradient) {
        layer->answered = true;
    }
    return gradient;
}

static PyObject *layer_forget(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pc_layer_forget((pc_layer *)self);
    Py_RETURN_NONE;
}

PyObject *pc_layer_vjp(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    pc_layer *layer = (pc_layer *)self;
    PyObject *forward = PyObject_GetAttr(self, layer->state->forward_name);
    if (!forward) {
        return NULL;
    }
    PyObject *output = NULL, *pullback = NULL, *pair = NULL;
    if (is_own_forward(forward, self)) {
        PyObject *values[PC_MAX_ARGUMENTS];
        pc_saved saved = {.array = NULL};
        if (bind_input(layer, args, count, names, values)) {
            output = layer->kind->forward(layer, values[0], values[1], &saved);
        }
        pullback = output ? pc_pullback_new(layer->state, layer, &saved) : NULL;
    } else {
        /* A subclass' own forward brings its own backward, as any user's module does. */
        output = PyObject_Vectorcall(forward, args, (size_t)count, names);
        pullback = output ? PyObject_GetAttrString(self, "backward") : NULL;
    }
    if (pullback) {
        pair = PyTuple_Pack(2, output, pullback);
    }
    Py_DECREF(forward);
    Py_XDECREF(output);
    Py_XDECREF(pullback);
    return pair;
}

/* ---- the rest ---- */

static PyObject *layer_output_shape(PyObject *self, PyObject *value)
{
    pc_layer *layer = (pc_layer *)self;
    int64_t shape[4], out_shape[4];
    int rank;
    if (!pc_layer_check(layer) || !pc_parse_shape(value, layer->name, "input_shape", shape, &rank) ||
        !layer->kind->output_shape(layer, shape, rank, out_shape)) {
        return NULL;
    }
    return pc_shape_object(out_shape, rank);
}

static PyObject *get_training(PyObject *self, void *Py_UNUSED(closure))
{
    pc_layer *layer = (pc_layer *)self;
    return pc_layer_check(layer) ? PyBool_FromLong(layer->training) : NULL;
}

static PyObject *get_watched(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((pc_layer *)self)->watched);
}

static int set_watched(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (!value) {
        PyErr_SetString(PyExc_AttributeError, "_watched cannot be deleted");
        return -1;
    }
    return pc_parse_truth(value, &((pc_layer *)self)->watched) ? 0 : -1;
}

static int set_training(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    pc_layer *layer = (pc_layer *)self;
    if (!value) {
        PyErr_SetString(PyExc_AttributeError, "training cannot be deleted");
        return -1;
    }
    return pc_layer_check(layer) && pc_parse_truth(value, &layer->training) ? 0 : -1;
}

PyDoc_STRVAR(forward_doc, "forward($self, /, input)\n--\n\n"
                          "The layer's output, a new array. In training mode keeps what backward needs.");
PyDoc_STRVAR(vjp_doc, "vjp($self, /, input)\n--\n\n"
                      "(output, pullback): works in any mode and leaves what backward would use alone.");
PyDoc_STRVAR(backward_doc, "backward($self, /, grad_output, input_grad=True)\n--\n\n"
                           "The gradient with respect to the last training-mode input, or None if not wanted.\n\n"
                           "Adds to the gradients of the parameters.");
PyDoc_STRVAR(output_shape_doc, "output_shape($self, input_shape, /)\n--\n\n"
                               "The shape that an input of shape (N, C, H, W) or (C, H, W) would give.");

static PyMethodDef methods[] = {
    {"forward", PC_FASTCALL(pc_layer_forward), METH_FASTCALL | METH_KEYWORDS, forward_doc},
    {"vjp", PC_FASTCALL(pc_layer_vjp), METH_FASTCALL | METH_KEYWORDS, vjp_doc},
    {"backward", PC_FASTCALL(layer_backward), METH_FASTCALL | METH_KEYWORDS, backward_doc},
    {"output_shape", layer_output_shape, METH_O, output_shape_doc},
    {"_forget", layer_forget, METH_NOARGS, "Drop what the last forward kept for backward."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"training", get_training, set_training, "Does forward keep what backward needs?", NULL},
    {"_watched", get_watched, set_watched, "Do calls go through _watched_call?", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "What all layers share."}, {Py_tp_methods, methods},          {Py_tp_getset, getset},
    {Py_tp_members, pc_layer_members},     {Py_tp_call, PyVectorcall_Call},   {Py_tp_traverse, pc_layer_traverse},
    {Py_tp_clear, pc_layer_clear},         {Py_tp_dealloc, pc_layer_dealloc}, {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyconv._core._Layer",
    .basicsize = sizeof(pc_layer),
    .flags = PC_LAYER_FLAGS | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

PyTypeObject *pc_add_type(PyObject *module, PyType_Spec *type_spec, PyTypeObject *base)
{
    PyObject *type = PyType_FromModuleAndSpec(module, type_spec, (PyObject *)base);
    if (type && PyModule_AddType(module, (PyTypeObject *)type) < 0) {
        Py_CLEAR(type);
    }
    return (PyTypeObject *)type;
}

int pc_add_layers(PyObject *module, pc_state *state)
{
    state->layer = pc_add_type(module, &spec, NULL);
    return state->layer ? 0 : -1;
}
