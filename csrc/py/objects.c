/* objects.c: numbers and shapes back into Python objects. See args.h. */
#include "py/args.h"

bool pc_dict_take(PyObject *dict, const char *name, PyObject *value)
{
    bool good = value && PyDict_SetItemString(dict, name, value) == 0;
    Py_XDECREF(value);
    return good;
}

PyObject *pc_pair_object(const int64_t pair[2])
{
    return Py_BuildValue("(LL)", (long long)pair[0], (long long)pair[1]);
}

PyObject *pc_shape_object(const int64_t shape[4], int rank)
{
    PyObject *tuple = PyTuple_New(rank);
    for (int i = 0; tuple && i < rank; i++) {
        PyObject *size = PyLong_FromLongLong(shape[4 - rank + i]);
        if (!size) {
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, i, size);
    }
    return tuple;
}
