/* limits.c: what this machine can do at best, for the benchmark: multiply-adds in registers, and a copy into fresh
 * memory. Both run on the threads, the kernels and the arrays that everything else runs on, so that a share of them is
 * a share of what was there to have. */
#include <string.h>

#include "base/pool.h"
#include "isa/dispatch.h"
#include "py/args.h"
#include "py/array.h"
#include "py/run.h"

/* ---- multiply-adds ---- */

enum { MAX_LANES = 16 };                            /* floats in the longest vector */
static const int64_t MAX_ROUNDS = (int64_t)1 << 24; /* a tenth of a second: Ctrl-C waits no longer */

typedef struct {
    pc_dtype dtype;
    int64_t rounds;
} chains;

static void run_chains(void *context, int index, int count)
{
    (void)index;
    (void)count;
    const chains *job = context;
    union {
        float f32[PC_CHAINS * MAX_LANES];
        double f64[PC_CHAINS * MAX_LANES / 2];
    } values;
    memset(&values, 0, sizeof values);
    pc_chains_args args = {.values = &values, .factor = 0.5, .term = 1, .rounds = job->rounds};
    pc_kernels_for(job->dtype)->fma_chains(&args);
}

static PyObject *fma_chains(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    static const pc_signature signature = {"fma_chains", {"dtype", "rounds", NULL}, 2, 2};
    PyObject *values[2];
    chains job = {PC_F32, 0};
    if (!pc_bind(&signature, args, count, names, values) || !pc_parse_dtype(values[0], signature.who, &job.dtype) ||
        !pc_parse_int(values[1], signature.who, "rounds", &job.rounds)) {
        return NULL;
    }
    if (job.rounds < 0 || job.rounds > MAX_ROUNDS) {
        return PyErr_Format(PyExc_ValueError, "fma_chains: rounds must be between 0 and %lld, got %lld",
                            (long long)MAX_ROUNDS, (long long)job.rounds);
    }
    int threads = pc_threads(pc_state_of(module));
    if (threads < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS;
    pc_pool_run(threads, run_chains, &job);
    Py_END_ALLOW_THREADS;
    double flops = 2.0 * (double)job.rounds * PC_CHAINS * (double)pc_kernels_for(job.dtype)->lanes;
    return PyFloat_FromDouble(flops * threads);
}

/* ---- a copy ---- */

typedef struct {
    char *to;
    const char *from;
    int64_t bytes;
} copying;

static void run_copy(void *context, int index, int count)
{
    const copying *job = context;
    const int64_t page = 4096, share = pc_ceil_div(pc_ceil_div(job->bytes, count), page) * page;
    const int64_t start = pc_min(index * share, job->bytes), end = pc_min(start + share, job->bytes);
    memcpy(job->to + start, job->from + start, (size_t)(end - start));
}

static PyObject *fresh_copy(PyObject *module, PyObject *value)
{
    const char *who = "fresh_copy";
    pc_dtype dtype;
    PyObject *copy = NULL, *from = NULL, *array = pc_array_open(value, who, "array", &dtype);
    if (array && pc_array_rank(array) == 1) {
        from = pc_array_contiguous(array, dtype, who, "array");
    } else if (array) {
        PyErr_Format(PyExc_ValueError, "%s: expected an array of one axis, got %d", who, pc_array_rank(array));
    }
    int threads = from ? pc_threads(pc_state_of(module)) : -1;
    if (threads > 0) {
        copy = pc_array_new_vector(pc_array_size(from, 0), dtype, who, "copy");
    }
    if (copy) {
        copying job = {pc_array_data(copy), pc_array_data(from),
                       pc_array_size(from, 0) * (int64_t)pc_dtype_size(dtype)};
        Py_BEGIN_ALLOW_THREADS;
        pc_pool_run(threads, run_copy, &job);
        Py_END_ALLOW_THREADS;
    }
    Py_XDECREF(from);
    Py_XDECREF(array);
    return copy;
}

/* ---- the table ---- */

PyDoc_STRVAR(fma_chains_doc, "fma_chains($module, /, dtype, rounds)\n--\n\n"
                             "Do nothing but multiply-adds, on all threads; return how many operations that were.");
PyDoc_STRVAR(fresh_copy_doc, "fresh_copy($module, array, /)\n--\n\n"
                             "A copy of an array of one axis, made by all threads.");

static PyMethodDef methods[] = {
    {"fma_chains", (PyCFunction)(void (*)(void))fma_chains, METH_FASTCALL | METH_KEYWORDS, fma_chains_doc},
    {"fresh_copy", fresh_copy, METH_O, fresh_copy_doc},
    {NULL, NULL, 0, NULL},
};

int pc_add_limits(PyObject *module) { return PyModule_AddFunctions(module, methods); }
