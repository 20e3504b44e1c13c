// Loaded by LD_PRELOAD: counts the calls of libc that touch files below some folders, and makes the n-th of them fail,
// kill the process, or write only half. Python, pyarrow, SQLite, libgit2 and Rust's libraries all call these functions.
// Nothing happens until `shim_arm` is called. A forked child is not armed.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, RENAME = 4, UNLINK = 8, MKDIR = 16, SYNC = 32, TRUNCATE = 64, LINK = 128,
       READ = 256, OPEN_READ = 512, THREAD = 1024, FORK = 2048, CLOCK = 4096 };
enum { COUNT, KILL, TORN, FAIL, FAIL_FROM, SHORT, JUMP };  // TORN: half of a write, then a kill
enum { PASS, REFUSE, HALF, HALF_AND_KILL };

static volatile int armed;
static char prefixes[8][PATH_MAX];
static unsigned mask;
static long nth, calls, clock_jump_s, clock_offset_s;
static int action, error_number, trace_fd = -1, no_sleep;

static void disarm_child(void) { armed = 0; }
__attribute__((constructor)) static void start(void) { pthread_atfork(NULL, NULL, disarm_child); }

// `folders` are separated by newlines. Each call that counts is a line `operation path` in `trace` with COUNT; with the
// other actions only the n-th one is.
void shim_arm(const char *folders, unsigned operations, int what, long n, int number, int trace, long jump_s) {
    int i = 0;
    memset(prefixes, 0, sizeof prefixes);
    for (const char *at = folders; *at && i < 8; i++) {
        size_t length = strcspn(at, "\n");
        snprintf(prefixes[i], PATH_MAX, "%.*s", (int)length, at);
        at += length + (at[length] == '\n');
    }
    mask = operations; action = what; nth = n; error_number = number; trace_fd = trace; clock_jump_s = jump_s;
    calls = 0;
    armed = 1;
}
void shim_no_sleep(void) { no_sleep = 1; }

static int is_below(const char *path) {
    for (int i = 0; i < 8 && prefixes[i][0]; i++) {
        size_t length = strlen(prefixes[i]);
        if (!strncmp(path, prefixes[i], length) && (!path[length] || path[length] == '/')) return 1;
    }
    return 0;
}

static const char *resolve(int folder, const char *path, char *buffer) {
    if (path && path[0] == '/') return path;
    char link[64];
    ssize_t length;
    if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    length = readlink(link, buffer, PATH_MAX - 1);
    if (length < 0) length = 0;
    snprintf(buffer + length, PATH_MAX - length, path ? "/%s" : "%s", path ? path : "");
    return buffer;
}

static void trace(const char *name, const char *path) {
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s %s\n", name, path);
    if (trace_fd >= 0) syscall(SYS_write, trace_fd, line, length);
}

static int decide(const char *name, const char *path) {
    long number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (action == COUNT) { trace(name, path); return PASS; }
    if (number == nth) trace(name, path);
    if (action == FAIL_FROM ? number < nth : number != nth) return PASS;
    switch (action) {
    case KILL: syscall(SYS_kill, getpid(), SIGKILL); pause(); return PASS;
    case TORN: return HALF_AND_KILL;
    case SHORT: return HALF;
    case JUMP: clock_offset_s = clock_jump_s; return PASS;
    default: errno = error_number; return REFUSE;
    }
}

static int strike(unsigned operation, const char *name, int folder, const char *path) {
    char buffer[PATH_MAX];
    int before = errno;
    if (!armed || !(mask & operation)) return PASS;
    path = resolve(folder, path, buffer);
    errno = before;
    return is_below(path) ? decide(name, path) : PASS;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define ON(operation, name, folder, path, failed) if (strike(operation, name, folder, path) == REFUSE) return failed

// ---- Opening ----
#define WRITES(flags) (((flags) & O_ACCMODE) != O_RDONLY || ((flags) & (O_CREAT | O_TRUNC)))
#define OPENED(flags) (WRITES(flags) ? OPEN : OPEN_READ)
#define MODE mode_t mode = 0; if (flags & (O_CREAT | __O_TMPFILE)) { va_list l; va_start(l, flags); \
    mode = va_arg(l, mode_t); va_end(l); }
#define OPENS(name) int name(const char *path, int flags, ...) { REAL(name); MODE \
    ON(OPENED(flags), WRITES(flags) ? "open" : "open_read", AT_FDCWD, path, -1); return real(path, flags, mode); }
#define OPENS_AT(name) int name(int folder, const char *path, int flags, ...) { REAL(name); MODE \
    ON(OPENED(flags), WRITES(flags) ? "open" : "open_read", folder, path, -1); \
    return real(folder, path, flags, mode); }
OPENS(open) OPENS(open64) OPENS_AT(openat) OPENS_AT(openat64)
int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
#define FOPENS(name) FILE *name(const char *path, const char *mode) { REAL(name); int w = strpbrk(mode, "wa+") != 0; \
    ON(w ? OPEN : OPEN_READ, w ? "open" : "open_read", AT_FDCWD, path, NULL); return real(path, mode); }
FOPENS(fopen) FOPENS(fopen64)

// ---- Reading and writing ----
#define HALVES(size, call) switch (strike(WRITE, "write", file, NULL)) { \
    case REFUSE: return -1; \
    case HALF: size = size > 1 ? size / 2 : size; return call; \
    case HALF_AND_KILL: size /= 2; if (size) (void)!call; syscall(SYS_kill, getpid(), SIGKILL); pause(); return -1; \
    default: return call; }
ssize_t write(int file, const void *data, size_t size) { REAL(write); HALVES(size, real(file, data, size)) }
#define PWRITES(name, type) ssize_t name(int file, const void *data, size_t size, type at) { REAL(name); \
    HALVES(size, real(file, data, size, at)) }
PWRITES(pwrite, off_t) PWRITES(pwrite64, off64_t)
ssize_t writev(int file, const struct iovec *parts, int count) { REAL(writev);
    HALVES(count, real(file, parts, count)) }
#define SENDS(name, type) ssize_t name(int file, int from, type *at, size_t size) { REAL(name); \
    HALVES(size, real(file, from, at, size)) }
SENDS(sendfile, off_t) SENDS(sendfile64, off64_t)
ssize_t copy_file_range(int from, off64_t *at, int file, off64_t *to, size_t size, unsigned flags) {
    REAL(copy_file_range); HALVES(size, real(from, at, file, to, size, flags)) }
ssize_t read(int file, void *data, size_t size) { REAL(read);
    ON(READ, "read", file, NULL, -1); return real(file, data, size); }
#define PREADS(name, type) ssize_t name(int file, void *data, size_t size, type at) { REAL(name); \
    ON(READ, "read", file, NULL, -1); return real(file, data, size, at); }
PREADS(pread, off_t) PREADS(pread64, off64_t)
ssize_t readv(int file, const struct iovec *parts, int count) { REAL(readv);
    ON(READ, "read", file, NULL, -1); return real(file, parts, count); }

// ---- Folders and names ----
#define EITHER(operation, name, f1, p1, f2, p2) do { char b[PATH_MAX]; \
    if (armed && (mask & operation) && is_below(resolve(f1, p1, b))) { ON(operation, name, f1, p1, -1); } \
    else { ON(operation, name, f2, p2, -1); } } while (0)
int rename(const char *a, const char *b) { REAL(rename); EITHER(RENAME, "rename", AT_FDCWD, a, AT_FDCWD, b);
    return real(a, b); }
int renameat(int f, const char *a, int g, const char *b) { REAL(renameat); EITHER(RENAME, "rename", f, a, g, b);
    return real(f, a, g, b); }
int renameat2(int f, const char *a, int g, const char *b, unsigned flags) { REAL(renameat2);
    EITHER(RENAME, "rename", f, a, g, b); return real(f, a, g, b, flags); }
int link(const char *a, const char *b) { REAL(link); ON(LINK, "link", AT_FDCWD, b, -1); return real(a, b); }
int linkat(int f, const char *a, int g, const char *b, int flags) { REAL(linkat); ON(LINK, "link", g, b, -1);
    return real(f, a, g, b, flags); }
int symlink(const char *a, const char *b) { REAL(symlink); ON(LINK, "symlink", AT_FDCWD, b, -1); return real(a, b); }
int symlinkat(const char *a, int g, const char *b) { REAL(symlinkat); ON(LINK, "symlink", g, b, -1);
    return real(a, g, b); }
int unlink(const char *path) { REAL(unlink); ON(UNLINK, "unlink", AT_FDCWD, path, -1); return real(path); }
int unlinkat(int folder, const char *path, int flags) { REAL(unlinkat); ON(UNLINK, "unlink", folder, path, -1);
    return real(folder, path, flags); }
int rmdir(const char *path) { REAL(rmdir); ON(UNLINK, "rmdir", AT_FDCWD, path, -1); return real(path); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); ON(MKDIR, "mkdir", AT_FDCWD, path, -1);
    return real(path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { REAL(mkdirat); ON(MKDIR, "mkdir", folder, path, -1);
    return real(folder, path, mode); }
int fsync(int file) { REAL(fsync); ON(SYNC, "fsync", file, NULL, -1); return real(file); }
int fdatasync(int file) { REAL(fdatasync); ON(SYNC, "fdatasync", file, NULL, -1); return real(file); }
#define TRUNCATES(name, type) int name(int file, type size) { REAL(name); \
    ON(TRUNCATE, "truncate", file, NULL, -1); return real(file, size); }
TRUNCATES(ftruncate, off_t) TRUNCATES(ftruncate64, off64_t)
#define ALLOCATES(name, type) int name(int file, type at, type size) { REAL(name); \
    ON(TRUNCATE, "allocate", file, NULL, error_number); return real(file, at, size); }
ALLOCATES(posix_fallocate, off_t) ALLOCATES(posix_fallocate64, off64_t)

// ---- Threads, processes, clocks ----
static int strike_any(unsigned operation, const char *name) {
    return armed && (mask & operation) ? decide(name, "") : PASS;
}
// Only the threads that Python starts count: C++ libraries end the process, or wait forever, if they get none.
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*call)(void *), void *argument) {
    REAL(pthread_create);
    Dl_info caller;
    int is_python = armed && dladdr(__builtin_return_address(0), &caller) && strstr(caller.dli_fname, "python")
        && !strstr(caller.dli_fname, "site-packages");
    return is_python && strike_any(THREAD, "thread") == REFUSE ? error_number
        : real(thread, attributes, call, argument);
}
pid_t fork(void) { REAL(fork); return strike_any(FORK, "fork") == REFUSE ? -1 : real(); }
int clock_gettime(clockid_t clock, struct timespec *time) {
    REAL(clock_gettime);
    int code = real(clock, time);
    if (armed && clock == CLOCK_REALTIME) { strike_any(CLOCK, "clock"); time->tv_sec += clock_offset_s; }
    return code;
}
time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}
// The second argument is obsolete.
int gettimeofday(struct timeval *restrict into, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    into->tv_sec = now.tv_sec; into->tv_usec = now.tv_nsec / 1000;
    return 0;
}
int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *left) {
    REAL(clock_nanosleep);
    struct timespec brief = {0, 1000000};
    return no_sleep ? real(CLOCK_MONOTONIC, 0, &brief, left) : real(clock, flags, time, left);
}
