/* layer.h: what all layers share: call, forward, vjp, backward, output_shape, training, and what is kept in between.
 *
 * A layer type begins its struct with pc_layer and fills a pc_layer_kind. Everything that Python can see of the shared
 * part is the type `_Layer`; the layers inherit it.
 *
 * Two rules hold everywhere. Converting an argument may run any Python code, which may call the layer again or even
 * initialise it anew: a layer's fields are read after its arguments were converted. And a layer changes only after
 * everything that can fail has succeeded.
 */
#ifndef PC_PY_LAYER_H
#define PC_PY_LAYER_H

#include "py/args.h"
#include "py/array.h"
#include "py/state.h"

#include <structmember.h>

/* What a backward needs of its forward. */
typedef struct {
    /* conv: the input, converted; max pool: its own indices; other pools: NULL; relu: (bits, shape);
     * batch norm: (the input, the statistics) */
    PyObject *array;
    int rank;               /* 0: nothing is saved */
    int64_t shape[4];       /* of the input, as it was */
    pc_dtype dtype;         /* of the forward */
    bool batch;             /* batch norm: by the statistics of this input */
    bool sized;             /* conv_transpose2d: forward was given an output_size */
    int64_t output_size[2]; /* that, and the adaptive pool's */
} pc_saved;

typedef struct pc_layer pc_layer;

typedef struct {
    pc_signature forward_signature; /* of forward, vjp and the call itself */
    /* `output_size` may be NULL. With `saved`, fills it (a strong reference) on success. */
    PyObject *(*forward)(pc_layer *layer, PyObject *input, PyObject *output_size, pc_saved *saved);
    /* The input's gradient or None; adds the parameters' gradients. Keeps no reference to what is in `saved`. */
    PyObject *(*backward)(pc_layer *layer, const pc_saved *saved, PyObject *grad_output, bool input_grad);
    bool (*output_shape)(pc_layer *layer, const int64_t shape[4], int rank, int64_t out_shape[4]);
    inquiry clear; /* drops every reference the C part of the object holds */
} pc_layer_kind;

enum { PC_LAYER_NAME = 96 };

struct pc_layer {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    pc_state *state; /* the type keeps the module alive */
    const pc_layer_kind *kind;
    bool ready; /* __init__ has succeeded once */
    bool training;
    bool watched;  /* Python wants to see each call: hooks. The call goes to _watched_call, which calls forward */
    bool answered; /* backward has been called since the last forward */
    int64_t calls; /* training-mode forwards since the last one that was answered */
    pc_saved saved;
    char name[PC_LAYER_NAME]; /* for messages: "Conv2d(3, 16)" */
};

/* For a type's slots and spec. */
#define PC_LAYER_FLAGS                                                                                                 \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |                      \
     Py_TPFLAGS_IMMUTABLETYPE)
extern PyMemberDef pc_layer_members[]; /* where vectorcall lies */

PyObject *pc_layer_new(PyTypeObject *type, const pc_layer_kind *kind);
/* The last step of every __init__: name it, forget what was saved, and be ready. */
void pc_layer_ready(pc_layer *layer, const char *name);
/* Drops what the last forward saved. */
void pc_layer_forget(pc_layer *layer);
int pc_layer_traverse(PyObject *self, visitproc visit, void *arg);
int pc_layer_clear(PyObject *self);
/* Frees any layer, by its type's clear. */
void pc_layer_dealloc(PyObject *self);

/* True, or RuntimeError for an object whose __init__ never ran. */
bool pc_layer_check(pc_layer *layer);

/* The methods, for a type that takes more than an input and says so in its signature. */
PyObject *pc_layer_forward(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *pc_layer_vjp(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
#define PC_FASTCALL(function) ((PyCFunction)(void (*)(void))function)

/* Takes over the reference in `saved`. */
PyObject *pc_pullback_new(pc_state *state, pc_layer *layer, pc_saved *saved);
/* The way both backward methods go: binds (grad_output, input_grad=True) and runs the kind's backward. `saved` is
 * copied, and its array kept, before anything else happens. */
PyObject *pc_layer_pull(pc_layer *layer, const pc_saved *saved, const char *who, PyObject *const *args,
                        Py_ssize_t count, PyObject *names);

/* A new type in the module, under a base or NULL. */
PyTypeObject *pc_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject *base);

#endif
