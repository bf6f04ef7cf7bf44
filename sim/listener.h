/*
 * What every simulated instrument's server needs: a listening socket on a loopback address, and a descriptor that
 * becomes readable when the process is asked to end (SIGTERM, SIGINT).
 */
#ifndef SIM_LISTENER_H
#define SIM_LISTENER_H

#include "base/err.h"

struct listener {
    int listen_fd;
    int stop_fd;
};

/* Errors: ERR_ARG (not tcp:A:PORT with A in 127.0.0.0/8), ERR_SYSTEM. */
int listener_open(struct listener *ret_listener, const char *address, struct err *err);
/* Without a socket (listen_fd -1): for a server that listens elsewhere. Errors: ERR_SYSTEM. */
int listener_stop_open(struct listener *ret_listener, struct err *err);
void listener_close(struct listener *listener);

/* Next client (blocking descriptor, TCP_NODELAY), or negative when it went away in the meantime. */
int listener_accept(const struct listener *listener);

#endif
