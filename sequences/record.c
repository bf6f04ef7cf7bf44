#include "sequences/record.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- units --------------------------------------------------------------------------------------------------- */

/* value in the stored unit = number * multiply / divide; both exact, so that "33 kbar" is the double nearest 3.3. */
struct unit {
    enum record_unit family;
    const char *name;
    double multiply, divide;
};

static const struct unit UNITS[] = {
    {RECORD_GPA, "GPa", 1, 1},
    {RECORD_GPA, "kbar", 1, 10},
    {RECORD_GPA, "MPa", 1, 1000},
    {RECORD_BAR, "bar", 1, 1},
    {RECORD_BAR_PER_MIN, "bar/min", 1, 1},
    {RECORD_BAR_PER_MIN, "bar/h", 1, 60},
    {RECORD_S, "s", 1, 1},
    {RECORD_S, "ms", 1, 1000},
    {RECORD_S, "min", 60, 1},
    {RECORD_S, "h", 3600, 1},
    {RECORD_NM, "nm", 1, 1},
    {RECORD_M, "m", 1, 1},
    {RECORD_M, "mm", 1, 1000},
    {RECORD_MA, "mA", 1, 1},
    {RECORD_EV, "eV", 1, 1},
    {RECORD_EV, "keV", 1000, 1},
    {RECORD_K, "K", 1, 1},
};
#define N_UNITS ((int)(sizeof UNITS / sizeof UNITS[0]))

/* How a sentence speaks of a family: what it is, and one good example. */
static const struct {
    const char *what, *example;
} FAMILIES[RECORD_UNIT_COUNT] = {
    [RECORD_GPA] = {"a pressure", "3.3 GPa"},       [RECORD_BAR] = {"a membrane pressure", "130 bar"},
    [RECORD_BAR_PER_MIN] = {"a rate", "2 bar/min"}, [RECORD_S] = {"a time", "600 s"},
    [RECORD_NM] = {"a wavelength", "694.26 nm"},    [RECORD_M] = {"a length", "5 m"},
    [RECORD_MA] = {"a current", "100 mA"},          [RECORD_EV] = {"an energy", "20.95 keV"},
    [RECORD_K] = {"a temperature", "296 K"},
};

/* The stored unit of a family is the one listed first. */
static const char *unit_stored(enum record_unit family)
{
    for (int i = 0; i < N_UNITS; i++)
        if (UNITS[i].family == family)
            return UNITS[i].name;
    return "";
}

static bool unit_parse(const char *text, enum record_unit family, double *ret_value)
{
    /* strtod knows "inf", "nan" and hexadecimal; an operator's number is decimal. */
    if (strcspn(text, "0123456789") > strspn(text, "+-.") || strpbrk(text, "xX"))
        return false;
    char *end;
    double number = strtod(text, &end);
    end += strspn(end, " ");
    for (int i = 0; i < N_UNITS; i++)
        if (UNITS[i].family == family && strcmp(end, UNITS[i].name) == 0) {
            *ret_value = number * UNITS[i].multiply / UNITS[i].divide;
            return true;
        }
    return false;
}

/* ---- sentences ----------------------------------------------------------------------------------------------- */

int record_refuse(const struct record_list *list, int32_t index, int code, struct err *err, const char *format, ...)
{
    char sentence[600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    int32_t call = index;
    while (list->items[call].owner >= 0)
        call = list->items[call].owner;
    return err_set(err, code, "%s:%d: %s: %s", list->file, list->items[call].line, list->items[call].key, sentence);
}

static const char *item_show(char *buffer, size_t size, const struct record_item *item)
{
    switch ((enum record_type)item->type) {
    case RECORD_NUMBER:
        snprintf(buffer, size, "%s = %g", item->key, item->number);
        break;
    case RECORD_TEXT:
        snprintf(buffer, size, "%s = \"%.100s\"", item->key, item->text);
        break;
    case RECORD_BOOLEAN:
        snprintf(buffer, size, "%s = %s", item->key, item->number > 0 ? "true" : "false");
        break;
    default:
        snprintf(buffer, size, "%s = { ... }", item->key);
    }
    return buffer;
}

static int edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 64 };
    size_t n = strnlen(a, LONGEST), m = strnlen(b, LONGEST);
    int row[LONGEST + 1];
    for (size_t j = 0; j <= m; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int replace = diagonal + (a[i - 1] != b[j - 1]);
            int insert_or_delete = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);
            diagonal = row[j];
            row[j] = replace < insert_or_delete ? replace : insert_or_delete;
        }
    }
    return row[m];
}

const char *record_nearest(const char *word, const char *const *names, int n_names)
{
    const char *nearest = NULL;
    int distance_min = 0;
    for (int i = 0; i < n_names; i++) {
        size_t n = strlen(word), m = strlen(names[i]);
        int distance = edit_distance(word, names[i]);
        if (2 * distance <= (int)(n > m ? n : m) && (!nearest || distance < distance_min)) {
            nearest = names[i];
            distance_min = distance;
        }
    }
    return nearest;
}

const char *record_suggest(char *buffer, size_t size, const char *word, const char *const *names, int n_names)
{
    const char *nearest = record_nearest(word, names, n_names);
    int used =
        nearest ? snprintf(buffer, size, "; nearest is '%s' (known:", nearest) : snprintf(buffer, size, " (known:");
    for (int i = 0; i < n_names && (size_t)used < size; i++)
        used += snprintf(buffer + used, size - (size_t)used, "%s %s", i ? "," : "", names[i]);
    if ((size_t)used < size)
        snprintf(buffer + used, size - (size_t)used, ")");
    return buffer;
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

static int refuse_unknown(const struct record_list *list, int32_t index, const struct record_field *fields,
                          int n_fields, struct err *err)
{
    const char *names[RECORD_FIELDS_MAX];
    char suggestion[400];
    for (int i = 0; i < n_fields; i++)
        names[i] = fields[i].key;
    const char *key = list->items[index].key;
    return record_refuse(list, index, ERR_CONFIG, err, "unknown key '%s'%s", key,
                         record_suggest(suggestion, sizeof suggestion, key, names, n_fields));
}

static int refuse_missing(const struct record_list *list, int32_t index, const struct record_field *field,
                          struct err *err)
{
    if (!FAMILIES[field->unit].example)
        return record_refuse(list, index, ERR_CONFIG, err, "missing key '%s'", field->key);
    return record_refuse(list, index, ERR_CONFIG, err, "missing key '%s'; expected %s, like %s = \"%s\"", field->key,
                         FAMILIES[field->unit].what, field->key, FAMILIES[field->unit].example);
}

static int read_word(const struct record_list *list, int32_t index, const struct record_field *field, char *ret_text,
                     struct err *err)
{
    const struct record_item *item = &list->items[index];
    char shown[160];
    if (item->type != RECORD_TEXT)
        return record_refuse(list, index, ERR_CONFIG, err, "%s: expected a text in quotation marks",
                             item_show(shown, sizeof shown, item));
    for (const char *c = item->text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            return record_refuse(list, index, ERR_CONFIG, err, "%s: expected one line without control characters",
                                 item->key);
    if (item->text[0] == '\0' || strlen(item->text) >= field->size)
        return record_refuse(list, index, ERR_CONFIG, err, "%s: expected 1 to %zu bytes of text, not %zu",
                             item_show(shown, sizeof shown, item), field->size - 1, strlen(item->text));
    memcpy(ret_text, item->text, strlen(item->text) + 1);
    return 0;
}

/* A number in the stored unit of the field, from a plain number or from text with a unit. */
static int read_number(const struct record_list *list, int32_t index, const struct record_field *field,
                       double *ret_value, struct err *err)
{
    const struct record_item *item = &list->items[index];
    bool plain = field->unit == RECORD_PLAIN || field->unit == RECORD_COUNT;
    double value = item->number;
    char shown[160];
    item_show(shown, sizeof shown, item);
    if (field->unit == RECORD_COUNT && (item->type != RECORD_NUMBER || !(fabs(value) <= 1e9) || value != rint(value)))
        return record_refuse(list, index, ERR_CONFIG, err, "%s: expected a whole number", shown);
    if (plain && item->type != RECORD_NUMBER)
        return record_refuse(list, index, ERR_CONFIG, err, "%s: expected a plain number; its unit is in its name",
                             shown);
    if (!plain && item->type != RECORD_TEXT)
        return record_refuse(list, index, ERR_CONFIG, err, "%s: expected %s with its unit, like \"%s\"", shown,
                             FAMILIES[field->unit].what, FAMILIES[field->unit].example);
    if (!plain && !unit_parse(item->text, field->unit, &value)) {
        char known[80] = "";
        for (int i = 0, used = 0; i < N_UNITS; i++)
            if (UNITS[i].family == field->unit)
                used += snprintf(known + used, sizeof known - (size_t)used, "%s%s", used ? ", " : "", UNITS[i].name);
        return record_refuse(list, index, ERR_CONFIG, err, "%s: expected %s in %s, like \"%s\"", shown,
                             FAMILIES[field->unit].what, known, FAMILIES[field->unit].example);
    }
    if (!(value >= field->min && value <= field->max))
        return record_refuse(list, index, ERR_CONFIG, err, "%s: expected %g to %g%s%s", shown, field->min, field->max,
                             plain ? "" : " ", unit_stored(field->unit));
    *ret_value = value;
    return 0;
}

static int read_choice(const struct record_list *list, int32_t index, const struct record_field *field,
                       int32_t *ret_choice, struct err *err)
{
    const struct record_item *item = &list->items[index];
    char shown[160], suggestion[400];
    for (int32_t i = 0; i < field->n_choices; i++)
        if (item->type == RECORD_TEXT && strcmp(item->text, field->choices[i]) == 0) {
            *ret_choice = i;
            return 0;
        }
    return record_refuse(list, index, ERR_CONFIG, err, "%s: not a choice%s", item_show(shown, sizeof shown, item),
                         record_suggest(suggestion, sizeof suggestion, item->type == RECORD_TEXT ? item->text : "",
                                        field->choices, field->n_choices));
}

static int read_field(const struct record_list *list, int32_t index, const struct record_field *field, void *base,
                      struct err *err)
{
    char *member = (char *)base + field->offset;
    if (field->unit == RECORD_WORD)
        return read_word(list, index, field, member, err);
    if (field->unit == RECORD_CHOICE) {
        int32_t choice = 0;
        int code = read_choice(list, index, field, &choice, err);
        if (code == 0)
            memcpy(member, &choice, sizeof choice);
        return code;
    }
    if (field->unit == RECORD_NESTED) {
        if (list->items[index].type != RECORD_TABLE)
            return record_refuse(list, index, ERR_CONFIG, err, "%s: expected a table, %s = { ... }", field->key,
                                 field->key);
        return record_read(list, index, field->nested, field->n_nested, base, err);
    }
    double value = 0;
    int code = read_number(list, index, field, &value, err);
    if (code < 0)
        return code;
    if (field->unit == RECORD_COUNT) {
        assert(field->size == sizeof(int32_t));
        memcpy(member, &(int32_t){(int32_t)value}, sizeof(int32_t));
    } else {
        assert(field->size == sizeof(double));
        memcpy(member, &value, sizeof value);
    }
    return 0;
}

static bool same_quantity(const struct record_field *a, const struct record_field *b)
{
    return a == b || (a->unit != RECORD_NESTED && b->unit != RECORD_NESTED && a->offset == b->offset);
}

int record_read(const struct record_list *list, int32_t index, const struct record_field *fields, int n_fields,
                void *base, struct err *err)
{
    assert(index >= 0 && index < list->n_items && n_fields <= RECORD_FIELDS_MAX);
    const char *given[RECORD_FIELDS_MAX] = {NULL}; /* the key that was written for each field's quantity */
    for (int32_t i = index + 1; i < list->n_items; i++) {
        const struct record_item *item = &list->items[i];
        if (item->owner != index)
            continue;
        int f = 0;
        while (f < n_fields && strcmp(fields[f].key, item->key) != 0)
            f++;
        if (f == n_fields)
            return refuse_unknown(list, i, fields, n_fields, err);
        if (given[f])
            return record_refuse(list, i, ERR_CONFIG, err, "%s and %s say the same: give one", given[f], item->key);
        for (int other = 0; other < n_fields; other++)
            if (same_quantity(&fields[f], &fields[other]))
                given[other] = item->key;
        int code = read_field(list, i, &fields[f], base, err);
        if (code < 0)
            return code;
    }
    for (int f = 0; f < n_fields; f++)
        if (fields[f].required && !given[f])
            return refuse_missing(list, index, &fields[f], err);
    return 0;
}
