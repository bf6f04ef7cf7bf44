#include "controller/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double json_number(const char *json, const char *key)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *found = strstr(json, quoted);
    if (!found)
        return NAN;
    char *end;
    double value = strtod(found + strlen(quoted), &end);
    return end == found + strlen(quoted) ? NAN : value;
}

void json_text(const char *json, const char *key, char *ret_text, size_t size)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *found = strstr(json, quoted);
    size_t n = 0;
    if (found && found[strlen(quoted)] == '"')
        for (const char *c = found + strlen(quoted) + 1; *c && *c != '"' && n + 1 < size; c++) {
            if (*c == '\\' && c[1])
                c++;
            ret_text[n++] = *c;
        }
    ret_text[n] = '\0';
}
