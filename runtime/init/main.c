/* The one static program of a zone: CPython with frozen modules, under several names (/init, /bin/zone, /bin/styrolite).
 *
 * frozen.c, made by pipeline/build/freeze.py, holds the tables of frozen modules; runtime.init.entry dispatches on
 * argv[0]. _PyImport_Inittab is defined here so that the linker does not pull config.o, and with it every built-in
 * module of Debian's libpython, expat included.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern PyObject *PyInit__abc(void), *PyInit__codecs(void), *PyInit__imp(void), *PyInit__io(void), *PyInit__signal(void),
    *PyInit__socket(void), *PyInit__stat(void), *PyInit__string(void), *PyInit__struct(void), *PyInit__thread(void),
    *PyInit__weakref(void), *PyInit_errno(void), *PyInit_faulthandler(void), *PyInit_gc(void), *PyInit_itertools(void),
    *PyInit_posix(void), *PyInit_select(void), *PyInit_time(void), *PyInit_zsys(void), *PyMarshal_Init(void),
    *_PyWarnings_Init(void), *PyInit__tracemalloc(void);

struct _inittab _PyImport_Inittab[] = {
    {"_abc", PyInit__abc},
    {"_codecs", PyInit__codecs},
    {"_imp", PyInit__imp},
    {"_io", PyInit__io},
    {"_signal", PyInit__signal},
    {"_socket", PyInit__socket},
    {"_stat", PyInit__stat},
    {"_string", PyInit__string},
    {"_struct", PyInit__struct},
    {"_thread", PyInit__thread},
    {"_tracemalloc", PyInit__tracemalloc},
    {"_warnings", _PyWarnings_Init},
    {"_weakref", PyInit__weakref},
    {"builtins", NULL},
    {"errno", PyInit_errno},
    {"faulthandler", PyInit_faulthandler},
    {"gc", PyInit_gc},
    {"itertools", PyInit_itertools},
    {"marshal", PyMarshal_Init},
    {"posix", PyInit_posix},
    {"select", PyInit_select},
    {"sys", NULL},
    {"time", PyInit_time},
    {"zsys", PyInit_zsys},
    {NULL, NULL},
};

/* The last 8 hex digits of "seed" in the launch data, or 0. Without RDRAND the kernel needs a second to have entropy
 * of its own, and the interpreter would wait for it before its first line. */
static unsigned long hash_seed(void)
{
    char text[65536], digits[9] = "";
    int fd = open("/zone/launch.json", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[size > 0 ? size : 0] = 0;
    char *seed = strstr(text, "\"seed\":\"");
    if (seed && strspn(seed += 8, "0123456789abcdef") == 64)
        memcpy(digits, seed + 56, 8);
    return strtoul(digits, NULL, 16);
}

static void die(const char *why)
{
    dprintf(2, "zone: the interpreter did not start: %s\n", why ? why : "no reason given");
    _exit(70);
}

int main(int argc, char **argv)
{
    PyPreConfig pre;
    PyConfig config;
    PyStatus status;

    PyPreConfig_InitIsolatedConfig(&pre);
    pre.utf8_mode = 1;
    status = Py_PreInitialize(&pre);
    if (PyStatus_Exception(status))
        die(status.err_msg);

    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.install_signal_handlers = 0; /* SIGPIPE must reach the workload as it was */
    config.pathconfig_warnings = 0;
    config.write_bytecode = 0;
    config.parse_argv = 0;
    config.buffered_stdio = 0;
    config.module_search_paths_set = 1;
    if ((config.hash_seed = hash_seed()) != 0)
        config.use_hash_seed = 1;
    PyConfig_SetString(&config, &config.home, L"/");
    PyConfig_SetString(&config, &config.program_name, L"/init");
    PyConfig_SetString(&config, &config.executable, L"/init");
    PyConfig_SetString(&config, &config.stdio_encoding, L"utf-8");
    PyConfig_SetString(&config, &config.stdio_errors, L"backslashreplace");
    PyConfig_SetBytesArgv(&config, argc, argv);
    /* In two steps, to keep it from looking for garbage meanwhile, of which there is none. */
    config._init_main = 0;
    status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (!PyStatus_Exception(status)) {
        PyGC_Disable();
        status = _Py_InitializeMain();
    }
    if (PyStatus_Exception(status))
        die(status.err_msg);

    PyObject *entry = PyImport_ImportModule("runtime.init.entry");
    PyObject *code = entry ? PyObject_CallMethod(entry, "main", NULL) : NULL;
    if (!code) {
        PyErr_Print();
        _exit(70);
    }
    long exit_code = PyLong_AsLong(code);
    /* No Py_FinalizeEx: nothing is buffered, and an init that ends has powered the zone off. */
    _exit((int)exit_code);
}
