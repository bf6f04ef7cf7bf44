#include "sim/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "drivers/address.h"

#define BACKLOG 16

int listener_stop_open(struct listener *ret_listener, struct err *err)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    int stop_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (stop_fd < 0)
        return err_set(err, ERR_SYSTEM, "no signal descriptor: %s", strerror(errno));
    *ret_listener = (struct listener){.listen_fd = -1, .stop_fd = stop_fd};
    return 0;
}

int listener_open(struct listener *ret_listener, const char *address_text, struct err *err)
{
    struct address address;
    int code = address_parse(&address, address_text, err);
    if (code)
        return code;
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons((uint16_t)address.port)};
    if (address.kind != ADDRESS_TCP || inet_pton(AF_INET, address.place, &place.sin_addr) != 1 ||
        ntohl(place.sin_addr.s_addr) >> 24 != 127)
        return err_set(err, ERR_ARG, "simulated instrument at %s refused: expected tcp:127.0.0.1:PORT", address_text);
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(fd, (struct sockaddr *)&place, sizeof place) != 0 || listen(fd, BACKLOG) != 0) {
        err_set(err, ERR_SYSTEM, "simulated instrument cannot listen at %s: %s; is another rehearsal running?",
                address_text, strerror(errno));
        if (fd >= 0)
            close(fd);
        return ERR_SYSTEM;
    }
    struct listener stop;
    code = listener_stop_open(&stop, err);
    if (code) {
        close(fd);
        return code;
    }
    *ret_listener = (struct listener){.listen_fd = fd, .stop_fd = stop.stop_fd};
    return 0;
}

void listener_close(struct listener *listener)
{
    if (listener->listen_fd >= 0)
        close(listener->listen_fd);
    close(listener->stop_fd);
}

int listener_accept(const struct listener *listener)
{
    int fd = accept4(listener->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    int one = 1;
    if (fd >= 0)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}
