/*
 * Records: what a Lua file built, as plain data, and the reading of it into C structures.
 *
 * A file calls constructors, like load { to = "3.3 GPa" }. Each call is an item, followed by one item per key in sorted
 * order; a table inside it is an item too, followed by its own. Pure: no file, no Lua, no print. A quantity is written
 * with its unit unless the key carries it: `duration = "1 h"`, `culet_um = 600`. Nothing is guessed: an unknown key, a
 * missing unit and a number out of its range are errors that name file, line and what was expected.
 */
#ifndef SEQUENCES_RECORD_H
#define SEQUENCES_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define RECORD_ITEMS_MAX 4096
#define RECORD_DEPTH_MAX 2   /* a table in a call's table; no deeper */
#define RECORD_FIELDS_MAX 24 /* keys in one table */

enum record_type { RECORD_CALL, RECORD_TABLE, RECORD_NUMBER, RECORD_TEXT, RECORD_BOOLEAN, RECORD_TYPE_COUNT };

struct record_item {
    int32_t type;  /* enum record_type */
    int32_t line;  /* of the call, from 1 */
    int32_t owner; /* index of the call or table that holds it, smaller than its own; -1 for a call */
    double number; /* boolean: 0 or 1 */
    char key[32];  /* call: the constructor's name */
    char text[208];
};

struct record_list {
    const char *file; /* for sentences */
    int32_t n_items;
    struct record_item items[RECORD_ITEMS_MAX];
};

/* How a value is written and stored. WORD: text. COUNT: whole number, stored as int32_t. PLAIN: number whose key
 * carries the unit. NESTED: a table with fields of its own. CHOICE: one of a few words, stored as its
 * index, int32_t. The others: text with a unit, stored in the named unit. */
enum record_unit {
    RECORD_WORD,
    RECORD_COUNT,
    RECORD_PLAIN,
    RECORD_NESTED,
    RECORD_CHOICE,
    RECORD_GPA,
    RECORD_BAR,
    RECORD_BAR_PER_MIN,
    RECORD_S,
    RECORD_NM,
    RECORD_M,
    RECORD_MA,
    RECORD_EV,
    RECORD_K,
    RECORD_UNIT_COUNT
};

/* One key. Two fields with the same offset are two spellings of one quantity: exactly one may be given. */
struct record_field {
    const char *key;
    enum record_unit unit;
    bool required;
    size_t offset;   /* of a double, int32_t or char[size] in the structure that is read */
    size_t size;     /* of the member, bytes */
    double min, max; /* both allowed */
    const struct record_field *nested;
    int n_nested;
    const char *const *choices;
    int n_choices;
};

#define RECORD_CHOICE_FIELD(key_, type_, member_, choices_)                                                            \
    .key = (key_), .unit = RECORD_CHOICE, .offset = offsetof(type_, member_), .size = sizeof(((type_ *)0)->member_),   \
    .choices = (choices_), .n_choices = (int)(sizeof(choices_) / sizeof(choices_)[0])

#define RECORD_FIELD(key_, unit_, required_, type_, member_, min_, max_)                                               \
    {                                                                                                                  \
        .key = (key_), .unit = (unit_), .required = (required_), .offset = offsetof(type_, member_),                   \
        .size = sizeof(((type_ *)0)->member_), .min = (min_), .max = (max_)                                            \
    }

/* Reads the keys of the call or table `index` into `base`; absent optional keys leave their member as it is. On failure
 * `base` may be partly filled. Errors: ERR_CONFIG. */
int record_read(const struct record_list *list, int32_t index, const struct record_field *fields, int n_fields,
                void *base, struct err *err);

/* Fails at the item's place: "FILE:LINE: CALL: sentence". */
int record_refuse(const struct record_list *list, int32_t index, int code, struct err *err, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* The name with the smallest edit distance; NULL when none shares as much as half of the longer word. */
const char *record_nearest(const char *word, const char *const *names, int n_names);

/* "; nearest is 'rate' (known: to, rate)" into `buffer`, which it returns. */
const char *record_suggest(char *buffer, size_t size, const char *word, const char *const *names, int n_names);

#endif
