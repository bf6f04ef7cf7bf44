/*
 * What a night has taught of its cell: the passport of the cell, from a run's database or from a file of its own.
 *
 * Every pressure change leaves a branch (table cell_branch): the edges of the dead zone on both sides, and how fast the
 * sample follows beyond them. The passport estimates the cell from all of them:
 *
 *     edges      u = take-up + p / gpa_per_bar +- half width(p)      straight lines through all branches
 *     creep      creep_s = compliance x gpa_per_bar
 *
 * The near edge of a load is the upper one and that of an unload the lower one; near edges weigh most, then far edges,
 * and the slope that each change saw. The passport is a Lua file that the same sandbox reads as a sequence: cell { ...
 * } exactly as a sequence has it, cell_passport { ... }, and one cell_branch { ... } per change. It never drives
 * anything: nothing reads it yet to start a run.
 */
#ifndef CONTROLLER_CELL_H
#define CONTROLLER_CELL_H

#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "sequences/plan.h"

#define CELL_BRANCHES_MAX PLAN_STEPS_MAX

/* One row of cell_branch, true pressures; NaN: not taught. */
struct cell_branch {
    int32_t step_index;
    int32_t direction; /* +1 load, -1 unload, 0 the locked cell, of which only the pressure is known */
    double pressure_gpa;
    double membrane_bar_near_edge;
    double membrane_bar_far_edge;
    double membrane_bar_centre;
    double compliance_bar_s_per_gpa;
    double compliance_bar_s_per_gpa_max; /* which it would be imprudent to exceed */
    double edge_bar_per_gpa;
    double half_width_bar;
};

/* NaN: the branches do not tell. */
struct cell_estimate {
    double takeup_bar;
    double gpa_per_bar;
    double creep_s;
    double creep_s_max;    /* which it would be imprudent to exceed: with compliance_bar_s_per_gpa_max */
    double half_width_bar; /* of the dead zone at no pressure, and its growth */
    double half_width_bar_per_gpa;
};

struct cell_passport {
    struct plan_cell cell;
    char run[64];      /* uid of the run */
    char measured[32]; /* UTC of the last branch */
    char clock[16];    /* "real" or "simulated" */
    struct cell_estimate estimate;
    int32_t n_branches;
    struct cell_branch branches[CELL_BRANCHES_MAX];
};

/* Weighted least squares over all branches. With one pressure only, the slope is what that change saw of its edge, and
 * the width of the dead zone, if it was not seen either, what most cells have. */
void cell_estimate_branches(const struct cell_branch *branches, int32_t n_branches, struct cell_estimate *ret_estimate);

/* From a run's database, while it runs or later. Errors: ERR_DB, ERR_DATA (no run in it), those of plan_read. */
int cell_read_db(struct cell_passport *ret_passport, const char *db_path, struct err *err);

/* From a passport's file. Errors as for plan_load. */
int cell_read_file(struct cell_passport *ret_passport, const char *path, struct err *err);

/* Writes a new file; never over another. Errors: ERR_IO. */
int cell_write_file(const struct cell_passport *passport, const char *path, struct err *err);

/* The table and the estimates, for people. */
void cell_print(const struct cell_passport *passport, FILE *stream);

#endif
