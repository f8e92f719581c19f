/* Makes the system refuse: loaded with LD_PRELOAD, it looks for files named by the environment before it calls on.
 *
 * FAULT_FSYNC     while this file exists, fsync and fdatasync fail with EIO
 * FAULT_FOLDER    while this file exists, fsync of a store's directory fails with EIO
 * FAULT_WRITE     while this file exists, a write to a file in a journal's folder writes half and then fails with ENOSPC
 * FAULT_TRUNCATE  while this file exists, ftruncate fails with EIO
 * FAULT_RENAME    while this file exists, rename fails with EIO
 * FAULT_SLOW      while this file exists, fdatasync takes 20 ms, and each adds a byte to the file
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int asked(const char *name) {
    const char *path = getenv(name);
    return path && access(path, F_OK) == 0;
}

static int refuse(int error) {
    errno = error;
    return -1;
}

static int where(int file, char *path, size_t n) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, n - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

static int is_store(int file) {
    struct stat what;
    char path[4096];
    return !fstat(file, &what) && S_ISDIR(what.st_mode) && where(file, path, sizeof path) && !strstr(path, "/journal");
}

int fsync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    if (asked("FAULT_FOLDER") && is_store(file)) return refuse(EIO);
    return asked("FAULT_FSYNC") ? refuse(EIO) : real(file);
}

int fdatasync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (asked("FAULT_SLOW")) {
        int count = open(getenv("FAULT_SLOW"), O_WRONLY | O_APPEND);
        if (count >= 0) {
            if (dprintf(count, ".") < 0) return refuse(EIO);
            close(count);
        }
        usleep(20000);
    }
    return asked("FAULT_FSYNC") ? refuse(EIO) : real(file);
}

static int in_journal(int file) {
    char path[4096];
    return where(file, path, sizeof path) && strstr(path, "/journal/") != NULL;
}

ssize_t write(int file, const void *bytes, size_t n) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (n > 8 && in_journal(file) && asked("FAULT_WRITE")) {
        static int half;
        half = !half;
        return half ? real(file, bytes, n / 2) : refuse(ENOSPC);
    }
    return real(file, bytes, n);
}

static int cut(const char *name, int file, off_t length) {
    int (*real)(int, off_t) = (int (*)(int, off_t))dlsym(RTLD_NEXT, name);
    return asked("FAULT_TRUNCATE") && in_journal(file) ? refuse(EIO) : real(file, length);
}

int ftruncate(int file, off_t length) { return cut("ftruncate", file, length); }
int ftruncate64(int file, off_t length) { return cut("ftruncate64", file, length); }

int rename(const char *from, const char *to) {
    static int (*real)(const char *, const char *);
    if (!real) real = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    return asked("FAULT_RENAME") ? refuse(EIO) : real(from, to);
}
