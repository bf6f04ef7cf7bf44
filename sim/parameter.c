#include "sim/parameter.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct parameter_law parameter_laws[PARAMETER_COUNT] = {
#define X(id, name, kind, access, value, choices) {name, PARAMETER_##kind, PARAMETER_##access, value, choices},
    PARAMETER_LIST(X)
#undef X
};

struct parameter_table {
    pthread_mutex_t mutex;
    double numbers[PARAMETER_COUNT];
    char texts[PARAMETER_COUNT][PARAMETER_TEXT_MAX];
    parameter_listener *listener;
    void *context;
};

struct parameter_table *parameter_open(void)
{
    struct parameter_table *table = calloc(1, sizeof *table);
    assert(table);
    pthread_mutex_init(&table->mutex, NULL);
    for (int i = 0; i < PARAMETER_COUNT; i++) {
        table->numbers[i] = strtod(parameter_laws[i].value, NULL);
        snprintf(table->texts[i], PARAMETER_TEXT_MAX, "%s", parameter_laws[i].value);
    }
    return table;
}

void parameter_close(struct parameter_table *table)
{
    if (!table)
        return;
    pthread_mutex_destroy(&table->mutex);
    free(table);
}

void parameter_listen(struct parameter_table *table, parameter_listener *listener, void *context)
{
    table->context = context;
    table->listener = listener;
}

double parameter_number(struct parameter_table *table, enum parameter parameter)
{
    pthread_mutex_lock(&table->mutex);
    double number = table->numbers[parameter];
    pthread_mutex_unlock(&table->mutex);
    return number;
}

void parameter_text(struct parameter_table *table, enum parameter parameter, char ret_text[PARAMETER_TEXT_MAX])
{
    pthread_mutex_lock(&table->mutex);
    memcpy(ret_text, table->texts[parameter], PARAMETER_TEXT_MAX);
    pthread_mutex_unlock(&table->mutex);
}

static void announce(struct parameter_table *table, enum parameter parameter)
{
    if (table->listener)
        table->listener(table->context, parameter);
}

void parameter_set_number(struct parameter_table *table, enum parameter parameter, double number)
{
    pthread_mutex_lock(&table->mutex);
    table->numbers[parameter] = number;
    pthread_mutex_unlock(&table->mutex);
    announce(table, parameter);
}

void parameter_set_text(struct parameter_table *table, enum parameter parameter, const char *text)
{
    pthread_mutex_lock(&table->mutex);
    memset(table->texts[parameter], 0, PARAMETER_TEXT_MAX);
    snprintf(table->texts[parameter], PARAMETER_TEXT_MAX, "%s", text);
    pthread_mutex_unlock(&table->mutex);
    announce(table, parameter);
}

bool parameter_choice(enum parameter parameter, int index, char ret_text[32], char ret_severity[16])
{
    assert(parameter_laws[parameter].kind == PARAMETER_MENU);
    const char *start = parameter_laws[parameter].detail;
    for (; index > 0; index--) {
        start = strchr(start, '|');
        if (!start++)
            return false;
    }
    int length = (int)strcspn(start, ":|");
    snprintf(ret_text, 32, "%.*s", length, start);
    bool is_alarm = start[length] == ':';
    start += length + is_alarm;
    snprintf(ret_severity, 16, "%.*s", is_alarm ? (int)strcspn(start, "|") : 0, start);
    return true;
}

int parameter_choice_count(enum parameter parameter)
{
    char text[32], severity[16];
    int n = 0;
    while (parameter_choice(parameter, n, text, severity))
        n++;
    return n;
}
