#include "drivers/transport.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libserialport.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "drivers/address.h"

#define SILENCE_ROUNDS_MAX 16 /* waits until a line must have fallen silent */

struct transport {
    int fd;
    struct sp_port *port; /* NULL: TCP; else the owner of fd */
    int baud;
    char name[128];
};

/* Waits for `events`. 1 when they came, 0 at the deadline, negative on hang-up. Bytes that arrived before a hang-up can
 * still be read. */
static int wait_for(const struct transport *transport, short events, int64_t deadline_wall_ns, struct err *err)
{
    for (;;) {
        int64_t left_ns = deadline_wall_ns - clock_wall_ns();
        int64_t left_ms = left_ns <= 0 ? 0 : left_ns / NS_PER_MS + 1;
        struct pollfd poll_fd = {.fd = transport->fd, .events = events};
        int n = poll(&poll_fd, 1, left_ms > INT_MAX ? INT_MAX : (int)left_ms);
        if (n > 0 && (poll_fd.revents & events))
            return 1;
        if (n > 0)
            return err_set(err, ERR_LINK, "%s hung up; check cable and power", transport->name);
        if (n < 0 && errno != EINTR)
            return err_set(err, ERR_SYSTEM, "waiting for %s failed: %s", transport->name, strerror(errno));
        if (n == 0 && left_ns <= 0)
            return 0;
    }
}

static int tcp_connect(struct transport *transport, const struct addrinfo *info, int timeout_ms, struct err *err)
{
    transport->fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (transport->fd < 0)
        return err_set(err, ERR_SYSTEM, "no socket for %s: %s", transport->name, strerror(errno));
    int one = 1;
    setsockopt(transport->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(transport->fd, info->ai_addr, info->ai_addrlen) == 0)
        return 0;
    int failure = errno;
    if (failure == EINPROGRESS) {
        int ready = wait_for(transport, POLLOUT, clock_wall_ns() + timeout_ms * NS_PER_MS, NULL);
        if (ready == 0)
            return err_set(err, ERR_TIMEOUT, "%s did not accept a connection within %d ms; check address and power",
                           transport->name, timeout_ms);
        socklen_t size = sizeof failure;
        getsockopt(transport->fd, SOL_SOCKET, SO_ERROR, &failure, &size);
    }
    if (failure)
        return err_set(err, ERR_LINK, "%s refused the connection: %s; check address and power", transport->name,
                       strerror(failure));
    return 0;
}

static int tcp_open(struct transport *transport, const struct address *address, int timeout_ms, struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    char service[8];
    snprintf(service, sizeof service, "%d", address->port);
    int failure = getaddrinfo(address->place, service, &hints, &list);
    if (failure)
        return err_set(err, ERR_LINK, "host of %s cannot be found: %s", transport->name, gai_strerror(failure));
    int code = ERR_LINK;
    for (struct addrinfo *info = list; info && code; info = info->ai_next) {
        code = tcp_connect(transport, info, timeout_ms, err);
        if (code && transport->fd >= 0) {
            close(transport->fd);
            transport->fd = -1;
        }
    }
    freeaddrinfo(list);
    return code;
}

static int serial_failure(const struct transport *transport, const char *what, enum sp_return code, struct err *err)
{
    char *text = code == SP_ERR_FAIL ? sp_last_error_message() : NULL;
    const char *reason = code == SP_ERR_ARG    ? "no such serial port"
                         : code == SP_ERR_SUPP ? "not supported by the port"
                         : text                ? text
                                               : "no reason given";
    err_set(err, ERR_LINK, "serial line %s: %s failed: %s; check name, cable and permissions", transport->name, what,
            reason);
    if (text)
        sp_free_error_message(text);
    return ERR_LINK;
}

static int serial_open(struct transport *transport, const struct address *address, struct err *err)
{
    char path[PATH_MAX]; /* names under /dev/serial/by-id are links, which libserialport 0.1.1 does not follow */
    if (!realpath(address->place, path))
        return err_set(err, ERR_LINK, "serial line %s: %s; check the name", transport->name, strerror(errno));
    enum sp_return code = sp_get_port_by_name(path, &transport->port);
    if (code != SP_OK)
        return serial_failure(transport, "look-up", code, err);
    code = sp_open(transport->port, SP_MODE_READ_WRITE);
    if (code != SP_OK)
        return serial_failure(transport, "opening", code, err);
    code = sp_get_port_handle(transport->port, &transport->fd);
    if (code == SP_OK && flock(transport->fd, LOCK_EX | LOCK_NB) != 0)
        return err_set(err, ERR_LINK, "serial line %s is in use by another program; end that first", transport->name);
    struct sp_port *port = transport->port;
    if (code == SP_OK && (code = sp_set_baudrate(port, address->baud)) == SP_OK &&
        (code = sp_set_bits(port, 8)) == SP_OK && (code = sp_set_parity(port, SP_PARITY_NONE)) == SP_OK &&
        (code = sp_set_stopbits(port, 1)) == SP_OK && (code = sp_set_flowcontrol(port, SP_FLOWCONTROL_NONE)) == SP_OK)
        code = sp_flush(port, SP_BUF_BOTH);
    return code == SP_OK ? 0 : serial_failure(transport, "setting", code, err);
}

int transport_open(struct transport **ret_transport, const char *address_text, int timeout_ms, struct err *err)
{
    struct address address;
    int code = address_parse(&address, address_text, err);
    if (code)
        return code;
    struct transport *transport = calloc(1, sizeof *transport);
    assert(transport);
    transport->fd = -1;
    transport->baud = address.baud;
    snprintf(transport->name, sizeof transport->name, "%s", address_text);
    code = address.kind == ADDRESS_TCP ? tcp_open(transport, &address, timeout_ms, err)
                                       : serial_open(transport, &address, err);
    if (code)
        transport_close(transport);
    else
        *ret_transport = transport;
    return code;
}

void transport_close(struct transport *transport)
{
    if (!transport)
        return;
    if (transport->port) {
        sp_close(transport->port);
        sp_free_port(transport->port);
    } else if (transport->fd >= 0) {
        close(transport->fd);
    }
    free(transport);
}

/* One attempt that does not block: bytes moved, 0 for "not now", negative errno. */
static ssize_t move(struct transport *transport, void *to, const void *from, size_t n)
{
    ssize_t moved;
    if (transport->port)
        moved = to ? read(transport->fd, to, n) : write(transport->fd, from, n);
    else
        moved = to ? recv(transport->fd, to, n, 0) : send(transport->fd, from, n, MSG_NOSIGNAL);
    if (moved < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    return moved > 0 ? moved : -EPIPE; /* end of file: the other side is gone */
}

int transport_write_all(struct transport *transport, const void *bytes, size_t n_bytes, int64_t deadline_wall_ns,
                        struct err *err)
{
    for (size_t done = 0; done < n_bytes;) {
        int ready = wait_for(transport, POLLOUT, deadline_wall_ns, err);
        if (ready < 0)
            return ready;
        if (ready == 0)
            return err_set(err, ERR_TIMEOUT, "%s took only %zu of %zu bytes in time", transport->name, done, n_bytes);
        ssize_t moved = move(transport, NULL, (const char *)bytes + done, n_bytes - done);
        if (moved < 0)
            return err_set(err, ERR_LINK, "%s hung up: %s", transport->name, strerror((int)-moved));
        done += (size_t)moved;
    }
    return 0;
}

int transport_read_some(struct transport *transport, void *ret_bytes, size_t n_bytes_max, int64_t deadline_wall_ns,
                        struct err *err)
{
    for (;;) {
        int ready = wait_for(transport, POLLIN, deadline_wall_ns, err);
        if (ready < 0)
            return ready;
        if (ready == 0)
            return err_set(err, ERR_TIMEOUT, "%s is silent; check cable and power", transport->name);
        ssize_t moved = move(transport, ret_bytes, NULL, n_bytes_max);
        if (moved < 0)
            return err_set(err, ERR_LINK, "%s hung up: %s", transport->name, strerror((int)-moved));
        if (moved > 0)
            return (int)moved;
    }
}

int transport_fall_silent(struct transport *transport, int quiet_ms, struct err *err)
{
    for (int i = 0; transport->port && i < SILENCE_ROUNDS_MAX; i++) {
        char bytes[256];
        struct err silence = {0};
        int64_t end_ns = clock_wall_ns() + quiet_ms * NS_PER_MS;
        int code = transport_read_some(transport, bytes, sizeof bytes, end_ns, &silence);
        if (code == ERR_TIMEOUT)
            return 0;
        if (code < 0)
            return err_set(err, code, "%s", silence.message);
    }
    if (!transport->port)
        return 0;
    return err_set(err, ERR_LINK,
                   "%s does not fall silent; is another program on the line, or is the baud rate another?",
                   transport->name);
}

int transport_set_baud(struct transport *transport, int baud, struct err *err)
{
    if (!transport->port)
        return err_set(err, ERR_STATE, "%s has no baud rate of its own; set it at the serial server", transport->name);
    enum sp_return code = sp_set_baudrate(transport->port, baud);
    if (code == SP_OK)
        code = sp_flush(transport->port, SP_BUF_BOTH);
    if (code != SP_OK)
        return serial_failure(transport, "changing the baud rate", code, err);
    transport->baud = baud;
    return 0;
}

int transport_baud(const struct transport *transport) { return transport->port ? transport->baud : 0; }

int64_t transport_duration_ns(const struct transport *transport, size_t n_bytes)
{
    /* 8N1: ten bits on the line for eight of data */
    return transport->port ? (int64_t)n_bytes * 10 * NS_PER_S / transport->baud : 0;
}
