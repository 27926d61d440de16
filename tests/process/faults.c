/* Preloaded into a node by the tests: makes its clock, its disk and its end a matter of a small file.

   MLCHAIN_FAULTS names a file that holds a `struct control`, shared with the test. Only what happens
   to files under `prefix` is touched. With MLCHAIN_RECORD every such call is written to that file,
   before it is made, so that a disk can be computed for any moment (recorded.py). */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 4096

struct control {           /* fault_shim.py has the same */
    int64_t clock_offset_ns;
    int64_t sync_delay_us;
    int64_t calls;         /* calls seen */
    int64_t fails_at;      /* number of the call that fails; -1: none */
    int64_t fails_until;   /* and all calls up to this one */
    int64_t error;         /* errno; 0: the process ends, half of a write made */
    char prefix[256];
};

static struct control *control;
static char followed[MAX_FD];
static int record = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name, type, ...) static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("MLCHAIN_FAULTS");
    if (!path) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    path = getenv("MLCHAIN_RECORD");
    if (path) record = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (at != MAP_FAILED) control = at;
}

static int is_ours(const char *path)
{
    size_t length = control ? strlen(control->prefix) : 0;
    return length && path && !strncmp(path, control->prefix, length);
}

static int is_followed(int fd) { return control && fd >= 0 && fd < MAX_FD && followed[fd]; }

/* kind, a number, and two strings of bytes: one record */
static void note(char kind, int64_t number, const void *one, int64_t size, const char *other)
{
    REAL(write, ssize_t, int, const void *, size_t);
    if (record < 0) return;
    int64_t head[3] = {number, size, other ? (int64_t)strlen(other) : 0};
    pthread_mutex_lock(&lock);
    ssize_t done = real(record, &kind, 1) + real(record, head, sizeof head);
    if (size) done += real(record, one, size);
    if (other) done += real(record, other, strlen(other));
    (void)done;
    pthread_mutex_unlock(&lock);
}

/* Counts a call; returns 1 if it has to fail. The process ends here if that is how it fails. */
static int fails(int needs_space)
{
    int64_t number = __atomic_fetch_add(&control->calls, 1, __ATOMIC_SEQ_CST);
    if (control->fails_at < 0 || number < control->fails_at || number >= control->fails_until)
        return 0;
    if (!control->error) return 1;
    if (control->error == ENOSPC && !needs_space) return 0;
    errno = (int)control->error;
    return 1;
}

static void end(void) { if (!control->error) _exit(137); }

static int follow(int fd, const char *path, int flags)
{
    if (fd >= 0 && fd < MAX_FD) {
        followed[fd] = (char)is_ours(path);
        if (followed[fd]) note('o', fd, &flags, sizeof flags, path);
    }
    return fd;
}

static int opened(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode)
{
    if (is_ours(path) && (flags & O_CREAT) && fails(1)) { end(); return -1; }
    return follow(real(path, flags, mode), path, flags);
}

#define OPEN(name) int name(const char *path, int flags, ...) { \
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
    REAL(name, int, const char *, int, ...); return opened(real, path, flags, mode); }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write, ssize_t, int, const void *, size_t);
    if (!is_followed(fd)) return real(fd, data, size);
    if (fails(1)) {
        note('w', fd, data, size / 2, NULL);
        ssize_t done = real(fd, data, size / 2);
        end();
        if (control->error == ENOSPC && done > 0) return done;
        errno = (int)control->error;
        return -1;
    }
    note('w', fd, data, size, NULL);
    return real(fd, data, size);
}

static int synced(int (*real)(int), int fd)
{
    if (!is_followed(fd)) return real(fd);
    if (control->sync_delay_us) usleep((useconds_t)control->sync_delay_us);
    if (fails(0)) { end(); note('x', fd, NULL, 0, NULL); return -1; }
    int result = real(fd);
    note('s', fd, NULL, 0, NULL);
    return result;
}

int fsync(int fd) { REAL(fsync, int, int); return synced(real, fd); }
int fdatasync(int fd) { REAL(fdatasync, int, int); return synced(real, fd); }

int rename(const char *old, const char *name)
{
    REAL(rename, int, const char *, const char *);
    if (!is_ours(name)) return real(old, name);
    if (fails(1)) { end(); return -1; }
    note('r', 0, old, strlen(old), name);
    return real(old, name);
}

int unlink(const char *path)
{
    REAL(unlink, int, const char *);
    if (!is_ours(path)) return real(path);
    if (fails(0)) { end(); return -1; }
    note('u', 0, NULL, 0, path);
    return real(path);
}

int close(int fd)
{
    REAL(close, int, int);
    if (is_followed(fd)) { followed[fd] = 0; note('c', fd, NULL, 0, NULL); }
    return real(fd);
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    REAL(clock_gettime, int, clockid_t, struct timespec *);
    int result = real(clock, at);
    if (control && clock == CLOCK_REALTIME && !result) {
        at->tv_sec += control->clock_offset_ns / 1000000000;
        at->tv_nsec += control->clock_offset_ns % 1000000000;
        if (at->tv_nsec >= 1000000000) { at->tv_nsec -= 1000000000; at->tv_sec++; }
        if (at->tv_nsec < 0) { at->tv_nsec += 1000000000; at->tv_sec--; }
    }
    return result;
}
