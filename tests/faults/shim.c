/* Fail or die at the k-th operation that changes files below a folder.

   Preloaded (LD_PRELOAD), it stands between the program and libc: all threads, all libraries. Nothing happens until
   `faults_arm` is called. From then on every operation below the folder is counted, and the k-th is where a process is
   killed (a write is left half done), finds the disk full (a write ends short, and whatever needs space fails from
   then on), or is refused once with an errno. */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { GO_ON, HALF, FAIL };

static char folder[PATH_MAX];
static size_t folder_length; /* 0: not armed */
static long chosen;          /* the operation to act at, from 1; 0: none, every operation is reported instead */
static int fault;            /* an errno, or 0 to be killed */
static int report;           /* descriptor for a line "name path" about an operation */
static atomic_long counted;

void faults_arm(const char *path, long operation, int error, int descriptor)
{
    chosen = operation;
    fault = error;
    report = descriptor;
    atomic_store(&counted, 0);
    strncpy(folder, path, sizeof folder - 1);
    folder_length = strlen(folder);
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static int below(const char *path)
{
    return strncmp(path, folder, folder_length) == 0 && (path[folder_length] == '/' || path[folder_length] == 0);
}

static void say(const char *name, const char *path)
{
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s %s\n", name, path[folder_length] ? path + folder_length + 1 : ".");
    syscall(SYS_write, report, line, (size_t)length);
}

/* What is to be done about an operation at an absolute path. */
static int judge(const char *name, const char *path, int takes_space)
{
    if (!below(path))
        return GO_ON;
    long number = atomic_fetch_add(&counted, 1) + 1;
    if (chosen == 0 || number == chosen)
        say(name, path);
    int later = number > chosen && fault == ENOSPC && takes_space;
    if (chosen == 0 || !(number == chosen || later))
        return GO_ON;
    if (number == chosen && strstr(name, "write") && (fault == 0 || fault == ENOSPC))
        return HALF;
    if (fault == 0)
        die();
    errno = fault;
    return FAIL;
}

static int link_of(char *path, const char *link)
{
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return length > 0;
}

static int at_descriptor(const char *name, int descriptor, int takes_space)
{
    char link[32], path[PATH_MAX];
    int before = errno;
    if (!folder_length)
        return GO_ON;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    int known = link_of(path, link);
    errno = before;
    return known ? judge(name, path, takes_space) : GO_ON;
}

static int at_path(const char *name, int directory, const char *given, int takes_space)
{
    char link[32], path[2 * PATH_MAX];
    int before = errno;
    if (!folder_length)
        return GO_ON;
    if (given[0] == '/') {
        snprintf(path, sizeof path, "%s", given);
    } else {
        if (directory == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        if (!link_of(path, link))
            return GO_ON;
        size_t length = strlen(path);
        snprintf(path + length, sizeof path - length, "/%s", given);
    }
    errno = before;
    return judge(name, path, takes_space);
}

/* What is there already is not made, and what is not there is not removed: then the call changes nothing. */
static int there(int directory, const char *path)
{
    int before = errno;
    int found = faccessat(directory, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    errno = before;
    return found;
}

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) \
        real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

/* --- opening for writing */

#define MODE(flags, last) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list more; \
        va_start(more, last); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }
#define WRITES(flags) (((flags) & O_ACCMODE) != O_RDONLY || ((flags) & (O_CREAT | O_TRUNC)))

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        MODE(flags, flags) \
        REAL(int, name, const char *, int, ...); \
        if (WRITES(flags) && at_path("open", AT_FDCWD, path, 1) == FAIL) \
            return -1; \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int directory, const char *path, int flags, ...) \
    { \
        MODE(flags, flags) \
        REAL(int, name, int, const char *, int, ...); \
        if (WRITES(flags) && at_path("open", directory, path, 1) == FAIL) \
            return -1; \
        return real(directory, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) \
    { \
        REAL(FILE *, name, const char *, const char *); \
        if (strpbrk(mode, "wa+") && at_path("open", AT_FDCWD, path, 1) == FAIL) \
            return NULL; \
        return real(path, mode); \
    }
FOPEN(fopen)
FOPEN(fopen64)

/* --- writing: half of it is done before a kill, or before the disk is full */

#define PART(name, descriptor, count, some) \
    switch (at_descriptor(name, descriptor, 1)) { \
    case FAIL: \
        return -1; \
    case HALF: { \
        ssize_t done = (count) > 1 ? (some) : 0; \
        if (fault == 0) \
            die(); \
        if (done > 0) \
            return done; \
        errno = fault; \
        return -1; \
    } \
    }

ssize_t write(int descriptor, const void *data, size_t count)
{
    REAL(ssize_t, write, int, const void *, size_t);
    PART("write", descriptor, count, real(descriptor, data, count / 2))
    return real(descriptor, data, count);
}

#define PWRITE(name) \
    ssize_t name(int descriptor, const void *data, size_t count, off_t offset) \
    { \
        REAL(ssize_t, name, int, const void *, size_t, off_t); \
        PART("pwrite", descriptor, count, real(descriptor, data, count / 2, offset)) \
        return real(descriptor, data, count, offset); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t writev(int descriptor, const struct iovec *parts, int count)
{
    REAL(ssize_t, writev, int, const struct iovec *, int);
    PART("writev", descriptor, count, real(descriptor, parts, count / 2))
    return real(descriptor, parts, count);
}

#define PWRITEV(name) \
    ssize_t name(int descriptor, const struct iovec *parts, int count, off_t offset) \
    { \
        REAL(ssize_t, name, int, const struct iovec *, int, off_t); \
        PART("pwritev", descriptor, count, real(descriptor, parts, count / 2, offset)) \
        return real(descriptor, parts, count, offset); \
    }
PWRITEV(pwritev)
PWRITEV(pwritev64)

#define PWRITEV2(name) \
    ssize_t name(int descriptor, const struct iovec *parts, int count, off_t offset, int flags) \
    { \
        REAL(ssize_t, name, int, const struct iovec *, int, off_t, int); \
        PART("pwritev", descriptor, count, real(descriptor, parts, count / 2, offset, flags)) \
        return real(descriptor, parts, count, offset, flags); \
    }
PWRITEV2(pwritev2)
PWRITEV2(pwritev64v2)

#define SENDFILE(name) \
    ssize_t name(int out, int in, off_t *offset, size_t count) \
    { \
        REAL(ssize_t, name, int, int, off_t *, size_t); \
        PART("sendfile (write)", out, count, real(out, in, offset, 1)) \
        return real(out, in, offset, count); \
    }
SENDFILE(sendfile)
SENDFILE(sendfile64)

ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t count, unsigned flags)
{
    REAL(ssize_t, copy_file_range, int, off_t *, int, off_t *, size_t, unsigned);
    PART("copy_file_range (write)", out, count, real(in, from, out, to, 1, flags))
    return real(in, from, out, to, count, flags);
}

/* --- descriptors */

#define FLUSH(name) \
    int name(int descriptor) \
    { \
        REAL(int, name, int); \
        return at_descriptor(#name, descriptor, 0) == FAIL ? -1 : real(descriptor); \
    }
FLUSH(fsync)
FLUSH(fdatasync)

#define FTRUNCATE(name) \
    int name(int descriptor, off_t length) \
    { \
        REAL(int, name, int, off_t); \
        return at_descriptor("ftruncate", descriptor, 1) == FAIL ? -1 : real(descriptor, length); \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

#define TRUNCATE(name) \
    int name(const char *path, off_t length) \
    { \
        REAL(int, name, const char *, off_t); \
        return at_path("truncate", AT_FDCWD, path, 1) == FAIL ? -1 : real(path, length); \
    }
TRUNCATE(truncate)
TRUNCATE(truncate64)

/* --- names */

#define MAKES(directory, path) (!there(directory, path) && at_path("mkdir", directory, path, 1) == FAIL)
#define REMOVES(name, directory, path) (there(directory, path) && at_path(name, directory, path, 0) == FAIL)

int mkdir(const char *path, mode_t mode)
{
    REAL(int, mkdir, const char *, mode_t);
    return MAKES(AT_FDCWD, path) ? -1 : real(path, mode);
}

int mkdirat(int directory, const char *path, mode_t mode)
{
    REAL(int, mkdirat, int, const char *, mode_t);
    return MAKES(directory, path) ? -1 : real(directory, path, mode);
}

int unlink(const char *path)
{
    REAL(int, unlink, const char *);
    return REMOVES("unlink", AT_FDCWD, path) ? -1 : real(path);
}

int rmdir(const char *path)
{
    REAL(int, rmdir, const char *);
    return REMOVES("rmdir", AT_FDCWD, path) ? -1 : real(path);
}

int unlinkat(int directory, const char *path, int flags)
{
    REAL(int, unlinkat, int, const char *, int);
    return REMOVES(flags & AT_REMOVEDIR ? "rmdir" : "unlink", directory, path) ? -1 : real(directory, path, flags);
}

/* Two names make one operation; it is told by the new one. */
int rename(const char *from, const char *to)
{
    REAL(int, rename, const char *, const char *);
    return at_path("rename", AT_FDCWD, to, 0) == FAIL ? -1 : real(from, to);
}

int renameat(int there, const char *from, int here, const char *to)
{
    REAL(int, renameat, int, const char *, int, const char *);
    return at_path("rename", here, to, 0) == FAIL ? -1 : real(there, from, here, to);
}

int renameat2(int there, const char *from, int here, const char *to, unsigned flags)
{
    REAL(int, renameat2, int, const char *, int, const char *, unsigned);
    return at_path("rename", here, to, 0) == FAIL ? -1 : real(there, from, here, to, flags);
}

int link(const char *from, const char *to)
{
    REAL(int, link, const char *, const char *);
    return at_path("link", AT_FDCWD, to, 1) == FAIL ? -1 : real(from, to);
}

int linkat(int there, const char *from, int here, const char *to, int flags)
{
    REAL(int, linkat, int, const char *, int, const char *, int);
    return at_path("link", here, to, 1) == FAIL ? -1 : real(there, from, here, to, flags);
}

int symlink(const char *target, const char *path)
{
    REAL(int, symlink, const char *, const char *);
    return at_path("symlink", AT_FDCWD, path, 1) == FAIL ? -1 : real(target, path);
}

int symlinkat(const char *target, int directory, const char *path)
{
    REAL(int, symlinkat, const char *, int, const char *);
    return at_path("symlink", directory, path, 1) == FAIL ? -1 : real(target, directory, path);
}
