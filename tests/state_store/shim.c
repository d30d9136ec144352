/* Preloaded into a process that writes a state store: logs its writes and syncs in order, so that the test can build what
 * a disk might hold after a power cut. A record is: kind, offset u64, length u64, bytes.
 *   W  a write that a later sync makes durable     D  a write that was durable when it returned (O_DSYNC)
 *   S  a sync                                      A  an acknowledgement: the process told its caller
 * SHIM_LOG names the log. Writes to a file named `acks` are acknowledgements; other files than SHIM_FILE are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;

static ssize_t raw_write(int fd, const void *data, size_t length) {
    static ssize_t (*next)(int, const void *, size_t);
    if (!next) next = dlsym(RTLD_NEXT, "write");
    return next(fd, data, length);
}

static int ends_with(const char *path, const char *tail) {
    size_t a = strlen(path), b = strlen(tail);
    return a >= b && !strcmp(path + a - b, tail);
}

/* 0: not ours; 'W' or 'D': the data file; 'A': acknowledgements. */
static char kind_of(int fd) {
    char link[64], path[4096];
    const char *file = getenv("SHIM_FILE");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0 || !file) return 0;
    path[n] = 0;
    if (ends_with(path, "/acks")) return 'A';
    if (!ends_with(path, file)) return 0;
    return fcntl(fd, F_GETFL) & O_DSYNC ? 'D' : 'W';
}

static void put(const void *data, size_t length) {
    if (raw_write(log_fd, data, length) != (ssize_t)length) abort();
}

static void begin(char kind, uint64_t offset, uint64_t length) {
    pthread_mutex_lock(&lock);
    if (log_fd < 0) log_fd = open(getenv("SHIM_LOG"), O_CREAT | O_WRONLY | O_APPEND, 0600);
    if (log_fd < 0) abort();
    put(&kind, 1);
    put(&offset, 8);
    put(&length, 8);
}

static void record(int fd, const void *data, ssize_t length, off_t offset) {
    char kind = length > 0 ? kind_of(fd) : 0;
    if (!kind) return;
    begin(kind, offset, length);
    put(data, length);
    pthread_mutex_unlock(&lock);
}

static void record_vector(int fd, const struct iovec *parts, int count, ssize_t length, off_t offset) {
    for (int i = 0; i < count && length > 0; i++) {
        ssize_t part = (ssize_t)parts[i].iov_len < length ? (ssize_t)parts[i].iov_len : length;
        record(fd, parts[i].iov_base, part, offset);
        offset += part;
        length -= part;
    }
}

static void record_sync(int fd, int result) {
    if (result || !kind_of(fd)) return;
    begin('S', 0, 0);
    pthread_mutex_unlock(&lock);
}

ssize_t write(int fd, const void *data, size_t length) {
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t n = raw_write(fd, data, length);
    record(fd, data, n, at);
    return n;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    static ssize_t (*next)(int, const struct iovec *, int);
    if (!next) next = dlsym(RTLD_NEXT, "writev");
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t n = next(fd, parts, count);
    record_vector(fd, parts, count, n, at);
    return n;
}

#define PWRITE(name) \
    ssize_t name(int fd, const void *data, size_t length, off_t at) { \
        static ssize_t (*next)(int, const void *, size_t, off_t); \
        if (!next) next = dlsym(RTLD_NEXT, #name); \
        ssize_t n = next(fd, data, length, at); \
        record(fd, data, n, at); \
        return n; \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define PWRITEV(name) \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t at) { \
        static ssize_t (*next)(int, const struct iovec *, int, off_t); \
        if (!next) next = dlsym(RTLD_NEXT, #name); \
        ssize_t n = next(fd, parts, count, at); \
        record_vector(fd, parts, count, n, at); \
        return n; \
    }
PWRITEV(pwritev)
PWRITEV(pwritev64)

#define SYNC(name) \
    int name(int fd) { \
        static int (*next)(int); \
        if (!next) next = dlsym(RTLD_NEXT, #name); \
        int result = next(fd); \
        record_sync(fd, result); \
        return result; \
    }
SYNC(fdatasync)
SYNC(fsync)

/* A store through the map would escape the log: nothing here may sync one. */
int msync(void *at, size_t length, int flags) {
    (void)at, (void)length, (void)flags;
    fprintf(stderr, "shim: msync of a mapped file\n");
    abort();
}
