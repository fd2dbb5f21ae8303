/* objects.c: numbers and shapes back into Python objects, and the arguments of one dimension, which are those of two
 * with a height in front; what an object speaks. See args.h. */
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

bool pc_parse_single(PyObject *value, const char *who, const char *name, int64_t height, int64_t pair[2])
{
    const bool good = pc_parse_pair(value, who, name, PC_WORDS_LINE, pair);
    pair[0] = height;
    return good;
}

bool pc_parse_line_padding(PyObject *value, const char *who, pc_window *window, bool *per_side)
{
    *per_side = false;
    if (!value || PyUnicode_Check(value)) {
        return pc_parse_padding(value, who, window, per_side);
    }
    PyObject *sides = NULL;
    if ((PyTuple_Check(value) || PyList_Check(value)) && PySequence_Size(value) == 1) {
        sides = PySequence_GetItem(value, 0);
    }
    bool good = !PyErr_Occurred();
    if (good && sides && (PyTuple_Check(sides) || PyList_Check(sides))) {
        PyObject *pads = Py_BuildValue("((ii)O)", 0, 0, sides);
        good = pads && pc_parse_padding(pads, who, window, per_side);
        Py_XDECREF(pads);
    } else if (good) {
        int64_t pad[2] = {0, 0};
        good = pc_parse_single(value, who, "padding", 0, pad);
        window->pad_rule = PC_PAD_NUMBERS;
        for (int side = 0; side < 2; side++) {
            window->pad[0][side] = 0;
            window->pad[1][side] = pad[1];
        }
    }
    Py_XDECREF(sides);
    return good;
}

PyObject *pc_shape_without_height(PyObject *shape)
{
    const Py_ssize_t rank = shape ? PyTuple_GET_SIZE(shape) : 0;
    PyObject *front = shape ? PyTuple_GetSlice(shape, 0, rank - 2) : NULL;
    PyObject *back = front ? PyTuple_GetSlice(shape, rank - 1, rank) : NULL;
    PyObject *line = back ? PySequence_Concat(front, back) : NULL;
    Py_XDECREF(shape);
    Py_XDECREF(front);
    Py_XDECREF(back);
    return line;
}

bool pc_refuse_grad_shape(const char *who, PyObject *got, PyObject *expected)
{
    if (got && expected) {
        PyErr_Format(
            PyExc_ValueError,
            "%s: expected grad_output of shape %S, got %.200S. Mismatch in shape: grad_output[0] has a shape of "
            "%.200S and output[0] has a shape of %S",
            who, expected, got, got, expected);
    }
    Py_XDECREF(got);
    Py_XDECREF(expected);
    return false;
}

/* Interned, so that asking often does not fill the interpreter's cache of attributes with names that nobody else has. */
static bool has_attribute(PyObject *value, const char *name)
{
    PyObject *interned = PyUnicode_InternFromString(name);
    bool has = interned && PyObject_HasAttr(value, interned);
    Py_XDECREF(interned);
    PyErr_Clear();
    return has;
}

bool pc_speaks_dlpack_only(PyObject *value)
{
    return has_attribute(value, "__dlpack__") && !has_attribute(value, "__array__") &&
           !has_attribute(value, "__array_interface__") && !has_attribute(value, "__array_struct__") &&
           !PyObject_CheckBuffer(value);
}
