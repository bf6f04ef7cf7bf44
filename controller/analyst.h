/*
 * Runs isobar-analyze on each finished scan, one at a time, in a child process of low priority, and posts what it says.
 * A crash of the analysis is a sentence in the result row and nothing more.
 */
#ifndef CONTROLLER_ANALYST_H
#define CONTROLLER_ANALYST_H

#include <stdbool.h>

#include "controller/inbox.h"
#include "db/store.h"

struct analyst;

struct analyst *analyst_start(struct inbox *inbox, struct store *store, const char *results_directory);

/* Queues one scan; up to 64 wait. */
int analyst_add(struct analyst *analyst, int64_t scan_number, const char *master_path, struct err *err);

bool analyst_is_idle(struct analyst *analyst);

/* Waits for the present analysis, drops the rest. */
void analyst_join(struct analyst *analyst);

#endif
