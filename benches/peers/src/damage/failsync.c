/* Preloaded into the process that writes. Counts the syncs that succeed, and makes one of them fail.
 *
 * SYNCLOG_PEERS_COUNT  a file that grows by one byte with each sync that succeeded
 * SYNCLOG_PEERS_ARM    if this file exists, the next sync removes it and fails: EIO, nothing synced
 * SYNCLOG_PEERS_FILE   only syncs of files with this in their path are looked at
 *
 * A write to a file opened with O_SYNC or O_DSYNC is a sync as well. There the bytes reach the kernel, as
 * they do where such a write fails while it syncs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int concerns(int fd) {
    const char *part = getenv("SYNCLOG_PEERS_FILE");
    if (!part || !*part || fd < 0) return 1;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, part) != NULL;
}

static int must_fail(void) {
    const char *arm = getenv("SYNCLOG_PEERS_ARM");
    if (!arm || unlink(arm) != 0) return 0;
    errno = EIO;
    return 1;
}

static int counted(int result, const char *kind) {
    const char *count = getenv("SYNCLOG_PEERS_COUNT");
    int before = errno;
    int fd = result == 0 && count ? open(count, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    if (fd >= 0) {
        ssize_t ignored = REAL(write)(fd, kind, 1);
        (void)ignored;
        close(fd);
    }
    errno = before;
    return result;
}

#define SYNC(fd, kind, call) \
    if (!concerns(fd)) return call; \
    if (must_fail()) return -1; \
    return counted(call, kind)

int fsync(int fd) { SYNC(fd, "f", REAL(fsync)(fd)); }
int fdatasync(int fd) { SYNC(fd, "d", REAL(fdatasync)(fd)); }
int sync_file_range(int fd, off64_t at, off64_t n, unsigned flags) {
    SYNC(fd, "r", REAL(sync_file_range)(fd, at, n, flags));
}
int msync(void *at, size_t n, int flags) { SYNC(-1, "m", REAL(msync)(at, n, flags)); }

static ssize_t after_write(int fd, ssize_t written) {
    int before = errno;
    int flags = fcntl(fd, F_GETFL);
    errno = before;
    if (written < 0 || flags < 0 || !(flags & O_DSYNC) || !concerns(fd)) return written;
    if (must_fail()) return -1;
    counted(0, "o");
    return written;
}

ssize_t write(int fd, const void *data, size_t n) { return after_write(fd, REAL(write)(fd, data, n)); }
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    return after_write(fd, REAL(pwrite)(fd, data, n, at));
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    return after_write(fd, REAL(pwrite64)(fd, data, n, at));
}
