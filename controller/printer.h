/*
 * Writes the run's log lines to standard output from a thread of its own: a terminal that is stopped or a pipe that
 * nobody reads must not stop the control thread. Bounded; lines that find it full are counted and dropped (they are in
 * the database all the same).
 */
#ifndef CONTROLLER_PRINTER_H
#define CONTROLLER_PRINTER_H

struct printer;

struct printer *printer_start(void);

/* Queues one line (without newline); never waits. */
void printer_say(struct printer *printer, const char *line);

/* Writes what is queued for at most a second, then ends. */
void printer_join(struct printer *printer);

#endif
