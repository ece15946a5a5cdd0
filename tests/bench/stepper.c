/* The part of instructions.py that happens for every instruction: a step of a traced process, and the next one.
   Source: ptrace(2), waitpid(2). */
#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <stddef.h>

enum { MOST = 256 };
static struct { pid_t pid; unsigned long at; } stepped[MOST];
static int number;

static int place_of(pid_t pid) {
    for (int i = 0; i < number; i++)
        if (stepped[i].pid == pid) return i;
    return -1;
}

/* Step this one from now on; 0, or -1 where there are too many. at: where it is. */
int add(pid_t pid, unsigned long at) {
    if (number == MOST) return -1;
    stepped[number].pid = pid;
    stepped[number++].at = at;
    return 0;
}

/* It has ended. */
void drop(pid_t pid) {
    int at = place_of(pid);
    if (at >= 0) stepped[at] = stepped[--number];
}

/* Step until something else happens than a step; its pid and wait status, or a negative errno. A string instruction
   that goes on stays where it is: it is one, and so the processor's counter has it. */
pid_t follow(int *status, unsigned long *count) {
    for (;;) {
        pid_t pid = waitpid(-1, status, __WALL);
        if (pid < 0) return -errno;
        int at = place_of(pid);
        if (at < 0 || !WIFSTOPPED(*status) || *status >> 8 != SIGTRAP) return pid;
        unsigned long here = ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, rip), 0);
        if (here != stepped[at].at) {
            stepped[at].at = here;
            ++*count;
        }
        ptrace(PTRACE_SINGLESTEP, pid, 0, 0);
    }
}
