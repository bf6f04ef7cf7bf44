#include "sim/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "drivers/address.h"
#include "sim/listener.h"

#define CLIENTS_MAX 8
#define DRIPS 9 /* in the time of a delayed answer */
#define DRIPS_MAX 36
#define SEND_MS_MAX 2000 /* until what nobody takes is given up */
#define SLICE_MS 20      /* between looks at the client and at the signals */
#define LOST_FRACTION 0.3
#define CUT_FRACTION 0.1

struct client {
    uint8_t bytes[WIRE_REQUEST_MAX];
    size_t n_bytes;
};

struct wire {
    const struct wire_service *service;
    struct world *world;
    struct listener listener; /* listen_fd is -1 on a serial line */
    struct random random;
    int slave_fd; /* our own end of a serial line, held so that it stays one when nobody else has it open */
    struct pollfd fds[2 + CLIENTS_MAX];
    struct client clients[CLIENTS_MAX];
    int n_clients;
    int asking_fd;                   /* of the client that is being answered */
    uint8_t before[WIRE_ANSWER_MAX]; /* the answer given last */
    size_t n_before;
};

/* False when nobody takes it. The end of a line is opened so that a write to it does not block. */
static bool write_all(const struct wire *wire, int fd, const uint8_t *bytes, size_t n_bytes)
{
    for (size_t done = 0; done < n_bytes;) {
        ssize_t n = wire->slave_fd >= 0 ? write(fd, bytes + done, n_bytes - done)
                                        : send(fd, bytes + done, n_bytes - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n <= 0 && errno != EINTR && errno != EAGAIN)
            return false;
        done += n > 0 ? (size_t)n : 0;
        struct pollfd fds[2] = {{.fd = wire->listener.stop_fd, .events = POLLIN}, {.fd = fd, .events = POLLOUT}};
        if (done < n_bytes && (poll(fds, 2, SEND_MS_MAX) <= 0 || fds[0].revents))
            return false;
    }
    return true;
}

/* False when the process is to end. */
static bool pass_time(const struct wire *wire, int wall_ms)
{
    struct pollfd stop = {.fd = wire->listener.stop_fd, .events = POLLIN};
    return poll(&stop, 1, wall_ms) <= 0;
}

bool wire_wait(struct wire *wire, struct clock *clock, int64_t t_ns)
{
    struct pollfd fds[2] = {{.fd = wire->listener.stop_fd, .events = POLLIN},
                            {.fd = wire->asking_fd, .events = wire->slave_fd >= 0 ? 0 : POLLRDHUP}};
    while (clock_now_ns(clock) < t_ns) {
        if (poll(fds, 2, 0) > 0)
            return false;
        clock_sleep_until(clock, t_ns, SLICE_MS);
    }
    return true;
}

int wire_baud(const struct wire *wire)
{
    static const struct {
        speed_t speed;
        int baud;
    } speeds[] = {{B600, 600},     {B1200, 1200},   {B2400, 2400},   {B4800, 4800},    {B9600, 9600},
                  {B19200, 19200}, {B38400, 38400}, {B57600, 57600}, {B115200, 115200}};
    struct termios settings;
    if (wire->slave_fd < 0 || tcgetattr(wire->slave_fd, &settings) != 0)
        return 0;
    for (size_t i = 0; i < sizeof speeds / sizeof speeds[0]; i++)
        if (cfgetospeed(&settings) == speeds[i].speed)
            return speeds[i].baud;
    return -1;
}

/* False when the client is to be dropped. */
static bool answer(struct wire *wire, int fd, uint8_t *bytes, size_t n_bytes)
{
    struct world_state state;
    world_read(wire->world, &state);
    const struct world_trouble *trouble = &state.troubles[wire->service->component];
    uint8_t right[WIRE_ANSWER_MAX];
    size_t n_right = n_bytes;
    memcpy(right, bytes, n_bytes);
    bool is_spared = trouble->fault != WORLD_FAULT_NONE && random_uniform(&wire->random) > trouble->fraction;
    switch (is_spared ? WORLD_FAULT_NONE : trouble->fault) {
    case WORLD_FAULT_OFF:
        return true;
    case WORLD_FAULT_GARBAGE:
        for (size_t i = 0; i < n_bytes; i++)
            bytes[i] = (uint8_t)random_bits(&wire->random);
        break;
    case WORLD_FAULT_WRONG:
        n_bytes = wire->n_before;
        memcpy(bytes, wire->before, n_bytes);
        break;
    case WORLD_FAULT_SLOW:
        for (int i = 0; i < DRIPS_MAX && n_bytes > 0; i++, bytes++, n_bytes--)
            if (!write_all(wire, fd, bytes, 1) || !pass_time(wire, trouble->ms / DRIPS))
                return false;
        break;
    case WORLD_FAULT_DELAYED:
        if (!pass_time(wire, trouble->ms))
            return false;
        break;
    case WORLD_FAULT_INTERMITTENT:
        if (random_uniform(&wire->random) < LOST_FRACTION)
            return random_uniform(&wire->random) > CUT_FRACTION / LOST_FRACTION;
        break;
    default:
        break;
    }
    memcpy(wire->before, right, n_right);
    wire->n_before = n_right;
    return write_all(wire, fd, bytes, n_bytes);
}

static bool serve(struct wire *wire, int fd, struct client *client)
{
    uint8_t bytes[WIRE_ANSWER_MAX];
    size_t n_answer = 0;
    wire->asking_fd = fd;
    ssize_t n = read(fd, client->bytes + client->n_bytes, sizeof client->bytes - client->n_bytes);
    if (n <= 0)
        return n < 0 && (errno == EINTR || errno == EAGAIN);
    client->n_bytes += (size_t)n;
    while (client->n_bytes > 0) {
        n_answer = 0;
        int used = wire->service->take(wire->service->self, client->bytes, client->n_bytes, bytes, &n_answer);
        if (used < 0)
            return false;
        if (used == 0)
            return client->n_bytes < sizeof client->bytes;
        client->n_bytes -= (size_t)used;
        memmove(client->bytes, client->bytes + used, client->n_bytes);
        if (n_answer > 0 && !answer(wire, fd, bytes, n_answer))
            return false;
    }
    return true;
}

static void drop(struct wire *wire, int i)
{
    wire->clients[i].n_bytes = 0;
    if (wire->slave_fd >= 0) /* a line cannot be dropped: its noise is forgotten */
        return;
    close(wire->fds[2 + i].fd);
    wire->fds[2 + i] = wire->fds[2 + --wire->n_clients];
    wire->clients[i] = wire->clients[wire->n_clients];
}

static void add(struct wire *wire, int fd)
{
    wire->clients[wire->n_clients].n_bytes = 0;
    wire->fds[2 + wire->n_clients++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

static void serve_all(struct wire *wire)
{
    struct pollfd *fds = wire->fds;
    while (!(fds[0].revents & POLLIN)) {
        fds[1].events = wire->n_clients < CLIENTS_MAX ? POLLIN : 0;
        if (poll(fds, (nfds_t)(2 + wire->n_clients), -1) < 0)
            continue; /* EINTR: nothing else can happen to descriptors of our own */
        for (int i = wire->n_clients - 1; i >= 0; i--)
            if (fds[2 + i].revents && !serve(wire, fds[2 + i].fd, &wire->clients[i]))
                drop(wire, i);
        int fd = fds[1].revents & POLLIN ? listener_accept(&wire->listener) : -1;
        if (fd >= 0)
            add(wire, fd);
    }
    for (int i = 0; i < wire->n_clients; i++)
        close(fds[2 + i].fd);
}

/* A pseudo-terminal without echo and line discipline; `path` is made a link to its other end. */
static int line_open(struct wire *wire, const char *path, struct err *err)
{
    struct stat status;
    struct termios settings;
    char slave[64];
    if (lstat(path, &status) == 0 && S_ISLNK(status.st_mode))
        unlink(path);
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || grantpt(fd) != 0 || unlockpt(fd) != 0 || ptsname_r(fd, slave, sizeof slave) != 0 ||
        (wire->slave_fd = open(slave, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0 ||
        tcgetattr(wire->slave_fd, &settings) != 0 || symlink(slave, path) != 0)
        return err_set(err, ERR_SYSTEM, "simulated serial line %s cannot be made: %s", path, strerror(errno));
    cfmakeraw(&settings);
    settings.c_cflag |= CREAD | CS8;
    tcsetattr(wire->slave_fd, TCSANOW, &settings);
    add(wire, fd);
    return 0;
}

int wire_run(const struct wire_service *service, struct world *world, const char *address_text, struct err *err)
{
    struct wire wire = {.service = service, .world = world, .slave_fd = -1};
    struct address address;
    int code = address_parse(&address, address_text, err);
    bool is_line = code == 0 && address.kind == ADDRESS_SERIAL;
    if (code == 0)
        code = is_line ? listener_stop_open(&wire.listener, err) : listener_open(&wire.listener, address_text, err);
    if (code)
        return code;
    wire.fds[0] = (struct pollfd){.fd = wire.listener.stop_fd, .events = POLLIN};
    wire.fds[1] = (struct pollfd){.fd = wire.listener.listen_fd, .events = POLLIN};
    if (is_line)
        code = line_open(&wire, address.place, err);
    if (code == 0) {
        wire.random.state = world_seed(world) ^ UINT64_C(0x7769726573);
        if (service->begin)
            service->begin(service->self, &wire);
        serve_all(&wire);
    }
    if (wire.slave_fd >= 0) {
        close(wire.slave_fd);
        unlink(address.place);
    }
    listener_close(&wire.listener);
    return code;
}
