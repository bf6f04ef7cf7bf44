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

enum plan_kind {
    PLAN_PRELOADED,
    PLAN_LOAD,
    PLAN_UNLOAD,
    PLAN_ISOBAR,
    PLAN_DEFLATE, /* the membrane is emptied and the cell locked, by hand: measured, not driven; no change follows */
    PLAN_CALIBRATE_RUBY, /* a free ruby is read, and lambda0 taken from it: first of all, before `preloaded` */
    PLAN_KIND_COUNT
};

struct plan_cell {
    char name[32];              /* the cell's own name; "" when the sequence gives none */
    double culet_um;            /* > 0 */
    char gasket[48];            /* as written; "" when not given */
    char medium[48];            /* pressure medium, as written */
    double hydrostatic_gpa_max; /* above it the medium is no fluid; by the medium unless given; infinite: none known */
    double pressure_gpa_max;    /* the cell's limit, sample pressure */
    double membrane_bar_max;    /* the cell's limit, membrane pressure */
};

/* What follows the ramp of a pressure change (controller/loading.h). */
enum plan_back_off {
    PLAN_BACK_OFF_CALIBRATE, /* probe for the far edge of the dead zone */
    PLAN_BACK_OFF_APPLY,     /* by the width that is known, without probing; where it is not known well, probe */
    PLAN_BACK_OFF_NONE,      /* stay where the ramp ended */
    PLAN_BACK_OFF_COUNT
};

/* Of an isobar's drift. */
enum plan_drift_correction { PLAN_CORRECT_NONE, PLAN_CORRECT_BETWEEN_SCANS, PLAN_DRIFT_CORRECTION_COUNT };

struct plan_step {
    enum plan_kind kind;
    int line;                   /* in the sequence file */
    double pressure_gpa_target; /* preloaded: `at`; load, unload: `to`; isobar, deflate: that of the step before */
    double rate_bar_per_min;    /* load, unload; 0 < rate <= 20; default 2 */
    double duration_s;          /* isobar */
    int32_t n_scans;            /* isobar; 0 without `scan`; default 1 with it */
    int32_t n_frames;           /* per scan */
    double frame_time_s;        /* default 0.1 */
    double drift_gpa_max;       /* isobar; default 0.12 */
    int32_t back_off;           /* load, unload: enum plan_back_off; default calibrate */
    int32_t drift_correction;   /* isobar: enum plan_drift_correction; default none */
    int32_t n_readings;         /* calibrate_ruby; default 20 */
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

/* The same from a text that is at hand, such as the one recorded with a run; `name` is what sentences call it. */
int plan_read(struct plan *ret_plan, const char *text, const char *name, struct err *err);

/* The call cell { ... } of any file that is read by the sandbox. Errors: ERR_CONFIG. */
struct record_list;
struct record_field;
const struct record_field *plan_cell_fields(int *ret_n_fields); /* of a struct plan_cell */
int plan_read_cell(struct plan_cell *ret_cell, const struct record_list *list, int32_t call, struct err *err);

/* Up to which pressure a medium stays hydrostatic at room temperature, GPa; infinite for helium and for a medium that
 * is not known. Known by the words of its name: methanol-ethanol 10, neon 15, nitrogen 3 (Klotz et al., J. Phys. D 42,
 * 075413 (2009), rounded down), argon 9 (the customary figure; gradients are seen in it from 2 GPa). */
double plan_hydrostatic_gpa(const char *medium);

/* The first step whose target lies above the cell's hydrostatic limit, which is said and not refused; -1: none. */
int32_t plan_find_nonhydrostatic(const struct plan *plan);

/* The canonical text of the plan, one line per step, every number printed so that it reads back exactly (%.17g). */
void plan_print(const struct plan *plan, FILE *stream);

/* Shortest and longest expected duration of one step, and of the whole plan, in seconds. */
void plan_estimate_step(const struct plan *plan, int32_t step_index, double *ret_s_min, double *ret_s_max);
void plan_estimate(const struct plan *plan, double *ret_s_min, double *ret_s_max);

#endif
