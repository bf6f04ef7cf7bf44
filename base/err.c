#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, int code, const char *format, ...)
{
    if (err) {
        va_list arguments;
        va_start(arguments, format);
        err->code = code;
        vsnprintf(err->message, sizeof err->message, format, arguments);
        va_end(arguments);
    }
    return code;
}

int err_prefix(struct err *err, const char *format, ...)
{
    if (!err)
        return ERR_ARG;
    char context[sizeof err->message];
    char joined[2 * sizeof err->message + 3];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context, sizeof context, format, arguments);
    va_end(arguments);
    snprintf(joined, sizeof joined, "%s: %s", context, err->message);
    joined[sizeof err->message - 1] = '\0';
    memcpy(err->message, joined, sizeof err->message);
    return err->code;
}

const char *err_name(int code)
{
    switch (code) {
    case 0:
        return "OK";
#define X(name, number, text)                                                                                          \
    case -(number):                                                                                                    \
        return #name;
        ERR_LIST(X)
#undef X
    }
    return "ERR_UNKNOWN";
}

const char *err_text(int code)
{
    switch (code) {
    case 0:
        return "no error";
#define X(name, number, text)                                                                                          \
    case -(number):                                                                                                    \
        return text;
        ERR_LIST(X)
#undef X
    }
    return "unknown error";
}
