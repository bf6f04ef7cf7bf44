#include "controller/request.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *word;
    bool has_json;
} REQUESTS[REQUEST_KIND_COUNT] = {
#define X(name, word, has_json) [REQUEST_##name] = {word, has_json},
    REQUEST_LIST(X)
#undef X
};

const char *request_word(enum request_kind kind)
{
    assert(kind >= 0 && kind < REQUEST_KIND_COUNT);
    return REQUESTS[kind].word;
}

int request_parse(struct request *ret_request, const char *line, struct err *err)
{
    for (int kind = 0; kind < REQUEST_KIND_COUNT; kind++) {
        size_t n = strlen(REQUESTS[kind].word);
        if (strncmp(line, REQUESTS[kind].word, n) != 0)
            continue;
        bool is_json = REQUESTS[kind].has_json && strcmp(line + n, " json") == 0;
        if (line[n] && !is_json)
            continue;
        *ret_request = (struct request){(enum request_kind)kind, is_json};
        return 0;
    }
    char quoted[40];
    size_t n = 0;
    for (; line[n] && n + 1 < sizeof quoted; n++)
        quoted[n] = line[n] >= ' ' && line[n] <= '~' ? line[n] : '?';
    quoted[n] = '\0';
    return err_set(err, ERR_ARG,
                   "unknown request '%s': expected status, status json, doctor, doctor json, hold, resume or stop",
                   quoted);
}
