/* Reads single values out of the one-line JSON objects that our own programs write. Not a JSON parser: values are
 * numbers or strings, and of keys that stand there twice (the result of a scan, and then of each of its q bins) the
 * first counts. Pure. */
#ifndef CONTROLLER_JSON_H
#define CONTROLLER_JSON_H

#include <stddef.h>

/* The number behind "key":, NaN when it is absent or null. */
double json_number(const char *json, const char *key);

/* The string behind "key":, without its escapes; "" when absent or null. */
void json_text(const char *json, const char *key, char *ret_text, size_t size);

#endif
