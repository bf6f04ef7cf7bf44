/*
 * Errors: one list of codes, and the sentence that goes with one failure.
 *
 * Functions that can fail return 0 (or a count) or a negative ERR_* and fill the last parameter. Callers add context
 * with err_prefix. A sentence says what failed, what was expected, what was seen with unit and limit, what was done,
 * and what the operator can do: lower case, no full stop.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#define ERR_LIST(X)                                                                                                    \
    X(ERR_ARG, 1, "argument out of its domain")                                                                        \
    X(ERR_CONFIG, 2, "configuration or plan not usable")                                                               \
    X(ERR_LIMIT, 3, "refused: beyond a limit")                                                                         \
    X(ERR_IO, 4, "input or output failed")                                                                             \
    X(ERR_LINK, 5, "link to an instrument lost")                                                                       \
    X(ERR_TIMEOUT, 6, "no answer in time")                                                                             \
    X(ERR_PROTOCOL, 7, "answer not understood")                                                                        \
    X(ERR_REFUSED, 8, "instrument refused")                                                                            \
    X(ERR_DATA, 9, "data not usable")                                                                                  \
    X(ERR_DB, 10, "database not usable")                                                                               \
    X(ERR_FIT, 11, "fit not believed")                                                                                 \
    X(ERR_FULL, 12, "a bounded queue or table is full")                                                                \
    X(ERR_SYSTEM, 13, "operating system refused")                                                                      \
    X(ERR_STATE, 14, "not possible in this state")

enum err_code {
    ERR_NONE = 0,
#define X(name, number, text) name = -(number),
    ERR_LIST(X)
#undef X
};

struct err {
    int code;           /* 0 or a negative ERR_* */
    char message[1000]; /* always terminated; empty when code is 0 */
};

/* Fills `err` (which may be NULL) and returns `code`, so that a failing function can end with `return err_set(...)`. */
int err_set(struct err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the message and returns err->code. */
int err_prefix(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "ERR_LINK" for ERR_LINK; "ERR_UNKNOWN" for a number that is not in the list. */
const char *err_name(int code);

/* The list's short text for a code. */
const char *err_text(int code);

#endif
