#include "controller/printer.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#define LINES_MAX 256
#define LINE_BYTES_MAX 1600
#define WAIT_MS 100

struct printer {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t filled;
    int first, n;
    long n_dropped;
    bool is_ended;
    int64_t end_wall_ns;
    char lines[LINES_MAX][LINE_BYTES_MAX];
};

/* Whether the run is over and nobody has read for a second. */
static bool is_given_up(struct printer *printer)
{
    pthread_mutex_lock(&printer->mutex);
    bool is_over = printer->is_ended && clock_wall_ns() > printer->end_wall_ns;
    pthread_mutex_unlock(&printer->mutex);
    return is_over;
}

/* Waits until there is room, in slices; writes no more at a time than a pipe takes at once. */
static void write_line(struct printer *printer, const char *line)
{
    size_t n = strlen(line);
    for (size_t done = 0; done < n && !is_given_up(printer);) {
        struct pollfd room = {.fd = STDOUT_FILENO, .events = POLLOUT};
        if (poll(&room, 1, WAIT_MS) <= 0)
            continue;
        ssize_t written = write(STDOUT_FILENO, line + done, n - done);
        if (written < 0 && errno != EINTR && errno != EAGAIN)
            return;
        done += written > 0 ? (size_t)written : 0;
    }
}

static void *run(void *argument)
{
    struct printer *printer = argument;
    char line[LINE_BYTES_MAX];
    pthread_mutex_lock(&printer->mutex);
    while (printer->n > 0 || !printer->is_ended) {
        if (printer->n == 0) {
            pthread_cond_wait(&printer->filled, &printer->mutex);
            continue;
        }
        memcpy(line, printer->lines[printer->first], sizeof line);
        printer->first = (printer->first + 1) % LINES_MAX;
        printer->n--;
        pthread_mutex_unlock(&printer->mutex);
        write_line(printer, line);
        pthread_mutex_lock(&printer->mutex);
    }
    pthread_mutex_unlock(&printer->mutex);
    return NULL;
}

struct printer *printer_start(void)
{
    struct printer *printer = calloc(1, sizeof *printer);
    assert(printer);
    pthread_mutex_init(&printer->mutex, NULL);
    pthread_cond_init(&printer->filled, NULL);
    int code = pthread_create(&printer->thread, NULL, run, printer);
    assert(code == 0);
    return printer;
}

void printer_say(struct printer *printer, const char *line)
{
    pthread_mutex_lock(&printer->mutex);
    if (printer->n < LINES_MAX) {
        char *slot = printer->lines[(printer->first + printer->n++) % LINES_MAX];
        snprintf(slot, LINE_BYTES_MAX, "%s\n", line);
        pthread_cond_signal(&printer->filled);
    } else {
        printer->n_dropped++;
    }
    pthread_mutex_unlock(&printer->mutex);
}

void printer_join(struct printer *printer)
{
    pthread_mutex_lock(&printer->mutex);
    printer->is_ended = true;
    printer->end_wall_ns = clock_wall_ns() + NS_PER_S;
    pthread_cond_signal(&printer->filled);
    pthread_mutex_unlock(&printer->mutex);
    pthread_join(printer->thread, NULL);
    if (printer->n_dropped)
        fprintf(stderr, "isobard: %ld log lines not shown; they are in the database\n", printer->n_dropped);
    pthread_cond_destroy(&printer->filled);
    pthread_mutex_destroy(&printer->mutex);
    free(printer);
}
