/* state.h: what the module owns, and how its parts reach it. The only place for things that live as long as it does. */
#ifndef PC_PY_STATE_H
#define PC_PY_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdatomic.h>

typedef struct {
    PyTypeObject *layer;       /* _Layer: what all layers share */
    PyTypeObject *conv;        /* _Conv(_Layer): what both convolutions share */
    PyTypeObject *pullback;    /* what vjp returns beside the output */
    PyObject *num_threads_var; /* ContextVar; None means: the process-wide number */
    atomic_int num_threads;    /* process-wide */
    PyObject *forward_name;    /* the interned string "forward" */
    PyObject *watched_name;    /* the interned string "_watched_call" */
} pc_state;

extern struct PyModuleDef pc_module;

static inline pc_state *pc_state_of(PyObject *module) { return (pc_state *)PyModule_GetState(module); }

/* What each file adds to the module. 0, or -1 with an exception. */
int pc_add_threads(PyObject *module, pc_state *state);
int pc_add_pullback(PyObject *module, pc_state *state);
int pc_add_layers(PyObject *module, pc_state *state);
int pc_add_convs(PyObject *module, pc_state *state);
int pc_add_pools(PyObject *module, pc_state *state);
int pc_add_adaptive(PyObject *module, pc_state *state);
int pc_add_norm(PyObject *module, pc_state *state);
int pc_add_relu(PyObject *module, pc_state *state);
int pc_add_functional(PyObject *module);
int pc_add_limits(PyObject *module);

#endif
