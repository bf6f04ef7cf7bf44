#include "drivers/modbus_link.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <modbus.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "drivers/address.h"

#define SILENCE_ROUNDS_MAX 16 /* of a quarter of an answer's time each, until a serial line must have fallen silent */

struct modbus_link {
    modbus_t *modbus;
    char name[128];
    int answer_ms;
    int lock_fd; /* of a serial line, which libmodbus opens but does not lock; -1: none */
};

/* Names a failure by errno. */
static int fail(const struct modbus_link *link, const char *what, const char *name, struct err *err)
{
    int failure = errno;
    if (failure == ETIMEDOUT || failure == EINPROGRESS)
        return err_set(err, ERR_TIMEOUT,
                       "membrane controller at %s: no answer within %d ms (%s %s); check its power and cable",
                       link->name, link->answer_ms, what, name);
    if (failure > MODBUS_ENOBASE && failure <= EMBXGTAR)
        return err_set(err, ERR_REFUSED, "membrane controller at %s refused: %s %s: %s; check unit number and model",
                       link->name, what, name, modbus_strerror(failure));
    if (failure > EMBXGTAR)
        return err_set(err, ERR_PROTOCOL, "membrane controller at %s: answer not understood (%s %s): %s; link closed",
                       link->name, what, name, modbus_strerror(failure));
    return err_set(err, ERR_LINK, "membrane controller at %s: link lost (%s %s): %s; check its power and cable",
                   link->name, what, name, modbus_strerror(failure));
}

/* A late answer to a request of before must not become the first answer of now. */
static int fall_silent(const struct modbus_link *link, struct err *err)
{
    char bytes[256];
    int fd = modbus_get_socket(link->modbus);
    for (int i = 0; i < SILENCE_ROUNDS_MAX; i++) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        int n = poll(&poll_fd, 1, link->answer_ms / 4 + 1);
        if (n == 0)
            return 0;
        if (n > 0 && (!(poll_fd.revents & POLLIN) || read(fd, bytes, sizeof bytes) <= 0))
            return err_set(err, ERR_LINK, "membrane controller at %s hung up; check its power and cable", link->name);
    }
    return err_set(err, ERR_LINK,
                   "membrane controller at %s: the line does not fall silent; is another master on it, or is the baud "
                   "rate another?",
                   link->name);
}

/* Locked before libmodbus opens it and sets its speed: another program's line is not disturbed. */
static int serial_connect(struct modbus_link *link, const char *path, struct err *err)
{
    link->lock_fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (link->lock_fd < 0)
        return fail(link, "opening", "it", err);
    if (flock(link->lock_fd, LOCK_EX | LOCK_NB) != 0)
        return err_set(err, ERR_LINK, "serial line %s is in use by another program; end that first", link->name);
    if (modbus_connect(link->modbus) != 0)
        return fail(link, "opening", "it", err);
    return fall_silent(link, err);
}

int modbus_link_open(struct modbus_link **ret_link, const char *address_text, int unit_id, char parity, int answer_ms,
                     struct err *err)
{
    struct address address;
    char service[8];
    int code = address_parse(&address, address_text, err);
    if (code)
        return err_prefix(err, "membrane controller");
    if (unit_id < 1 || unit_id > 247)
        return err_set(err, ERR_ARG, "membrane controller %s, unit %d refused: expected unit 1 to 247", address_text,
                       unit_id);
    struct modbus_link *link = calloc(1, sizeof *link);
    assert(link);
    link->answer_ms = answer_ms;
    link->lock_fd = -1;
    snprintf(link->name, sizeof link->name, "%s", address_text);
    snprintf(service, sizeof service, "%d", address.port);
    link->modbus = address.kind == ADDRESS_TCP ? modbus_new_tcp_pi(address.place, service)
                                               : modbus_new_rtu(address.place, address.baud, parity, 8, 1);
    assert(link->modbus);
    modbus_set_error_recovery(link->modbus, MODBUS_ERROR_RECOVERY_NONE);
    /* Without a byte timeout the response timeout bounds the whole answer. */
    modbus_set_response_timeout(link->modbus, (uint32_t)(answer_ms / 1000), (uint32_t)(answer_ms % 1000 * 1000));
    modbus_set_byte_timeout(link->modbus, 0, 0);
    modbus_set_slave(link->modbus, unit_id);
    if (address.kind == ADDRESS_SERIAL)
        code = serial_connect(link, address.place, err);
    else if (modbus_connect(link->modbus) != 0)
        code = fail(link, "connecting to", "it", err);
    if (code)
        modbus_link_close(link);
    else
        *ret_link = link;
    return code;
}

void modbus_link_close(struct modbus_link *link)
{
    if (!link)
        return;
    modbus_close(link->modbus);
    modbus_free(link->modbus);
    if (link->lock_fd >= 0)
        close(link->lock_fd);
    free(link);
}

int modbus_link_read(struct modbus_link *link, const struct registers_entry *entry, int n_registers,
                     uint16_t *ret_registers, struct err *err)
{
    if (modbus_read_registers(link->modbus, entry->address, n_registers, ret_registers) != n_registers)
        return fail(link, "reading", entry->name, err);
    return 0;
}

int modbus_link_write(struct modbus_link *link, const struct registers_entry *entry, int n_registers,
                      const uint16_t *registers, struct err *err)
{
    int n = n_registers == 1 ? modbus_write_register(link->modbus, entry->address, registers[0])
                             : modbus_write_registers(link->modbus, entry->address, n_registers, registers);
    return n == n_registers ? 0 : fail(link, "writing", entry->name, err);
}
