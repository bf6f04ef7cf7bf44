/*
 * Parser: an instrument's address (drivers/address). Property: what is accepted can be written down again, and that
 * reads the same.
 */
#include <stdbool.h>
#include <string.h>

#include "drivers/address.h"
#include "tests/fuzz.h"

const char *const fuzz_words[] = {"tcp:", "serial:", ":", "65535", "65536", "4000000", "-1", "0x50", "[::1]", NULL};

void fuzz_plant_seeds(void)
{
    static const char *const GOOD[] = {"tcp:192.0.2.11:502", "tcp:moxa.example.org:4001", "serial:/dev/ttyUSB0:19200",
                                       "tcp:[2001:db8::1]:502"};
    for (size_t i = 0; i < sizeof GOOD / sizeof GOOD[0]; i++)
        fuzz_plant(GOOD[i], strlen(GOOD[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[4096], again[200];
    struct address address, second;
    struct err err = {0};
    if (size >= sizeof text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (address_parse(&address, text, &err)) {
        FUZZ_CHECK(err.message[0], "refused without a sentence");
        return 0;
    }
    bool is_tcp = address.kind == ADDRESS_TCP;
    FUZZ_CHECK(address.kind == ADDRESS_SERIAL || is_tcp, "kind %d", address.kind);
    FUZZ_CHECK(address.place[0] && strlen(address.place) < sizeof address.place, "place of %s", text);
    FUZZ_CHECK(is_tcp ? address.port >= 1 && address.port <= 65535 : address.baud >= 50 && address.baud <= 4000000,
               "port %d, baud %d", address.port, address.baud);
    snprintf(again, sizeof again, "%s:%s:%d", is_tcp ? "tcp" : "serial", address.place,
             is_tcp ? address.port : address.baud);
    FUZZ_CHECK(address_parse(&second, again, &err) == 0 && memcmp(&address, &second, sizeof address) == 0, "%s", again);
    return 0;
}
