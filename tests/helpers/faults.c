/* Makes the system refuse: loaded with LD_PRELOAD, it looks for files named by the environment before it calls on.
 *
 * FAULT_FSYNC     while this file exists, fsync and fdatasync fail with EIO
 * FAULT_FOLDER    while this file exists, fsync of a store's directory fails with EIO
 * FAULT_WRITE     while this file exists, a write to a file in a journal's folder writes half and then fails with ENOSPC
 * FAULT_TRUNCATE  while this file exists, ftruncate fails with EIO
 * FAULT_RENAME    while this file exists, renameat fails with EIO
 * FAULT_SLOW      while this file exists, fdatasync takes 20 ms, and each adds a byte to the file
 *
 * The process itself calls fault_at(n, how): its n-th step from then on, of all that change what is on a disk, is its last
 * ('k'; of a write, half is done), or it and all behind it that need room are refused with ENOSPC ('f').
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
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

static atomic_long steps_left = -1;
static char step_fault;

void fault_at(long n, char how) {
    step_fault = how;
    steps_left = n;
}

/* Whether this is the step, or one behind it. */
static int is_due(void) {
    if (steps_left < 0) return 0;
    if (steps_left > 0 && --steps_left > 0) return 0;
    return 1;
}

static int end(void) {
    raise(SIGKILL);
    return -1;
}

/* Before a step that needs no room. */
static void step(void) {
    if (is_due() && step_fault == 'k') end();
}

/* Before one that does: whether it is refused. */
static int step_is_refused(void) {
    if (!is_due()) return 0;
    return step_fault == 'k' ? end() : 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int may_open(int flags) { return !(flags & O_CREAT) || !step_is_refused(); }

#define OPENED(call) \
    va_list more; \
    va_start(more, flags); \
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0; \
    va_end(more); \
    return may_open(flags) ? call : refuse(ENOSPC)

int open(const char *path, int flags, ...) { OPENED(REAL(open)(path, flags, mode)); }
int open64(const char *path, int flags, ...) { OPENED(REAL(open64)(path, flags, mode)); }
int openat(int at, const char *path, int flags, ...) { OPENED(REAL(openat)(at, path, flags, mode)); }
int openat64(int at, const char *path, int flags, ...) { OPENED(REAL(openat64)(at, path, flags, mode)); }

int mkdir(const char *path, mode_t mode) { return step_is_refused() ? refuse(ENOSPC) : REAL(mkdir)(path, mode); }

int mkdirat(int at, const char *path, mode_t mode) {
    return step_is_refused() ? refuse(ENOSPC) : REAL(mkdirat)(at, path, mode);
}

int linkat(int at, const char *path, int to, const char *name, int flags) {
    return step_is_refused() ? refuse(ENOSPC) : REAL(linkat)(at, path, to, name, flags);
}

int unlinkat(int at, const char *path, int flags) {
    step();
    return REAL(unlinkat)(at, path, flags);
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
    step();
    if (asked("FAULT_FOLDER") && is_store(file)) return refuse(EIO);
    return asked("FAULT_FSYNC") ? refuse(EIO) : real(file);
}

int fdatasync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    step();
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
    if (is_due()) {
        if (step_fault == 'f') return refuse(ENOSPC);
        if (real(file, bytes, n / 2) >= 0) end();
    }
    if (n > 8 && in_journal(file) && asked("FAULT_WRITE")) {
        static int half;
        half = !half;
        return half ? real(file, bytes, n / 2) : refuse(ENOSPC);
    }
    return real(file, bytes, n);
}

static int cut(const char *name, int file, off_t length) {
    int (*real)(int, off_t) = (int (*)(int, off_t))dlsym(RTLD_NEXT, name);
    step();
    return asked("FAULT_TRUNCATE") && in_journal(file) ? refuse(EIO) : real(file, length);
}

int ftruncate(int file, off_t length) { return cut("ftruncate", file, length); }
int ftruncate64(int file, off_t length) { return cut("ftruncate64", file, length); }

int renameat(int at, const char *from, int to, const char *name) {
    if (step_is_refused()) return refuse(ENOSPC);
    return asked("FAULT_RENAME") ? refuse(EIO) : REAL(renameat)(at, from, to, name);
}
