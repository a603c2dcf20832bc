/* Preloaded into the server: while the file named by FAIL_SYNC exists, the next sync of a segment of
 * the log removes that file and fails. As on Linux, later syncs succeed, though nothing was written. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd) {
    char link[64], path[4096];
    const char *control = getenv("FAIL_SYNC");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!control || length < 4 || memcmp(path + length - 4, ".log", 4) != 0 || unlink(control) != 0)
        return 0;
    errno = EIO;
    return 1;
}

int fdatasync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return fails(fd) ? -1 : next(fd);
}

int fsync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return fails(fd) ? -1 : next(fd);
}
