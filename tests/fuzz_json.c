/*
 * Parser: the one line that isobar-analyze prints, as the analyst reads it (controller/json). Property: a text is
 * terminated within its size and is no longer than what stands in the line; a number is NaN or what stands in the line.
 */
#include <string.h>

#include "controller/json.h"
#include "tests/fuzz.h"

const char *const fuzz_words[] = {"\"tau_s\":", "\"reason\":\"", "\\\"", "\\", "null",
                                  "nan",        "1e999",         "\",",  "}",  NULL};

void fuzz_plant_seeds(void)
{
    static const char *const LINES[] = {
        "{\"tau_s\":100.4,\"tau_s_sigma\":0.91,\"beta\":1.741,\"beta_sigma\":0.027,\"contrast\":0.0512,"
        "\"contrast_sigma\":0.0003,\"baseline\":1.0001,\"n_photons\":1234567,\"reason\":\"\"}",
        "{\"tau_s\":null,\"beta\":null,\"n_photons\":0,\"reason\":\"the fit \\\"failed\\\": C:\\\\x\"}"};
    for (size_t i = 0; i < sizeof LINES / sizeof LINES[0]; i++)
        fuzz_plant(LINES[i], strlen(LINES[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const KEYS[] = {"tau_s",    "tau_s_sigma",    "beta",     "beta_sigma",
                                       "contrast", "contrast_sigma", "baseline", "n_photons"};
    char *line = malloc(size + 1), text[40];
    if (!line)
        abort();
    memcpy(line, data, size);
    line[size] = '\0';
    for (size_t i = 0; i < sizeof KEYS / sizeof KEYS[0]; i++) {
        double value = json_number(line, KEYS[i]);
        FUZZ_CHECK(value != value || strstr(line, KEYS[i]), "%s is %g", KEYS[i], value);
    }
    for (size_t room = 1; room <= sizeof text; room += 13) {
        memset(text, 'x', sizeof text);
        json_text(line, "reason", text, room);
        FUZZ_CHECK(memchr(text, 0, room), "no end within %zu", room);
        FUZZ_CHECK(room == sizeof text || text[room] == 'x', "written beyond %zu", room);
        FUZZ_CHECK(text[0] == '\0' || strstr(line, "\"reason\":\""), "\"%s\" from nothing", text);
    }
    free(line);
    return 0;
}
