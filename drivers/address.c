#include "drivers/address.h"

#include <stdlib.h>
#include <string.h>

static int number_parse(const char *text, long min, long max)
{
    char *end;
    if (*text < '0' || *text > '9')
        return -1;
    long value = strtol(text, &end, 10);
    return *end == '\0' && value >= min && value <= max ? (int)value : -1;
}

int address_parse(struct address *ret_address, const char *text, struct err *err)
{
    struct address address = {.kind = ADDRESS_KIND_COUNT};
    const char *colon = strrchr(text, ':');
    const char *place = text;
    if (strncmp(text, "tcp:", 4) == 0) {
        address.kind = ADDRESS_TCP;
        place = text + 4;
    } else if (strncmp(text, "serial:", 7) == 0) {
        address.kind = ADDRESS_SERIAL;
        place = text + 7;
    }
    if (address.kind != ADDRESS_KIND_COUNT && colon > place && (size_t)(colon - place) < sizeof address.place) {
        memcpy(address.place, place, (size_t)(colon - place));
        int number =
            address.kind == ADDRESS_TCP ? number_parse(colon + 1, 1, 65535) : number_parse(colon + 1, 50, 4000000);
        *(address.kind == ADDRESS_TCP ? &address.port : &address.baud) = number;
        if (number > 0) {
            *ret_address = address;
            return 0;
        }
    }
    return err_set(err, ERR_ARG,
                   "address \"%s\" refused: expected tcp:HOST:PORT (port 1 to 65535) or serial:PATH:BAUD; correct the "
                   "beamline file",
                   text);
}
