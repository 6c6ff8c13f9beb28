/* Records what a process does to the files below TRACE_ROOT, in order, into TRACE_FILE.
 *
 * Preloaded (LD_PRELOAD) into a process that uses a library which does its own system calls, as
 * RocksDB does. Each call and its record are made under one lock, so that the order is true with
 * many threads. tests/storage/traces.py reads the records and tells what a power cut would leave.
 * recorder_fail(n, errno) makes the n-th call from then on that changes something fail (from 0).
 *
 * record = op (1), pad (3), i32 fd, i64 number, u32 bytes of a, u32 bytes of b, a, b
 *   O open(fd, number: flags, a: path)   C close(fd)    W write(fd, number: offset, a: data)
 *   T size(fd, number)                   S sync(fd)     F sync that failed(fd)
 *   R rename(a, b)   L link(a, b)   U unlink(a)   M mkdir(a)   D rmdir(a)
 *   X mapped for writing(fd)             E call that failed as planned(a: its name)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES_MAX 4096
#define REAL(name) ((__typeof__(&name))real(#name))

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static char root[PATH_MAX];
static size_t root_bytes;
static int trace = -1;
static char known[FILES_MAX];     /* 1: below the root; 2: the program's own notes, MARKS */
static char appending[FILES_MAX]; /* opened with O_APPEND */
static long fail_at = -1, calls;
static int fail_errno;

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

__attribute__((constructor)) static void begin(void) {
    const char *where = getenv("TRACE_ROOT"), *file = getenv("TRACE_FILE");
    if (!where || !file) return;
    snprintf(root, sizeof root, "%s/", where);
    root_bytes = strlen(root);
    trace = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (trace < 0) abort();
}

static void put(const void *data, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t n = syscall(SYS_write, trace, (const char *)data + done, size - done);
        if (n <= 0) abort();
        done += n;
    }
}

static void record(char op, int fd, int64_t number, const void *a, size_t a_bytes, const void *b,
                   size_t b_bytes) {
    struct { char op, pad[3]; int32_t fd; int64_t number; uint32_t a, b; } head = {
        op, {0}, fd, number, (uint32_t)a_bytes, (uint32_t)b_bytes};
    put(&head, sizeof head);
    put(a, a_bytes);
    put(b, b_bytes);
}

/* Whether a path lies below the root; `full` gets it, absolute. */
static int below(int directory, const char *path, char *full) {
    if (trace < 0) return 0;
    full[0] = 0;
    if (path[0] != '/') {
        char link[64];
        if (directory == AT_FDCWD) {
            if (!getcwd(full, PATH_MAX)) return 0;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
            ssize_t n = readlink(link, full, PATH_MAX - 1);
            if (n < 0) return 0;
            full[n] = 0;
        }
        strncat(full, "/", PATH_MAX - strlen(full) - 1);
    }
    strncat(full, path, PATH_MAX - strlen(full) - 1);
    if (strncmp(full, root, root_bytes) == 0) return 1;
    return strlen(full) + 1 == root_bytes && strncmp(full, root, root_bytes - 1) == 0;
}

static int is_known(int fd) { return trace >= 0 && fd >= 0 && fd < FILES_MAX && known[fd]; }

/* Counts a call that changes something; whether it is the one that is to fail. */
static int fails(const char *name) {
    if (calls++ != fail_at) return 0;
    record('E', -1, 0, name, strlen(name), "", 0);
    errno = fail_errno;
    return 1;
}

/* For the program itself, by ctypes; n below 0: none fails. Returns how many were counted before. */
long recorder_fail(long n, int number) {
    pthread_mutex_lock(&lock);
    long before = calls;
    fail_at = n;
    fail_errno = number;
    calls = 0;
    pthread_mutex_unlock(&lock);
    return before;
}

#define LOCKED(body)                                                                               \
    do {                                                                                           \
        pthread_mutex_lock(&lock);                                                                 \
        body;                                                                                      \
        int kept = errno;                                                                          \
        pthread_mutex_unlock(&lock);                                                               \
        errno = kept;                                                                              \
    } while (0)

static int open_at(int directory, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    int fd = -1;
    if (!below(directory, path, full)) {
        return (int)syscall(SYS_openat, directory, path, flags, mode);
    }
    LOCKED({
        struct stat state;
        int makes = (flags & O_TRUNC) || ((flags & O_CREAT) && stat(full, &state) != 0);
        if (!makes || !fails("open")) {
            fd = (int)syscall(SYS_openat, directory, path, flags, mode);
            if (fd >= 0 && fd < FILES_MAX) {
                size_t size = strlen(full);
                known[fd] = size > 6 && strcmp(full + size - 6, "/MARKS") == 0 ? 2 : 1;
                appending[fd] = (flags & O_APPEND) != 0;
                record('O', fd, flags, full, strlen(full), "", 0);
            }
        }
    });
    return fd;
}

#define WITH_MODE                                                                                  \
    mode_t mode = 0;                                                                               \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                           \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode = va_arg(rest, mode_t);                                                               \
        va_end(rest);                                                                              \
    }
int open(const char *path, int flags, ...) { WITH_MODE return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { WITH_MODE return open_at(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { WITH_MODE return open_at(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { WITH_MODE return open_at(at, path, flags, mode); }

int close(int fd) {
    int result = 0;
    if (!is_known(fd)) return (int)syscall(SYS_close, fd);
    LOCKED({
        record('C', fd, 0, "", 0, "", 0);
        known[fd] = 0;
        result = (int)syscall(SYS_close, fd);
    });
    return result;
}

static ssize_t write_at(int fd, const void *data, size_t size, off_t offset) {
    ssize_t n = -1;
    LOCKED({
        if (known[fd] == 2 || !fails("write")) {
            if (offset >= 0) {
                n = syscall(SYS_pwrite64, fd, data, size, offset);
            } else {
                n = syscall(SYS_write, fd, data, size);
                if (n > 0) {
                    struct stat state;
                    offset = appending[fd] && fstat(fd, &state) == 0 ? state.st_size - n
                                                                     : lseek(fd, 0, SEEK_CUR) - n;
                }
            }
            if (n > 0) record('W', fd, offset, data, n, "", 0);
        }
    });
    return n;
}

ssize_t write(int fd, const void *data, size_t size) {
    return is_known(fd) ? write_at(fd, data, size, -1) : syscall(SYS_write, fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return is_known(fd) ? write_at(fd, data, size, offset)
                        : syscall(SYS_pwrite64, fd, data, size, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    return pwrite(fd, data, size, offset);
}
static ssize_t write_pieces(int fd, const struct iovec *pieces, int count, off_t offset) {
    ssize_t done = 0;
    for (int k = 0; k < count; k++) {
        ssize_t n = write_at(fd, pieces[k].iov_base, pieces[k].iov_len, offset < 0 ? -1 : offset + done);
        if (n < 0) return done ? done : n;
        done += n;
    }
    return done;
}
ssize_t writev(int fd, const struct iovec *pieces, int count) {
    return is_known(fd) ? write_pieces(fd, pieces, count, -1) : syscall(SYS_writev, fd, pieces, count);
}
ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset) {
    return is_known(fd) ? write_pieces(fd, pieces, count, offset)
                        : REAL(pwritev)(fd, pieces, count, offset);
}
ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t offset) {
    return pwritev(fd, pieces, count, offset);
}

static int sync_file(int fd, long number) {
    int result = -1;
    if (!is_known(fd)) return (int)syscall(number, fd);
    LOCKED({
        int failed = fails("sync");
        if (!failed) result = (int)syscall(number, fd);
        record(result ? 'F' : 'S', fd, 0, "", 0, "", 0);
        if (failed) errno = fail_errno;
    });
    return result;
}
int fsync(int fd) { return sync_file(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_file(fd, SYS_fdatasync); }

static int size_file(int fd, off_t size) {
    int result = -1;
    if (!is_known(fd)) return (int)syscall(SYS_ftruncate, fd, size);
    LOCKED({
        if (!fails("truncate") && (result = (int)syscall(SYS_ftruncate, fd, size)) == 0) {
            record('T', fd, size, "", 0, "", 0);
        }
    });
    return result;
}
int ftruncate(int fd, off_t size) { return size_file(fd, size); }
int ftruncate64(int fd, off64_t size) { return size_file(fd, size); }

static int reserve(int fd, int mode, off_t offset, off_t size) {
    int result = -1;
    if (!is_known(fd)) return (int)syscall(SYS_fallocate, fd, mode, offset, size);
    LOCKED({
        struct stat state;
        if (!fails("allocate") && (result = (int)syscall(SYS_fallocate, fd, mode, offset, size)) == 0 &&
            !(mode & FALLOC_FL_KEEP_SIZE) && fstat(fd, &state) == 0) {
            record('T', fd, state.st_size, "", 0, "", 0);
        }
    });
    return result;
}
int fallocate(int fd, int mode, off_t offset, off_t size) { return reserve(fd, mode, offset, size); }
int fallocate64(int fd, int mode, off64_t offset, off64_t size) { return reserve(fd, mode, offset, size); }
int posix_fallocate(int fd, off_t offset, off_t size) { return reserve(fd, 0, offset, size) ? errno : 0; }
int posix_fallocate64(int fd, off64_t offset, off64_t size) { return posix_fallocate(fd, offset, size); }

static int two_paths(char op, const char *name, int from_at, const char *from, int to_at,
                     const char *to, long number, unsigned flags) {
    char a[PATH_MAX], b[PATH_MAX];
    int result = -1, inside = below(from_at, from, a) | below(to_at, to, b);
    LOCKED({
        if (!inside || !fails(name)) {
            result = (int)syscall(number, from_at, from, to_at, to, flags);
            if (inside && result == 0) record(op, -1, 0, a, strlen(a), b, strlen(b));
        }
    });
    return result;
}
int rename(const char *from, const char *to) {
    return two_paths('R', "rename", AT_FDCWD, from, AT_FDCWD, to, SYS_renameat2, 0);
}
int renameat(int from_at, const char *from, int to_at, const char *to) {
    return two_paths('R', "rename", from_at, from, to_at, to, SYS_renameat2, 0);
}
int link(const char *from, const char *to) {
    return two_paths('L', "link", AT_FDCWD, from, AT_FDCWD, to, SYS_linkat, 0);
}
int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    return two_paths('L', "link", from_at, from, to_at, to, SYS_linkat, flags);
}

int unlinkat(int at, const char *path, int flags) {
    char full[PATH_MAX];
    int result = -1, inside = below(at, path, full);
    LOCKED({
        if (!inside || !fails("unlink")) {
            result = (int)syscall(SYS_unlinkat, at, path, flags);
            if (inside && result == 0) {
                record(flags & AT_REMOVEDIR ? 'D' : 'U', -1, 0, full, strlen(full), "", 0);
            }
        }
    });
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int at, const char *path, mode_t mode) {
    char full[PATH_MAX];
    int result = -1, inside = below(at, path, full);
    LOCKED({
        if (!inside || !fails("mkdir")) {
            result = (int)syscall(SYS_mkdirat, at, path, mode);
            if (inside && result == 0) record('M', -1, 0, full, strlen(full), "", 0);
        }
    });
    return result;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

static void *map(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    if (is_known(fd) && (protection & PROT_WRITE) && (flags & MAP_SHARED)) {
        LOCKED(record('X', fd, 0, "", 0, "", 0));
    }
    return (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset);
}
void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    return map(at, size, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t offset) {
    return map(at, size, protection, flags, fd, offset);
}

/* Copies within the kernel would not be seen: who tries one falls back to read and write. */
ssize_t sendfile(int out, int in, off_t *offset, size_t count) {
    (void)in, (void)offset, (void)count;
    if (!is_known(out)) return syscall(SYS_sendfile, out, in, offset, count);
    errno = EINVAL;
    return -1;
}
ssize_t sendfile64(int out, int in, off64_t *offset, size_t count) { return sendfile(out, in, offset, count); }
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t count, unsigned flags) {
    if (!is_known(out)) return syscall(SYS_copy_file_range, in, in_at, out, out_at, count, flags);
    errno = EXDEV;
    return -1;
}
