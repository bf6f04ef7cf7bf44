/*
 * The rehearsal: starts isobar-sim and isobard on it, shows the run while it goes, and afterwards, when the daemon has
 * ended, holds what it recorded against the simulator's truth. It also plays the person at the bench: when the daemon
 * waits for an open cell to be closed and preloaded, or for the membrane to be emptied and the cell locked, it says so
 * and lets `isobar-sim hands` do it, once.
 *
 * While the daemon runs, truth.jsonl is write-only (mode 0200), and the daemon and all its children are started without
 * the privilege that would let root read it all the same.
 */
#ifndef CONTROLLER_REHEARSAL_H
#define CONTROLLER_REHEARSAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct rehearsal_settings {
    const char *sequence_path;
    const char *cell_path; /* of the cell's passport; NULL: none */
    const char *directory; /* artefacts: night.db, results/, raw/, truth.jsonl, isobard.log, sim.log */
    uint64_t seed;
    const char *membrane;     /* driver of the membrane controller that is simulated */
    const char *spectrometer; /* the spectrometer that is simulated, "ocean" or "epics" */
    bool is_cell_open;        /* at the beginning: for a sequence that calibrates its ruby first */
    const char *ruby_access;  /* "always" or "between_scans": which beamline is simulated */
};

/* 0: passed; 1: failed (said on standard output); negative: could not be run. */
int rehearsal_run(const struct rehearsal_settings *settings, struct err *err);

#endif
