/* args.c: see args.h. One shape for all: find out what kind of value it is, convert, and say who wanted what. */
#include "py/args.h"

#include <string.h>

#include "base/checked.h"
#include "py/array.h"

bool pc_raise(const char *who, pc_status status, const pc_error *error)
{
    PyErr_Format(status == PC_MEMORY_ERROR ? PyExc_MemoryError : PyExc_ValueError, "%s: %s", who, error->text);
    return false;
}

/* ---- binding ---- */

static int find_name(const pc_signature *signature, PyObject *name)
{
    for (int i = 0; signature->names[i]; i++) {
        if (PyUnicode_CompareWithASCIIString(name, signature->names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

static bool bind_positional(const pc_signature *signature, PyObject *const *args, Py_ssize_t count, PyObject **values)
{
    if (count > signature->positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d positional argument%s (%zd given)", signature->who,
                     signature->positional, signature->positional == 1 ? "" : "s", count);
        return false;
    }
    for (Py_ssize_t i = 0; signature->names[i]; i++) {
        values[i] = i < count ? args[i] : NULL;
    }
    return true;
}

static bool bind_name(const pc_signature *signature, PyObject *name, PyObject *value, PyObject **values)
{
    int at = PyUnicode_Check(name) ? find_name(signature, name) : -1;
    if (at < 0) {
        PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", signature->who, name);
        return false;
    }
    if (values[at]) {
        PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument %R", signature->who, name);
        return false;
    }
    values[at] = value;
    return true;
}

static bool bind_required(const pc_signature *signature, PyObject **values)
{
    for (int i = 0; i < signature->required; i++) {
        if (!values[i]) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s' (position %d)", signature->who,
                         signature->names[i], i + 1);
            return false;
        }
    }
    return true;
}

bool pc_bind(const pc_signature *signature, PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject **values)
{
    if (!bind_positional(signature, args, count, values)) {
        return false;
    }
    Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    for (Py_ssize_t i = 0; i < named; i++) {
        if (!bind_name(signature, PyTuple_GET_ITEM(names, i), args[count + i], values)) {
            return false;
        }
    }
    return bind_required(signature, values);
}

bool pc_bind_tuple(const pc_signature *signature, PyObject *args, PyObject *kwargs, PyObject **values)
{
    if (!bind_positional(signature, &PyTuple_GET_ITEM(args, 0), PyTuple_GET_SIZE(args), values)) {
        return false;
    }
    PyObject *name, *value;
    Py_ssize_t at = 0;
    while (kwargs && PyDict_Next(kwargs, &at, &name, &value)) {
        if (!bind_name(signature, name, value, values)) {
            return false;
        }
    }
    return bind_required(signature, values);
}

/* ---- integers ---- */

/* 1 and a new reference to an int; 0 when the value is no integer (bool counts as none); -1 with an exception. */
static int as_integer(PyObject *value, PyObject **integer)
{
    *integer = NULL;
    if (PyBool_Check(value) || !PyIndex_Check(value)) {
        return 0;
    }
    *integer = PyNumber_Index(value);
    if (*integer) {
        return 1;
    }
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) {
        return -1;
    }
    PyErr_Clear(); /* an array has the slot, and only a scalar one fills it */
    return 0;
}

/* Takes over the reference. */
static bool to_int64(PyObject *integer, const char *who, const char *name, int64_t *number)
{
    int overflow;
    long long wide = PyLong_AsLongLongAndOverflow(integer, &overflow);
    bool good = !(wide == -1 && PyErr_Occurred());
    if (good && overflow) {
        /* Printing a number of many digits can fail by itself, so the sign is all that is said. */
        PyErr_Format(PyExc_ValueError, "%s: %s is too %s: it does not fit 64 bits", who, name,
                     overflow > 0 ? "large" : "small");
        good = false;
    }
    Py_DECREF(integer);
    if (good) {
        *number = wide;
    }
    return good;
}

static bool wrong_type(const char *who, const char *name, const char *wanted, PyObject *value)
{
    PyErr_Format(PyExc_TypeError, "%s: %s must be %s, got %.100R (%.100s)", who, name, wanted, value,
                 Py_TYPE(value)->tp_name);
    return false;
}

bool pc_parse_int(PyObject *value, const char *who, const char *name, int64_t *number)
{
    if (!value) {
        return true;
    }
    PyObject *integer;
    int kind = as_integer(value, &integer);
    if (kind <= 0) {
        return kind == 0 && wrong_type(who, name, "an int", value);
    }
    return to_int64(integer, who, name, number);
}

/* ---- sequences ---- */

enum { MAX_ITEMS = 8 }; /* no argument takes more; an endless iterator stops here as well */

/* A new tuple of at most MAX_ITEMS + 1 items, or NULL: with an exception, or without one when the value is none. */
static PyObject *take_items(PyObject *value)
{
    if (PyTuple_CheckExact(value)) {
        return Py_NewRef(value);
    }
    if (PyUnicode_Check(value) || PyBytes_Check(value) || PyByteArray_Check(value) || PyDict_Check(value)) {
        return NULL;
    }
    PyObject *iterator = PyObject_GetIter(value);
    if (!iterator) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Clear();
        }
        return NULL;
    }
    PyObject *list = PyList_New(0), *items = NULL;
    bool good = list != NULL;
    while (good && PyList_GET_SIZE(list) <= MAX_ITEMS) {
        PyObject *item = PyIter_Next(iterator);
        if (!item) {
            good = !PyErr_Occurred();
            break;
        }
        good = PyList_Append(list, item) == 0;
        Py_DECREF(item);
    }
    if (good) {
        items = PyList_AsTuple(list);
    }
    Py_XDECREF(list);
    Py_DECREF(iterator);
    return items;
}

static bool wrong_pair_length(const char *who, const char *name, pc_words words, PyObject *items)
{
    PyObject *list = PySequence_List(items);
    if (list && (words == PC_WORDS_CONV || words == PC_WORDS_LINE)) {
        PyErr_Format(PyExc_ValueError,
                     "%s: expected %s to be a single integer value or a list of %d values to match the convolution "
                     "dimensions, but got %s=%.200R",
                     who, name, words == PC_WORDS_LINE ? 1 : 2, name, list);
    } else if (list && words == PC_WORDS_ADAPTIVE) {
        PyErr_Format(PyExc_ValueError, "%s: %s must be 2 sizes, or one for both axes, got %.200R", who, name, list);
    } else if (list) {
        PyErr_Format(PyExc_ValueError, "%s: %s must either be a single int, or a tuple of two ints, but got %s=%.200R",
                     who, name, name, list);
    }
    Py_XDECREF(list);
    return false;
}

static const char *wanted(pc_words words)
{
    return words == PC_WORDS_LINE ? "an int or a sequence of one int" : "an int or a pair of ints";
}

static bool pair_from_items(PyObject *items, PyObject *value, const char *who, const char *name, pc_words words,
                            int64_t pair[2])
{
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    if (count != 1 && (count != 2 || words == PC_WORDS_LINE)) {
        return wrong_pair_length(who, name, words, items);
    }
    int64_t numbers[2];
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *integer;
        int kind = as_integer(PyTuple_GET_ITEM(items, i), &integer);
        if (kind <= 0) {
            return kind == 0 && wrong_type(who, name, wanted(words), value);
        }
        if (!to_int64(integer, who, name, &numbers[i])) {
            return false;
        }
    }
    pair[0] = numbers[0];
    pair[1] = numbers[count - 1];
    return true;
}

bool pc_parse_pair(PyObject *value, const char *who, const char *name, pc_words words, int64_t pair[2])
{
    if (!value) {
        return true;
    }
    PyObject *integer;
    int kind = as_integer(value, &integer);
    if (kind > 0) {
        int64_t number;
        if (!to_int64(integer, who, name, &number)) {
            return false;
        }
        pair[0] = pair[1] = number;
        return true;
    }
    PyObject *items = kind < 0 ? NULL : take_items(value);
    if (!items) {
        return !PyErr_Occurred() && wrong_type(who, name, wanted(words), value);
    }
    bool good = pair_from_items(items, value, who, name, words, pair);
    Py_DECREF(items);
    return good;
}

bool pc_parse_pool_stride(PyObject *value, const char *who, const int64_t kernel[2], int64_t stride[2])
{
    bool empty = !value || value == Py_None || (PyTuple_Check(value) && PyTuple_GET_SIZE(value) == 0) ||
                 (PyList_Check(value) && PyList_GET_SIZE(value) == 0);
    if (empty) {
        stride[0] = kernel[0];
        stride[1] = kernel[1];
        return true;
    }
    return pc_parse_pair(value, who, "stride", PC_WORDS_POOL, stride);
}

/* ---- padding ---- */

static bool parse_padding_word(PyObject *value, const char *who, pc_window *window)
{
    if (PyUnicode_CompareWithASCIIString(value, "same") == 0) {
        window->pad_rule = PC_PAD_SAME;
    } else if (PyUnicode_CompareWithASCIIString(value, "valid") == 0) {
        window->pad_rule = PC_PAD_VALID;
    } else {
        PyErr_Format(PyExc_ValueError, "%s: Invalid padding string %.100R, should be one of {'same', 'valid'}", who,
                     value);
        return false;
    }
    memset(window->pad, 0, sizeof window->pad);
    return true;
}

/* Is it something that per-side padding could be made of? Numbers, arrays of no axis included, are not. */
static int is_nested(PyObject *item)
{
    PyObject *integer;
    int kind = as_integer(item, &integer);
    Py_XDECREF(integer);
    if (kind != 0) {
        return kind < 0 ? -1 : 0;
    }
    return PySequence_Check(item) && !PyUnicode_Check(item) && !PyBytes_Check(item);
}

static bool parse_padding_sides(PyObject *items, PyObject *value, const char *who, pc_window *window)
{
    static const char wanted[] = "an int, (ph, pw), ((top, bottom), (left, right)), 'same' or 'valid'";
    int64_t pad[2][2];
    for (int axis = 0; axis < 2; axis++) {
        PyObject *sides = take_items(PyTuple_GET_ITEM(items, axis));
        if (!sides) {
            return !PyErr_Occurred() && wrong_type(who, "padding", wanted, value);
        }
        bool good = true;
        if (PyTuple_GET_SIZE(sides) != 2) {
            PyErr_Format(PyExc_ValueError, "%s: padding per side must be ((top, bottom), (left, right)), got %.200R",
                         who, value);
            good = false;
        }
        for (int side = 0; good && side < 2; side++) {
            PyObject *integer;
            int kind = as_integer(PyTuple_GET_ITEM(sides, side), &integer);
            good = kind > 0 ? to_int64(integer, who, "padding", &pad[axis][side])
                            : kind == 0 && wrong_type(who, "padding", wanted, value);
        }
        Py_DECREF(sides);
        if (!good) {
            return false;
        }
    }
    window->pad_rule = PC_PAD_NUMBERS;
    memcpy(window->pad, pad, sizeof pad);
    return true;
}

bool pc_parse_symmetric_padding(PyObject *value, const char *who, pc_words words, pc_window *window)
{
    int64_t pair[2] = {0, 0};
    if (value && words == PC_WORDS_CONV && PyUnicode_Check(value)) {
        PyErr_Format(PyExc_ValueError, "%s: padding must be an int or a pair of ints here, got %.100R", who, value);
        return false;
    }
    if (!pc_parse_pair(value, who, "padding", words, pair)) {
        return false;
    }
    window->pad_rule = PC_PAD_NUMBERS;
    for (int axis = 0; axis < 2; axis++) {
        window->pad[axis][0] = window->pad[axis][1] = pair[axis];
    }
    return true;
}

bool pc_parse_padding(PyObject *value, const char *who, pc_window *window, bool *per_side)
{
    *per_side = false;
    if (value && PyUnicode_Check(value)) {
        return parse_padding_word(value, who, window);
    }
    PyObject *integer = NULL;
    int kind = value ? as_integer(value, &integer) : 1;
    Py_XDECREF(integer);
    if (kind != 0) {
        return kind > 0 && pc_parse_symmetric_padding(value, who, PC_WORDS_CONV, window);
    }
    PyObject *items = take_items(value);
    if (!items) {
        return !PyErr_Occurred() &&
               wrong_type(who, "padding", "an int, (ph, pw), ((top, bottom), (left, right)), 'same' or 'valid'", value);
    }
    int nested = PyTuple_GET_SIZE(items) == 2 ? is_nested(PyTuple_GET_ITEM(items, 0)) : 0;
    bool good;
    if (nested > 0) {
        good = parse_padding_sides(items, value, who, window);
        *per_side = good;
    } else {
        good = nested == 0 && pc_parse_symmetric_padding(items, who, PC_WORDS_CONV, window);
    }
    Py_DECREF(items);
    return good;
}

static const char *const mode_names[] = {"zeros", "reflect", "replicate", "circular"};

const char *pc_padding_mode_name(pc_pad_mode mode) { return mode_names[mode]; }

bool pc_parse_padding_mode(PyObject *value, const char *who, pc_pad_mode *mode)
{
    if (!value) {
        return true;
    }
    if (PyUnicode_Check(value)) {
        for (pc_pad_mode i = PC_PAD_ZEROS; i <= PC_PAD_CIRCULAR; i++) {
            if (PyUnicode_CompareWithASCIIString(value, mode_names[i]) == 0) {
                *mode = i;
                return true;
            }
        }
    }
    PyErr_Format(PyUnicode_Check(value) ? PyExc_ValueError : PyExc_TypeError,
                 "%s: padding_mode must be one of {'zeros', 'reflect', 'replicate', 'circular'}, but got "
                 "padding_mode=%.100R",
                 who, value);
    return false;
}

/* ---- flags ---- */

bool pc_parse_truth(PyObject *value, bool *flag)
{
    if (!value) {
        return true;
    }
    int truth = PyObject_IsTrue(value);
    if (truth >= 0) {
        *flag = truth;
    }
    return truth >= 0;
}

bool pc_parse_float(PyObject *value, const char *who, const char *name, double *number)
{
    if (!value) {
        return true;
    }
    const bool never = PyBool_Check(value) || PyUnicode_Check(value);
    const double found = never ? 0 : PyFloat_AsDouble(value);
    if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s: %s is too large for a float", who, name);
    }
    if (never || (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_TypeError))) {
        PyErr_Clear();
        return wrong_type(who, name, "a float", value);
    }
    *number = PyErr_Occurred() ? *number : found;
    return !PyErr_Occurred();
}

bool pc_parse_flag(PyObject *value, const char *who, const char *name, bool *flag)
{
    if (value && !PyBool_Check(value) && !pc_is_numpy_bool(value)) {
        return wrong_type(who, name, "a bool", value);
    }
    return pc_parse_truth(value, flag);
}

bool pc_parse_mask(PyObject *value, const char *who, bool mask[3])
{
    if (!value) {
        return true;
    }
    PyObject *items = take_items(value);
    if (!items) {
        return !PyErr_Occurred() && wrong_type(who, "output_mask", "three bools", value);
    }
    bool good = PyTuple_GET_SIZE(items) == 3;
    if (!good) {
        PyErr_Format(PyExc_ValueError, "%s: output_mask must be three bools (input, weight, bias), got %.200R", who,
                     value);
    }
    for (int i = 0; good && i < 3; i++) {
        good = pc_parse_flag(PyTuple_GET_ITEM(items, i), who, "each of output_mask", &mask[i]);
    }
    Py_DECREF(items);
    return good;
}

bool pc_parse_divisor(PyObject *value, const char *who, int64_t *divisor)
{
    *divisor = 0;
    if (!value || value == Py_None) {
        return true;
    }
    if (!pc_parse_int(value, who, "divisor_override", divisor)) {
        return false;
    }
    if (*divisor == 0) {
        PyErr_Format(PyExc_ValueError, "%s: divisor must be not zero, got divisor_override=0", who);
        return false;
    }
    return true;
}

bool pc_parse_device(PyObject *value, const char *who)
{
    if (!value || value == Py_None) {
        return true;
    }
    PyObject *text = PyObject_Str(value);
    if (!text) {
        return false;
    }
    bool good = PyUnicode_CompareWithASCIIString(text, "cpu") == 0;
    if (!good) {
        PyErr_Format(PyExc_ValueError, "%s: device must be None or 'cpu', got %.100R", who, value);
    }
    Py_DECREF(text);
    return good;
}

/* ---- shapes ---- */

bool pc_parse_shape(PyObject *value, const char *who, const char *name, int64_t shape[4], int *rank)
{
    static const char wanted[] = "a sequence of ints, (N, C, H, W) or (C, H, W)";
    PyObject *items = take_items(value);
    if (!items) {
        return !PyErr_Occurred() && wrong_type(who, name, wanted, value);
    }
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    bool good = count == 3 || count == 4;
    if (!good) {
        PyErr_Format(PyExc_ValueError, "%s: %s must be (N, C, H, W) or (C, H, W), got %.200R", who, name, items);
    }
    int64_t sizes[4] = {1, 0, 0, 0};
    for (Py_ssize_t i = 0; good && i < count; i++) {
        int64_t *size = &sizes[4 - count + i];
        PyObject *integer;
        int kind = as_integer(PyTuple_GET_ITEM(items, i), &integer);
        good = kind > 0 ? to_int64(integer, who, name, size) : kind == 0 && wrong_type(who, name, wanted, value);
        if (good && *size < 0) {
            PyErr_Format(PyExc_ValueError, "%s: %s must not hold negative sizes, got %.200R", who, name, items);
            good = false;
        }
    }
    Py_DECREF(items);
    if (good) {
        memcpy(shape, sizes, sizeof sizes);
        *rank = (int)count;
    }
    return good;
}

bool pc_parse_output_size(PyObject *value, const char *who, int rank, bool *given, int64_t size[2])
{
    *given = false;
    if (!value || value == Py_None) {
        return true;
    }
    PyObject *items = take_items(value);
    if (!items) {
        return !PyErr_Occurred() && wrong_type(who, "output_size", "a sequence of ints", value);
    }
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    bool good = count == 2 || count == rank;
    if (!good) {
        PyErr_Format(PyExc_ValueError,
                     "%s: ConvTranspose2D: for %dD input, output_size must have 2 or %d elements (got %zd%s)", who,
                     rank, rank, count, count > MAX_ITEMS ? " or more" : "");
    }
    int64_t numbers[2];
    for (int i = 0; good && i < 2; i++) {
        PyObject *integer;
        int kind = as_integer(PyTuple_GET_ITEM(items, count - 2 + i), &integer);
        good = kind > 0 ? to_int64(integer, who, "output_size", &numbers[i])
                        : kind == 0 && wrong_type(who, "output_size", "a sequence of ints", value);
    }
    Py_DECREF(items);
    if (good) {
        memcpy(size, numbers, sizeof numbers);
        *given = true;
    }
    return good;
}

/* ---- and back ---- */

PyObject *pc_pair_as_given(PyObject *value, const int64_t pair[2])
{
    PyObject *integer = NULL;
    int kind = !value || value == Py_None ? 1 : as_integer(value, &integer);
    Py_XDECREF(integer);
    if (kind != 0) {
        return kind > 0 ? PyLong_FromLongLong(pair[0]) : NULL;
    }
    bool single =
        (PyTuple_Check(value) && PyTuple_GET_SIZE(value) == 1) || (PyList_Check(value) && PyList_GET_SIZE(value) == 1);
    PyObject *tuple = single ? Py_BuildValue("(L)", (long long)pair[0]) : pc_pair_object(pair);
    if (tuple && PyList_Check(value)) {
        Py_SETREF(tuple, PySequence_List(tuple));
    }
    return tuple;
}
