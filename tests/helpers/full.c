/* A disk that becomes full: loaded with LD_PRELOAD, it lets so many calls through that change the files below a
 * directory, and refuses all that come after them.
 *
 * full_after(directory, n)  n calls are let through from now on
 * full_refused()            how many were refused since
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char below[4096];
static long left = 0, refused = 0;

void full_after(const char *directory, long n) {
    snprintf(below, sizeof below, "%s", directory);
    left = n;
    refused = 0;
}

long full_refused(void) { return refused; }

static int full(const char *path) {
    if (!below[0] || strncmp(path, below, strlen(below))) return 0;
    if (left-- > 0) return 0;
    left = 0;
    refused++;
    errno = ENOSPC;
    return 1;
}

static int full_file(int file) {
    char link[64], path[4096];
    if (!below[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return full(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *bytes, size_t n) { return full_file(file) ? -1 : REAL(write)(file, bytes, n); }
ssize_t pwrite(int file, const void *bytes, size_t n, off_t at) {
    return full_file(file) ? -1 : REAL(pwrite)(file, bytes, n, at);
}
ssize_t pwrite64(int file, const void *bytes, size_t n, off64_t at) {
    return full_file(file) ? -1 : REAL(pwrite64)(file, bytes, n, at);
}
int ftruncate(int file, off_t length) { return full_file(file) ? -1 : REAL(ftruncate)(file, length); }
int ftruncate64(int file, off64_t length) { return full_file(file) ? -1 : REAL(ftruncate64)(file, length); }
int fsync(int file) { return full_file(file) ? -1 : REAL(fsync)(file); }
int fdatasync(int file) { return full_file(file) ? -1 : REAL(fdatasync)(file); }
int rename(const char *from, const char *to) { return full(to) ? -1 : REAL(rename)(from, to); }
int renameat(int from_at, const char *from, int to_at, const char *to) {
    return full_file(to_at) ? -1 : REAL(renameat)(from_at, from, to_at, to);
}
