/*
 * Whether a pseudo terminal was late, for tests that judge how long somebody at its end has waited.
 *
 * The bytes of a pseudo terminal are carried by workers of the kernel. On a machine with more to do than it can, these
 * have been seen to wait for a processor for 26 s, while processes and sockets hardly did; to a driver that is a line
 * that says nothing. The witness is another line, along which one byte after the other is sent: the workers take all
 * lines' bytes from one queue, in turn, so that none of ours was late while none of its was.
 */
#ifndef TESTS_WITNESS_H
#define TESTS_WITNESS_H

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

struct witness {
    pthread_t thread;
    int near_fd, far_fd;
    _Atomic bool is_wanted;
    _Atomic int64_t sent_ns;     /* of the byte on its way; 0: none is */
    _Atomic int64_t late_ns_max; /* of those that have arrived since it was asked last */
};

static inline void witness_expect(bool is_good, const char *what)
{
    if (is_good)
        return;
    perror(what);
    abort();
}

/* A line without echo and line discipline: one end, and the other. */
static inline int witness_line(int *ret_far_fd)
{
    struct termios raw;
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    witness_expect(fd >= 0 && grantpt(fd) == 0 && unlockpt(fd) == 0, "pseudo terminal");
    *ret_far_fd = open(ptsname(fd), O_RDWR | O_NOCTTY | O_CLOEXEC);
    witness_expect(*ret_far_fd >= 0 && tcgetattr(*ret_far_fd, &raw) == 0, "its other end");
    cfmakeraw(&raw);
    witness_expect(tcsetattr(*ret_far_fd, TCSANOW, &raw) == 0, "its settings");
    return fd;
}

static inline void *witness_run(void *argument)
{
    struct witness *witness = argument;
    char byte = 'w';
    while (witness->is_wanted) {
        int64_t sent_ns = clock_wall_ns();
        witness->sent_ns = sent_ns;
        witness_expect(write(witness->near_fd, &byte, 1) == 1 && read(witness->far_fd, &byte, 1) == 1, "witness");
        int64_t late_ns = clock_wall_ns() - sent_ns;
        if (late_ns > witness->late_ns_max)
            witness->late_ns_max = late_ns;
        witness->sent_ns = 0;
        nanosleep(&(struct timespec){.tv_nsec = NS_PER_MS}, NULL);
    }
    return NULL;
}

static inline void witness_begin(struct witness *witness)
{
    witness->near_fd = witness_line(&witness->far_fd);
    witness->is_wanted = true;
    witness_expect(pthread_create(&witness->thread, NULL, witness_run, witness) == 0, "witness");
}

static inline void witness_end(struct witness *witness)
{
    witness->is_wanted = false;
    pthread_join(witness->thread, NULL);
    close(witness->far_fd);
    close(witness->near_fd);
}

/* Whether a byte has been later than this since it was asked last. Never for one that was not begun. */
static inline bool witness_was_late(struct witness *witness, int64_t late_ns)
{
    int64_t sent_ns = witness->sent_ns, under_way_ns = sent_ns ? clock_wall_ns() - sent_ns : 0;
    return atomic_exchange(&witness->late_ns_max, 0) > late_ns || under_way_ns > late_ns;
}

#endif
