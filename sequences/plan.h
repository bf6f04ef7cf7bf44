/*
 * The plan: the immutable, bounded list of steps that a Lua sequence builds, and the cell it is meant for.
 *
 * A sequence is evaluated once, in a child process with limits on time and memory and without any access to the
 * outside; what comes back is plain data. Dry run, limit checks, display, journal and execution all work on this list.
 */
#ifndef SEQUENCES_PLAN_H
#define SEQUENCES_PLAN_H

#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

#define PLAN_STEPS_MAX 256
#define PLAN_TEXT_MAX 65536 /* bytes of Lua source */

enum plan_kind { PLAN_PRELOADED, PLAN_LOAD, PLAN_UNLOAD, PLAN_ISOBAR, PLAN_KIND_COUNT };

struct plan_cell {
    char name[32];           /* the cell's own name; "" when the sequence gives none */
    double culet_um;         /* > 0 */
    char medium[48];         /* pressure medium, as written */
    double pressure_gpa_max; /* the cell's limit, sample pressure */
    double membrane_bar_max; /* the cell's limit, membrane pressure */
};

struct plan_step {
    enum plan_kind kind;
    int line;                   /* in the sequence file */
    double pressure_gpa_target; /* preloaded: `at`; load, unload: `to`; isobar: that of the step before */
    double rate_bar_per_min;    /* load, unload; 0 < rate <= 20; default 2 */
    double duration_s;          /* isobar */
    int32_t n_scans;            /* isobar; 0 without `scan`; default 1 with it */
    int32_t n_frames;           /* per scan */
    double frame_time_s;        /* default 0.1 */
    double drift_gpa_max;       /* isobar; default 0.12 */
};

struct plan {
    struct plan_cell cell;
    int32_t n_steps;
    struct plan_step steps[PLAN_STEPS_MAX];
    uint64_t hash;              /* FNV-1a over the canonical text (plan_print) */
    char source[PLAN_TEXT_MAX]; /* the Lua text it came from, NUL terminated */
};

/* "load" for PLAN_LOAD. */
const char *plan_kind_name(enum plan_kind kind);

/* Evaluates the sequence file at `path`. Errors (nothing is written on failure): ERR_IO (unreadable), ERR_CONFIG (Lua
 * error, unknown key or step with the nearest known name, wrong or missing unit, value out of range, too many steps:
 * each with file and line), ERR_LIMIT (a target above the cell's own limit; time or memory of the evaluation used up).
 * `plan` is about 100 kB: keep it static or on the heap. */
int plan_load(struct plan *ret_plan, const char *path, struct err *err);

/* The canonical text of the plan, one line per step, every number printed so that it reads back exactly (%.17g). */
void plan_print(const struct plan *plan, FILE *stream);

/* Shortest and longest expected duration of one step, and of the whole plan, in seconds. */
void plan_estimate_step(const struct plan *plan, int32_t step_index, double *ret_s_min, double *ret_s_max);
void plan_estimate(const struct plan *plan, double *ret_s_min, double *ret_s_max);

#endif
