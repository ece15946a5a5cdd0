/* Counts the instructions that an emulated machine executes: in user mode, and in the kernel from the first of those
 * on. A plugin of QEMU's (TCG): compiled with gcc -shared -fPIC, loaded with -plugin FILE.
 *
 * Says, when a program executes the mark of guest.py, and at the end:
 *     counted: user N kernel M at mark|end
 * A string instruction counts for each of its steps; of a kernel that has started, addresses are negative numbers.
 * What the firmware and the unpacking of the kernel execute comes before the kernel's first, and is left out.
 *
 * Source:  QEMU, docs/devel/tcg-plugins.rst and include/qemu/qemu-plugin.h (version 1 of the interface): the header is
 * in none of Debian's packages, so what is used of it is declared here.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*translated_cb)(uint64_t id, struct qemu_plugin_tb *tb);
enum { ADD_U64 = 0, NO_REGISTERS = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, translated_cb callback);
void qemu_plugin_register_atexit_cb(uint64_t id, void (*callback)(uint64_t id, void *data), void *data);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int operation, void *at, uint64_t value);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*callback)(unsigned vcpu, void *data),
                                            int flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t number);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);

int qemu_plugin_version = 1;

static const unsigned char mark[] = {0x0f, 0x1f, 0x84, 0x00, 0x37, 0x13, 0x37, 0x13}; /* nopl 0x13371337(%rax,%rax) */
static uint64_t user, kernel, kernel_before;
static int kernel_runs, user_runs;

static void say(const char *where)
{
    fprintf(stderr, "counted: user %" PRIu64 " kernel %" PRIu64 " at %s\n", user, kernel - kernel_before, where);
}

static void marked(unsigned vcpu, void *data)
{
    (void)vcpu, (void)data;
    say("mark");
}

static void ended(uint64_t id, void *data)
{
    (void)id, (void)data;
    say("end");
}

/* Called before a block is executed for the first time: what begins with it is seen here. */
static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    for (size_t at = 0; at < qemu_plugin_tb_n_insns(tb); at++) {
        struct qemu_plugin_insn *one = qemu_plugin_tb_get_insn(tb, at);
        if (qemu_plugin_insn_vaddr(one) >> 63) {
            kernel_runs = 1;
            qemu_plugin_register_vcpu_insn_exec_inline(one, ADD_U64, &kernel, 1);
        } else if (kernel_runs) {
            if (!user_runs) {
                user_runs = 1;
                kernel_before = kernel;
            }
            if (qemu_plugin_insn_size(one) == sizeof mark && !memcmp(qemu_plugin_insn_data(one), mark, sizeof mark))
                qemu_plugin_register_vcpu_insn_exec_cb(one, marked, NO_REGISTERS, NULL);
            qemu_plugin_register_vcpu_insn_exec_inline(one, ADD_U64, &user, 1);
        }
    }
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
