/* zsys: the three things the interpreter's own modules cannot do for an init.
 *
 *   syscall(nr, *args) -> int       arguments: int, str, bytes, bytearray or another buffer, None (a null pointer)
 *   addr(buffer) -> int             where a buffer lies, for structures that hold pointers; the caller keeps it alive
 *   clone3(flags, cgroup_fd) -> int as fork: 0 in the child, its pid in the parent; cgroup_fd < 0 means none.
 *                                   With CLONE_PARENT the child belongs to the caller's parent, as the caller does
 *
 * Strings handed to syscall() go as C strings. Nothing here checks what a call means: runtime/init/kernel.py does.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_ARGS 6

static PyObject *zsys_syscall(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    long words[MAX_ARGS + 1] = {0}, result;
    Py_buffer buffers[MAX_ARGS + 1];
    int held = 0, failed = 0;

    if (count < 1 || count > MAX_ARGS + 1) {
        PyErr_SetString(PyExc_TypeError, "syscall() takes a number and at most six arguments");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count && !failed; i++) {
        if (PyLong_Check(args[i])) {
            words[i] = (long)PyLong_AsUnsignedLongMask(args[i]);
            failed = PyErr_Occurred() != NULL;
        } else if (PyUnicode_Check(args[i])) {
            words[i] = (long)PyUnicode_AsUTF8(args[i]);
            failed = words[i] == 0;
        } else if (args[i] != Py_None) {
            failed = PyObject_GetBuffer(args[i], &buffers[held], PyBUF_SIMPLE) != 0;
            if (!failed)
                words[i] = (long)buffers[held++].buf;
        }
    }
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS
        result = syscall(words[0], words[1], words[2], words[3], words[4], words[5], words[6]);
        Py_END_ALLOW_THREADS
        if (result == -1)
            PyErr_SetFromErrno(PyExc_OSError);
        failed = result == -1;
    }
    while (held)
        PyBuffer_Release(&buffers[--held]);
    return failed ? NULL : PyLong_FromLong(result);
}

static PyObject *zsys_addr(PyObject *self, PyObject *object)
{
    Py_buffer buffer;
    if (PyObject_GetBuffer(object, &buffer, PyBUF_SIMPLE) != 0)
        return NULL;
    unsigned long address = (unsigned long)buffer.buf;
    PyBuffer_Release(&buffer);
    return PyLong_FromUnsignedLong(address);
}

static PyObject *zsys_clone3(PyObject *self, PyObject *args)
{
    unsigned long long flags;
    int cgroup;
    if (!PyArg_ParseTuple(args, "Ki", &flags, &cgroup))
        return NULL;
    /* A sibling is announced by the signal its parent chose for the caller; clone3 wants none named. */
    struct clone_args call = {.flags = flags, .exit_signal = flags & CLONE_PARENT ? 0 : SIGCHLD};
    if (cgroup >= 0) {
        call.flags |= CLONE_INTO_CGROUP;
        call.cgroup = cgroup;
    }
    PyOS_BeforeFork();
    long pid = syscall(SYS_clone3, &call, sizeof call);
    if (pid == 0)
        PyOS_AfterFork_Child();
    else
        PyOS_AfterFork_Parent();
    return pid < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(pid);
}

static PyMethodDef methods[] = {
    {"syscall", (PyCFunction)(void (*)(void))zsys_syscall, METH_FASTCALL, NULL},
    {"addr", zsys_addr, METH_O, NULL},
    {"clone3", zsys_clone3, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "zsys", NULL, -1, methods};

PyMODINIT_FUNC PyInit_zsys(void) { return PyModule_Create(&module); }
