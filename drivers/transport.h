/*
 * A stream of bytes to one instrument: a TCP socket (TCP_NODELAY) or a serial line (libserialport; 8N1, no flow
 * control, locked against a second opener). All waits end at a deadline in wall time (clock_wall_ns). A stream that
 * has failed stays failed: close it and open another. It never reconnects and never retries by itself.
 *
 * libserialport 0.1.1 does not report a hang-up from its reads, so the waiting is done here with poll(2) on its handle.
 */
#ifndef DRIVERS_TRANSPORT_H
#define DRIVERS_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct transport;

/* Opens `address` (drivers/address.h) within `timeout_ms` of wall time (resolving a host name may add to it; a number
 * does not). Errors: ERR_ARG (address), ERR_LINK (refused, no such device, in use), ERR_TIMEOUT. Free with close. */
int transport_open(struct transport **ret_transport, const char *address, int timeout_ms, struct err *err);
void transport_close(struct transport *transport); /* NULL is fine */

/* Writes all of it. Errors: ERR_LINK (hang-up), ERR_TIMEOUT (some of it may be on its way). */
int transport_write_all(struct transport *transport, const void *bytes, size_t n_bytes, int64_t deadline_wall_ns,
                        struct err *err);

/* Waits for at least one byte and takes what is there, up to `n_bytes_max`. Returns the count (> 0).
 * Errors: ERR_LINK (hang-up), ERR_TIMEOUT (silence until the deadline). */
int transport_read_some(struct transport *transport, void *ret_bytes, size_t n_bytes_max, int64_t deadline_wall_ns,
                        struct err *err);

/* Discards what comes until nothing has come for `quiet_ms`: the late answers of before. At once on TCP, whose late
 * answers went to the connection before. Errors: ERR_LINK (hang-up; or it does not fall silent). */
int transport_fall_silent(struct transport *transport, int quiet_ms, struct err *err);

/* The line at another baud rate, at once; what is on its way is lost. Errors: ERR_STATE (TCP: the rate is a matter of
 * the serial server), ERR_LINK (hang-up, or a rate that the port does not have: then the old one may be lost, too). */
int transport_set_baud(struct transport *transport, int baud, struct err *err);

/* As the address says, or as it was last set; 0 on TCP. */
int transport_baud(const struct transport *transport);

/* Wall time that `n_bytes` need on this line at its baud rate; 0 on TCP. */
int64_t transport_duration_ns(const struct transport *transport, size_t n_bytes);

#endif
