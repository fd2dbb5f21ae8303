/* pullback.c: what vjp returns beside the output. It holds the layer and what its forward saved, so the layer itself
 * stays as it was, and any number of pullbacks of one layer live side by side. */
#include "py/layer.h"

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    pc_layer *layer; /* NULL after a clear */
    pc_saved saved;
} pc_pullback;

static PyObject *pullback_vectorcall(PyObject *object, PyObject *const *args, size_t flags_and_count, PyObject *names)
{
    pc_pullback *self = (pc_pullback *)object;
    if (!self->layer) {
        PyErr_SetString(PyExc_RuntimeError, "pullback: its layer is gone");
        return NULL;
    }
    pc_layer *layer = (pc_layer *)Py_NewRef(self->layer);
    PyObject *gradient =
        pc_layer_pull(layer, &self->saved, "pullback", args, PyVectorcall_NARGS(flags_and_count), names);
    Py_DECREF(layer);
    return gradient;
}

static int traverse(PyObject *object, visitproc visit, void *arg)
{
    pc_pullback *self = (pc_pullback *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->layer);
    Py_VISIT(self->saved.array);
    return 0;
}

static int clear(PyObject *object)
{
    pc_pullback *self = (pc_pullback *)object;
    Py_CLEAR(self->layer);
    Py_CLEAR(self->saved.array);
    return 0;
}

static void dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *repr(PyObject *object)
{
    pc_pullback *self = (pc_pullback *)object;
    return PyUnicode_FromFormat("<pullback of %s>", self->layer ? self->layer->name : "nothing");
}

PyObject *pc_pullback_new(pc_state *state, pc_layer *layer, pc_saved *saved)
{
    pc_pullback *self = PyObject_GC_New(pc_pullback, state->pullback);
    if (!self) {
        Py_CLEAR(saved->array);
        return NULL;
    }
    self->vectorcall = pullback_vectorcall;
    self->layer = (pc_layer *)Py_NewRef(layer);
    self->saved = *saved;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(pc_pullback, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(doc,
             "What vjp returns beside the output.\n\n"
             "pullback(grad_output, input_grad=True) is the input's gradient (None if it is not wanted), and adds to\n"
             "the gradients of the parameters.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)doc},   {Py_tp_members, members}, {Py_tp_call, PyVectorcall_Call}, {Py_tp_repr, repr},
    {Py_tp_traverse, traverse}, {Py_tp_clear, clear},     {Py_tp_dealloc, dealloc},        {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyconv._core.Pullback",
    .basicsize = sizeof(pc_pullback),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

int pc_add_pullback(PyObject *module, pc_state *state)
{
    state->pullback = pc_add_type(module, &spec, NULL);
    return state->pullback ? 0 : -1;
}
