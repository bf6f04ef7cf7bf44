/*
 * What a client may ask of the daemon through its command socket: one line, one of the words below, "json" behind it
 * for an answer that programs read. Pure.
 */
#ifndef CONTROLLER_REQUEST_H
#define CONTROLLER_REQUEST_H

#include <stdbool.h>

#include "base/err.h"

#define REQUEST_SIZE_MAX 128 /* bytes of the line with its end */

/* name, word, whether it has a json form */
#define REQUEST_LIST(X)                                                                                                \
    X(STATUS, "status", true)                                                                                          \
    X(DOCTOR, "doctor", true)                                                                                          \
    X(HOLD, "hold", false)                                                                                             \
    X(RESUME, "resume", false)                                                                                         \
    X(STOP, "stop", false)

enum request_kind {
#define X(name, word, has_json) REQUEST_##name,
    REQUEST_LIST(X)
#undef X
        REQUEST_KIND_COUNT
};

struct request {
    enum request_kind kind;
    bool is_json;
};

const char *request_word(enum request_kind kind);

/* The line without its end. Errors: ERR_ARG (the sentence quotes what can be printed of it, and lists what is known).
 */
int request_parse(struct request *ret_request, const char *line, struct err *err);

#endif
