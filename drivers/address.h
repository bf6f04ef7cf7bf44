/*
 * Addresses of instruments, as the beamline file writes them: "tcp:HOST:PORT" and "serial:PATH:BAUD". Pure text work:
 * nothing is opened and no name is resolved here.
 */
#ifndef DRIVERS_ADDRESS_H
#define DRIVERS_ADDRESS_H

#include "base/err.h"

enum address_kind { ADDRESS_TCP, ADDRESS_SERIAL, ADDRESS_KIND_COUNT };

struct address {
    enum address_kind kind;
    char place[96]; /* host name or number, or path of the serial device */
    int port;       /* TCP only, 1 to 65535 */
    int baud;       /* serial only, 50 to 4000000 */
};

/* Splits `text`. Errors: ERR_ARG (the sentence shows the form that is expected). */
int address_parse(struct address *ret_address, const char *text, struct err *err);

#endif
