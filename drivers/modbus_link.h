/*
 * One Modbus device on a connection of its own: TCP, or RTU on a serial line (locked against a second opener). The only
 * file of the drivers that uses libmodbus, and what it cures:
 *
 *   - recovery stays off, because libmodbus 3.1.6 repeats a request for ever on a link that is gone;
 *   - RTU answers carry no number, so that after one late answer every following one is the answer to the request
 * before it. After any failure the caller closes the link; opening a serial line waits until it has been silent for a
 *     quarter of the time allowed for an answer, and discards what came. Callers begin each round with a signature;
 *   - the whole answer, however slowly it drips, is bounded by the time allowed.
 */
#ifndef DRIVERS_MODBUS_LINK_H
#define DRIVERS_MODBUS_LINK_H

#include "base/err.h"
#include "drivers/registers.h"

struct modbus_link;

/* `address`: "tcp:HOST:PORT" or "serial:PATH:BAUD"; `unit_id` 1 to 247; `parity` 'N' or 'E', one stop bit.
 * Errors: ERR_ARG, ERR_LINK (nobody there, in use, a line that does not fall silent), ERR_TIMEOUT. */
int modbus_link_open(struct modbus_link **ret_link, const char *address, int unit_id, char parity, int answer_ms,
                     struct err *err);
void modbus_link_close(struct modbus_link *link); /* NULL is fine */

/* Whole entries of a map; `n_registers` from that of `entry` on (one block can span several). After an error the link
 * must be closed. Errors: ERR_LINK, ERR_TIMEOUT, ERR_PROTOCOL, ERR_REFUSED (an exception answer). */
int modbus_link_read(struct modbus_link *link, const struct registers_entry *entry, int n_registers,
                     uint16_t *ret_registers, struct err *err);
int modbus_link_write(struct modbus_link *link, const struct registers_entry *entry, int n_registers,
                      const uint16_t *registers, struct err *err);

#endif
