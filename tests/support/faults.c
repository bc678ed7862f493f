// Put before the C library (LD_PRELOAD): counts what changes the files of one folder, and lets one of these calls fail or kill the process.
//   FAULT_ROOT   the folder      FAULT_AT     number of the call from 1 on; 0: none       FAULT_LOG    where the count is left at the end
//   FAULT_KIND   enospc | eio | erofs | kill (a write is cut in half first)              FAULT_STAYS  1: all calls after it fail too
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long count;

static const char *setting(const char *name) {
  const char *value = getenv(name);
  return value ? value : "";
}

static int is_inside(const char *path) {
  const char *root = setting("FAULT_ROOT");
  return *root && strncmp(path, root, strlen(root)) == 0;
}

static int is_open_inside(int fd) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return is_inside(path);
}

// Counts a call; whether it is to fail, with errno set. `half`: writes half of what was to be written, if anything was.
static int fails(void (*half)(void *), void *what) {
  pthread_mutex_lock(&lock);
  long number = ++count, at = atol(setting("FAULT_AT"));
  pthread_mutex_unlock(&lock);
  if (at == 0 || number < at || (number > at && *setting("FAULT_STAYS") != '1')) return 0;
  const char *kind = setting("FAULT_KIND");
  if (strcmp(kind, "kill") == 0) {
    if (half) half(what);
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }
  errno = strcmp(kind, "eio") == 0 ? EIO : strcmp(kind, "erofs") == 0 ? EROFS : ENOSPC;
  return 1;
}

__attribute__((destructor)) static void leave_count(void) {
  const char *path = setting("FAULT_LOG");
  FILE *file = *path ? fopen(path, "w") : NULL;
  if (!file) return;
  fprintf(file, "%ld\n", count);
  fclose(file);
}

#define REAL(type, name, ...)                                        \
  static type (*real)(__VA_ARGS__);                                  \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

struct part { int fd; const char *bytes; size_t length; };
static void write_half(void *what) {
  REAL(ssize_t, "write", int, const void *, size_t);
  struct part *part = what;
  if (part->length > 1 && real(part->fd, part->bytes, part->length / 2) < 0) return;
}

ssize_t write(int fd, const void *bytes, size_t length) {
  REAL(ssize_t, "write", int, const void *, size_t);
  struct part part = {fd, bytes, length};
  return is_open_inside(fd) && fails(write_half, &part) ? -1 : real(fd, bytes, length);
}
int fsync(int fd) {
  REAL(int, "fsync", int);
  return is_open_inside(fd) && fails(NULL, NULL) ? -1 : real(fd);
}
int fdatasync(int fd) {
  REAL(int, "fdatasync", int);
  return is_open_inside(fd) && fails(NULL, NULL) ? -1 : real(fd);
}
int ftruncate64(int fd, off64_t length) {
  REAL(int, "ftruncate64", int, off64_t);
  return is_open_inside(fd) && fails(NULL, NULL) ? -1 : real(fd, length);
}
int rename(const char *from, const char *to) {
  REAL(int, "rename", const char *, const char *);
  return is_inside(to) && fails(NULL, NULL) ? -1 : real(from, to);
}
int mkdir(const char *path, mode_t mode) {
  REAL(int, "mkdir", const char *, mode_t);
  return is_inside(path) && fails(NULL, NULL) ? -1 : real(path, mode);
}
int open64(const char *path, int flags, ...) {
  REAL(int, "open64", const char *, int, ...);
  mode_t mode = 0;
  if (flags & O_CREAT) {
    va_list rest;
    va_start(rest, flags);
    mode = va_arg(rest, mode_t);
    va_end(rest);
    if (is_inside(path) && fails(NULL, NULL)) return -1;
  }
  return real(path, flags, mode);
}
