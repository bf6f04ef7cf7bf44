/*
 * Replay: runs a night's recorded events through the core again and compares every decision, byte for byte.
 */
#ifndef CONTROLLER_REPLAY_H
#define CONTROLLER_REPLAY_H

#include <stdint.h>

#include "base/err.h"

struct replay_report {
    int64_t n_events;
    int64_t n_passes;
    int64_t n_decisions;
};

/* Errors: ERR_DB (not a run of ours), ERR_DATA (recorded by another version of the core; a decision differs: the
 * sentence names the event, what was decided then and what now). */
int replay_run(const char *db_path, struct replay_report *ret_report, struct err *err);

#endif
