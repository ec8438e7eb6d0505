/* Loaded before the C library by programs that a test wants to meet a fault of their host. What may go wrong is said in the
 * environment: FAULT_CLOCK_S, seconds by which the wall clock is ahead; FAULT_NO_VXLAN, any value, for a kernel that
 * knows no VXLAN: it is asked for a kind of interface that it does not know, and answers as such kernels do. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    const char *ahead = getenv("FAULT_CLOCK_S");
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(clock, time);
    if (answer == 0 && clock == CLOCK_REALTIME && ahead) time->tv_sec += atol(ahead);
    return answer;
}

/* The kind in a netlink message: IFLA_INFO_KIND of linux/if_link.h (1) with its length, which counts the header. */
static void *without_vxlan(const void *bytes, size_t length) {
    static const char with_zero[] = "\x0a\0\x01\0vxlan", bare[] = "\x09\0\x01\0vxlan";
    if (!getenv("FAULT_NO_VXLAN")) return NULL;
    char *kind = memmem(bytes, length, with_zero, 9);
    if (!kind) kind = memmem(bytes, length, bare, 9);
    if (!kind) return NULL;
    size_t at = kind - (const char *)bytes;
    char *copy = malloc(length);
    if (!copy) return NULL;
    memcpy(copy, bytes, length);
    copy[at + 4] = 'x';
    return copy;
}

ssize_t sendto(int socket, const void *bytes, size_t length, int flags, const struct sockaddr *to, socklen_t size) {
    static ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "sendto");
    void *copy = without_vxlan(bytes, length);
    ssize_t sent = real(socket, copy ? copy : bytes, length, flags, to, size);
    free(copy);
    return sent;
}

ssize_t send(int socket, const void *bytes, size_t length, int flags) {
    return sendto(socket, bytes, length, flags, NULL, 0);
}
