/* threads.c: how many threads a call may use, and the memory that they keep. */
#include "base/scratch.h"
#include "py/args.h"
#include "py/run.h"

enum { MAX_THREADS = 1024 };

static bool parse_threads(PyObject *value, const char *who, int *threads)
{
    int64_t number = 0;
    if (!pc_parse_int(value, who, "the number of threads", &number)) {
        return false;
    }
    if (number < 1) {
        PyErr_Format(PyExc_ValueError, "%s: the number of threads must be at least 1, got %lld", who,
                     (long long)number);
        return false;
    }
    *threads = (int)(number < MAX_THREADS ? number : MAX_THREADS);
    return true;
}

int pc_threads(pc_state *state)
{
    PyObject *value;
    if (PyContextVar_Get(state->num_threads_var, Py_None, &value) < 0) {
        return -1;
    }
    int threads = -1;
    if (value == Py_None) {
        threads = atomic_load_explicit(&state->num_threads, memory_order_relaxed);
    } else if (!parse_threads(value, "num_threads", &threads)) {
        threads = -1;
    }
    Py_DECREF(value);
    return threads;
}

static PyObject *set_num_threads(PyObject *module, PyObject *value)
{
    int threads;
    if (!parse_threads(value, "set_num_threads", &threads)) {
        return NULL;
    }
    atomic_store_explicit(&pc_state_of(module)->num_threads, threads, memory_order_relaxed);
    Py_RETURN_NONE;
}

static PyObject *get_num_threads(PyObject *module, PyObject *Py_UNUSED(unused))
{
    int threads = pc_threads(pc_state_of(module));
    return threads < 0 ? NULL : PyLong_FromLong(threads);
}

static PyObject *release_workspace(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    pc_scratch_release();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(set_num_threads_doc, "set_num_threads($module, n, /)\n--\n\n"
                                  "Let every call of this process use up to n threads.");
PyDoc_STRVAR(get_num_threads_doc, "get_num_threads($module, /)\n--\n\n"
                                  "How many threads a call made here would use at most.");
PyDoc_STRVAR(release_workspace_doc, "release_workspace($module, /)\n--\n\n"
                                    "Give the memory that is kept for workspaces and results back to the system.");

static PyMethodDef methods[] = {
    {"set_num_threads", set_num_threads, METH_O, set_num_threads_doc},
    {"get_num_threads", get_num_threads, METH_NOARGS, get_num_threads_doc},
    {"release_workspace", release_workspace, METH_NOARGS, release_workspace_doc},
    {NULL, NULL, 0, NULL},
};

int pc_add_threads(PyObject *module, pc_state *state)
{
    atomic_init(&state->num_threads, 1);
    state->num_threads_var = PyContextVar_New("pyconv.num_threads", NULL);
    if (!state->num_threads_var || PyModule_AddObjectRef(module, "num_threads_var", state->num_threads_var) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, methods);
}
