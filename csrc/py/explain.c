/* explain.c: see explain.h. A call is begun and ended as if it ran, so it has its threads and its scratch, and fails
 * where it would fail; ops/explain.h says the rest.
 */
#include "py/explain.h"

#include "isa/dispatch.h"
#include "ops/explain.h"
#include "py/args.h"
#include "py/run.h"

bool pc_explain_bind(pc_explain_arguments *given, const char *who, PyObject *const *args, Py_ssize_t count,
                     PyObject *names)
{
    static const pc_signature signature = {"explain_plan", {"input_shape", "dtype", NULL}, 1, 2};
    PyObject *values[PC_MAX_ARGUMENTS];
    if (!pc_bind(&signature, args, count, names, values) ||
        !pc_parse_shape(values[0], who, "input_shape", given->shape, &given->rank) ||
        !pc_parse_dtype(values[1], who, &given->dtype)) {
        return false;
    }
    given->has_dtype = values[1] && values[1] != Py_None;
    return true;
}

static PyObject *blocks_of(const pc_plan *plan)
{
    PyObject *blocks = PyDict_New();
    for (int i = 0; blocks && i < plan->count; i++) {
        if (!pc_dict_take(blocks, plan->block[i].name, PyLong_FromLongLong(plan->block[i].value))) {
            Py_CLEAR(blocks);
        }
    }
    return blocks;
}

static PyObject *tile_of(const pc_plan *plan)
{
    return plan->tile_rows ? Py_BuildValue("(LL)", (long long)plan->tile_rows, (long long)plan->tile_vectors)
                           : Py_NewRef(Py_None);
}

static PyObject *text_or_none(const char *text) { return text ? PyUnicode_FromString(text) : Py_NewRef(Py_None); }

static PyObject *pass_of(const char *name, const char *primitive, const pc_call *call, const pc_plan *plan)
{
    PyObject *pass = PyDict_New();
    if (pass &&
        !(pc_dict_take(pass, "name", PyUnicode_FromString(name)) &&
          pc_dict_take(pass, "primitive", PyUnicode_FromString(primitive)) &&
          pc_dict_take(pass, "family", PyUnicode_FromString(plan->family ? plan->family : "nothing to do")) &&
          pc_dict_take(pass, "form", PyUnicode_FromString(plan->form ? plan->form : "")) &&
          pc_dict_take(pass, "kernel", text_or_none(plan->kernel)) &&
          pc_dict_take(pass, "isa", PyUnicode_FromString(pc_isa_chosen()->name)) &&
          pc_dict_take(pass, "phases", PyLong_FromLongLong(plan->phases)) &&
          pc_dict_take(pass, "tile", tile_of(plan)) && pc_dict_take(pass, "blocks", blocks_of(plan)) &&
          pc_dict_take(pass, "items", plan->items < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(plan->items)) &&
          pc_dict_take(pass, "threads", PyLong_FromLong(call->threads)) &&
          pc_dict_take(pass, "scratch_per_thread", PyLong_FromSize_t(call->scratch_step)) &&
          pc_dict_take(pass, "scratch_shared", PyLong_FromSize_t(call->shared_size)) &&
          pc_dict_take(pass, "work", PyLong_FromDouble(call->work)))) {
        Py_CLEAR(pass);
    }
    return pass;
}

static PyObject *conv_pass(const pc_conv_geom *geom, const char *name, pc_conv_pass pass, const char *who,
                           pc_dtype dtype, int threads)
{
    static const char *const primitives[] = {"forward", "backward_input", "backward_weight"};
    pc_call call;
    pc_error error;
    pc_plan plan;
    const pc_status status = pc_conv_begin(geom, pass, dtype, threads, &call, &error);
    if (status != PC_OK) {
        pc_raise(who, status, &error);
        return NULL;
    }
    pc_conv_explain(geom, pass, &call, &plan);
    PyObject *made = pass_of(name, primitives[pass], &call, &plan);
    pc_end(&call);
    return made;
}

/* Takes over the reference. */
static bool append(PyObject *list, PyObject *pass)
{
    const bool good = pass && PyList_Append(list, pass) == 0;
    Py_XDECREF(pass);
    return good;
}

PyObject *pc_explain_conv(pc_state *state, const pc_conv_plan *plan, const char *who, pc_dtype dtype)
{
    const int threads = pc_threads(state);
    PyObject *passes = threads > 0 ? PyList_New(0) : NULL;
    const pc_conv_geom *geom = &plan->geom;
    const bool crosswise = plan->transposed;
    if (passes &&
        !(append(passes, conv_pass(geom, "forward", crosswise ? PC_CONV_BACKWARD_INPUT : PC_CONV_FORWARD, who, dtype,
                                   threads)) &&
          append(passes, conv_pass(geom, "backward_input", crosswise ? PC_CONV_FORWARD : PC_CONV_BACKWARD_INPUT, who,
                                   dtype, threads)) &&
          append(passes, conv_pass(geom, "backward_weight", PC_CONV_BACKWARD_WEIGHT, who, dtype, threads)))) {
        Py_CLEAR(passes);
    }
    return passes;
}

static PyObject *pool_pass(const pc_pool_geom *geom, const char *name, pc_pool_pass pass, const char *who,
                           pc_dtype dtype, int threads)
{
    pc_call call;
    pc_error error;
    const bool backward = pass == PC_MAX_BACKWARD || pass == PC_AVG_BACKWARD;
    const int64_t height = backward ? geom->oh : geom->ih, width = backward ? geom->ow : geom->iw;
    const pc_tensor source = {.step = {geom->c * height * width, height * width, width, 1}};
    const pc_status status = pc_pool_begin(geom, pass, &source, dtype, threads, &call, &error);
    if (status != PC_OK) {
        pc_raise(who, status, &error);
        return NULL;
    }
    pc_plan plan;
    pc_pool_explain(geom, pass, &call, &plan);
    PyObject *made = pass_of(name, name, &call, &plan);
    pc_end(&call);
    return made;
}

PyObject *pc_explain_pool(pc_state *state, const pc_pool_plan *plan, const char *who, pc_dtype dtype, bool max)
{
    const int threads = pc_threads(state);
    PyObject *passes = threads > 0 ? PyList_New(0) : NULL;
    const pc_pool_geom *geom = &plan->geom;
    if (passes &&
        !(append(passes, pool_pass(geom, "forward", max ? PC_MAX_FORWARD : PC_AVG_FORWARD, who, dtype, threads)) &&
          (!max || append(passes, pool_pass(geom, "forward_indices", PC_MAX_INDICES, who, dtype, threads))) &&
          append(passes,
                 pool_pass(geom, "backward_input", max ? PC_MAX_BACKWARD : PC_AVG_BACKWARD, who, dtype, threads)))) {
        Py_CLEAR(passes);
    }
    return passes;
}
