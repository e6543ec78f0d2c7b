/* Loaded into the program by LD_PRELOAD. The environment variable DDPM_FAULT chooses what goes wrong:

   error N     the N-th call that writes, syncs, renames or makes a file or folder fails (EIO)
   errors N    this call and all later ones fail
   short N     from this call on the disk is full: a write is cut in half, later ones fail (ENOSPC)
   signal N S  the process gets the signal S at this call
   no-lock     the file system has no locks (ENOLCK)
   no-sync     the file system cannot sync folders (EINVAL)
   report      nothing; after each line on standard error, and at the end, it prints a line with the memory, the number of
               open files and the number of calls so far */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* The function of the C library with the same name. */
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static char kind[16];
static long at;
static int number;
static atomic_long calls;

static int is(const char *name) { return strcmp(kind, name) == 0; }

static void report(void) {
    char line[256];
    long peak = 0, resident = 0, files = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) {
        sscanf(line, "VmHWM: %ld", &peak);
        sscanf(line, "VmRSS: %ld", &resident);
    }
    if (status) fclose(status);
    DIR *open = opendir("/proc/self/fd");
    while (open && readdir(open)) files++;
    if (open) closedir(open);
    dprintf(2, "report %ld %ld %ld %ld\n", peak, resident, files, (long)calls);
}

__attribute__((constructor)) static void start(void) {
    const char *fault = getenv("DDPM_FAULT");
    if (fault) sscanf(fault, "%15s %ld %d", kind, &at, &number);
}

__attribute__((destructor)) static void end(void) {
    if (is("report")) report();
}

/* Counts a call; whether it fails. */
static int fails(void) {
    long call = ++calls;
    if (is("signal") && call == at) kill(getpid(), number);
    errno = EIO;
    return (is("error") && call == at) || (is("errors") && call >= at);
}

static int has_type(int fd, mode_t type) {
    struct stat found;
    return fstat(fd, &found) == 0 && (found.st_mode & S_IFMT) == type;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (has_type(fd, S_IFREG)) {
        if (fails()) return -1;
        if (is("short") && calls >= at) {
            if (calls == at && count > 1) return REAL(write)(fd, bytes, count / 2);
            errno = ENOSPC;
            return -1;
        }
    }
    ssize_t written = REAL(write)(fd, bytes, count);
    if (fd == 2 && is("report") && count > 0 && ((const char *)bytes)[count - 1] == '\n') report();
    return written;
}

static int cannot_sync(int fd) {
    if (is("no-sync") && has_type(fd, S_IFDIR)) {
        errno = EINVAL;
        return 1;
    }
    return fails();
}

int fsync(int fd) { return cannot_sync(fd) ? -1 : REAL(fsync)(fd); }

int fdatasync(int fd) { return cannot_sync(fd) ? -1 : REAL(fdatasync)(fd); }

int rename(const char *from, const char *to) { return fails() ? -1 : REAL(rename)(from, to); }

int mkdir(const char *path, mode_t mode) { return fails() ? -1 : REAL(mkdir)(path, mode); }

int flock(int fd, int operation) {
    if (is("no-lock")) {
        errno = ENOLCK;
        return -1;
    }
    return REAL(flock)(fd, operation);
}
