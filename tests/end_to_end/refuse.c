/*
 * refuse ERRNO CALL:LEVEL:OPTION... -- PROGRAM ARGUMENT...
 *
 * Execs a program in which setsockopt ("set") or getsockopt ("get") of these options fails with this error.
 * All numbers are the system's own.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MOST 64

static struct sock_filter filter[7 * MOST + 1];
static unsigned short length;

static void add(unsigned short code, unsigned value, unsigned char if_false)
{
    filter[length++] = (struct sock_filter){code, 0, if_false, value};
}

/* Continues if this part of the call equals `value`, and skips `left` more instructions otherwise. The high
 * half of the part is zero. */
static void want(size_t part, unsigned value, unsigned char left)
{
    if (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ && part != offsetof(struct seccomp_data, nr))
        part += 4;
    add(BPF_LD | BPF_W | BPF_ABS, part, 0);
    add(BPF_JMP | BPF_JEQ | BPF_K, value, left);
}

int main(int count, char **words)
{
    unsigned error = atoi(words[1]);
    int at = 2;
    for (; at < count && strcmp(words[at], "--"); at++) {
        char call[4];
        unsigned level, option;
        if (at - 2 >= MOST || sscanf(words[at], "%3[a-z]:%u:%u", call, &level, &option) != 3)
            return 125;
        want(offsetof(struct seccomp_data, nr),
             strcmp(call, "set") ? SYS_getsockopt : SYS_setsockopt, 5);
        want(offsetof(struct seccomp_data, args[1]), level, 3);
        want(offsetof(struct seccomp_data, args[2]), option, 1);
        add(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error, 0);
    }
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0);
    struct sock_fprog program = {length, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 125;
    execv(words[at + 1], words + at + 1);
    return 127;
}
