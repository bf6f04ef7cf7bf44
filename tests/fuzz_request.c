/*
 * Parser: a line on the daemon's command socket (controller/request). Property: what is accepted is a known word and
 * nothing else; what is refused is refused in printable text, whatever came.
 */
#include <string.h>

#include "controller/request.h"
#include "tests/fuzz.h"

const char *const fuzz_words[] = {"status", "doctor", "hold", "resume", "stop", " json", " ", NULL};

void fuzz_plant_seeds(void)
{
    static const char *const LINES[] = {"status", "status json", "doctor", "doctor json",
                                        "hold",   "resume",      "stop",   "go"};
    for (size_t i = 0; i < sizeof LINES / sizeof LINES[0]; i++)
        fuzz_plant(LINES[i], strlen(LINES[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char line[REQUEST_SIZE_MAX], again[REQUEST_SIZE_MAX];
    struct request request;
    struct err err = {0};
    if (size >= sizeof line)
        return 0;
    memcpy(line, data, size);
    line[size] = '\0';
    if (request_parse(&request, line, &err)) {
        FUZZ_CHECK(err.message[0], "refused without a sentence");
        for (const char *c = err.message; *c; c++)
            FUZZ_CHECK(*c >= ' ' && *c <= '~', "byte %d in the sentence", *c);
        return 0;
    }
    snprintf(again, sizeof again, "%s%s", request_word(request.kind), request.is_json ? " json" : "");
    FUZZ_CHECK(strcmp(again, line) == 0, "\"%s\" taken for \"%s\"", line, again);
    FUZZ_CHECK(request.kind == REQUEST_STATUS || request.kind == REQUEST_DOCTOR || !request.is_json, "%s", line);
    return 0;
}
