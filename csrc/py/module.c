/* module.c: the extension itself: what it is made of, in which order, and what it can say about how it was built. */
#include <stdlib.h>

#include "base/cpu.h"
#include "base/pool.h"
#include "isa/dispatch.h"
#include "py/args.h"
#include "py/array.h"
#include "py/state.h"

/* ---- build_info ---- */

#if defined(__clang__)
#define COMPILER "Clang " __clang_version__
#elif defined(__GNUC__)
#define COMPILER "GCC " __VERSION__
#else
#define COMPILER __VERSION__
#endif

static PyObject *isa_names(bool usable_only)
{
    PyObject *names = PyList_New(0);
    for (const pc_isa *const *isa = pc_isa_compiled(); names && *isa; isa++) {
        if (usable_only && !pc_isa_usable(*isa)) {
            continue;
        }
        PyObject *name = PyUnicode_FromString((*isa)->name);
        if (!name || PyList_Append(names, name) < 0) {
            Py_CLEAR(names);
        }
        Py_XDECREF(name);
    }
    return names;
}

static PyObject *build_info(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    pc_cpu cpu = pc_cpu_detect();
    PyObject *info = PyDict_New();
    if (info &&
        !(pc_dict_take(info, "compiler", PyUnicode_FromString(COMPILER)) &&
          pc_dict_take(info, "python", PyUnicode_FromString(PY_VERSION)) && pc_array_build_info(info) &&
          pc_dict_take(info, "isa_compiled", isa_names(false)) && pc_dict_take(info, "isa_usable", isa_names(true)) &&
          pc_dict_take(info, "isa", PyUnicode_FromString(pc_isa_chosen()->name)) &&
          pc_dict_take(info, "cpu",
                       Py_BuildValue("{s:N,s:N,s:N}", "avx2", PyBool_FromLong(cpu.avx2), "avx512",
                                     PyBool_FromLong(cpu.avx512), "neon", PyBool_FromLong(cpu.neon))) &&
          pc_dict_take(info, "pool_workers", PyLong_FromLong(pc_pool_workers())))) {
        Py_CLEAR(info);
    }
    return info;
}

PyDoc_STRVAR(build_info_doc, "build_info($module, /)\n--\n\n"
                             "How the extension was built, and what it chose on this machine.");

static PyMethodDef methods[] = {
    {"build_info", build_info, METH_NOARGS, build_info_doc},
    {NULL, NULL, 0, NULL},
};

/* ---- the module ---- */

/* The kernel table is chosen here and never again: the environment is read once. */
static int choose_isa(void)
{
    const char *cap = getenv("PYCONV_ISA");
    if (!pc_isa_choose(cap)) {
        PyErr_Format(PyExc_ImportError,
                     "pyconv: the environment variable PYCONV_ISA is '%.100s', which is no instruction set that pyconv "
                     "knows; it caps the choice and may be baseline, avx2, avx512, neon or empty",
                     cap);
        return -1;
    }
    return 0;
}

static int execute(PyObject *module)
{
    pc_state *state = pc_state_of(module);
    if (!pc_array_import() || choose_isa() < 0) {
        return -1;
    }
    state->forward_name = PyUnicode_InternFromString("forward");
    state->watched_name = PyUnicode_InternFromString("_watched_call");
    if (!state->forward_name || !state->watched_name || pc_add_threads(module, state) < 0 ||
        pc_add_pullback(module, state) < 0 || pc_add_layers(module, state) < 0 || pc_add_convs(module, state) < 0 ||
        pc_add_pools(module, state) < 0 || pc_add_adaptive(module, state) < 0 || pc_add_norm(module, state) < 0 ||
        pc_add_relu(module, state) < 0 || pc_add_functional(module) < 0 || pc_add_limits(module) < 0) {
        return -1;
    }
    return 0;
}

static int traverse(PyObject *module, visitproc visit, void *arg)
{
    pc_state *state = pc_state_of(module);
    Py_VISIT(state->layer);
    Py_VISIT(state->conv);
    Py_VISIT(state->pullback);
    Py_VISIT(state->num_threads_var);
    Py_VISIT(state->forward_name);
    Py_VISIT(state->watched_name);
    return 0;
}

static int clear(PyObject *module)
{
    pc_state *state = pc_state_of(module);
    Py_CLEAR(state->layer);
    Py_CLEAR(state->conv);
    Py_CLEAR(state->pullback);
    Py_CLEAR(state->num_threads_var);
    Py_CLEAR(state->forward_name);
    Py_CLEAR(state->watched_name);
    return 0;
}

static void free_state(void *module) { clear(module); }

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
#ifdef Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#ifdef Py_MOD_GIL_NOT_USED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

PyDoc_STRVAR(doc, "The C extension behind pyconv. Private: import from pyconv or pyconv.functional instead.");

struct PyModuleDef pc_module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "pyconv._core",
    .m_doc = doc,
    .m_size = sizeof(pc_state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = free_state,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&pc_module); }
