/*
 * Simulates a slow or broken disk with LD_PRELOAD. DISK_FILES lists the files on it, separated by colons.
 * Each call that opens one of them or reads its metadata takes DISK_SECONDS, and then fails with the error
 * number DISK_ERROR unless that is 0.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_on_disk(const char *path)
{
    const char *files = getenv("DISK_FILES");
    size_t length = strlen(path);
    while (files) {
        size_t end = strcspn(files, ":");
        if (end == length && strncmp(files, path, length) == 0)
            return 1;
        files = files[end] ? files + end + 1 : NULL;
    }
    return 0;
}

static int fails(const char *path)
{
    if (!path || !is_on_disk(path))
        return 0;
    for (unsigned left = atoi(getenv("DISK_SECONDS")); left;)
        left = sleep(left);
    errno = atoi(getenv("DISK_ERROR"));
    return errno != 0;
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return fails(path) ? -1 : syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int statx(int folder, const char *path, int flags, unsigned mask, struct statx *found)
{
    return fails(path) ? -1 : syscall(SYS_statx, folder, path, flags, mask, found);
}
