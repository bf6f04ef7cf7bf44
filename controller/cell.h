/*
 * What nights have taught of a cell, and how much of it may still be believed. Pure.
 *
 * Every pressure change leaves a branch (table cell_branch): the edges of the dead zone on both sides, and how fast the
 * sample follows beyond them. All branches together give the cell's own numbers:
 *
 *     edges      u = take-up + p / gpa_per_bar +- half width(p)      straight lines through all branches
 *     creep      creep_s = compliance x gpa_per_bar
 *
 * The near edge of a load is the upper one and that of an unload the lower one; near edges weigh most, then far edges,
 * and the slope that each change saw. Each estimate has a sigma of its own from the residual scatter, which grows until
 * the passport is used:
 *
 *     sigma^2 = sigma_fit^2 + (value x share)^2,    share^2 = days x (3 %)^2 + reloadings x (15 %)^2
 *
 * A passport (controller/passport.h reads and writes it) is for one cell, one ruler and one kind of clock; another one
 * is refused before anything starts.
 */
#ifndef CONTROLLER_CELL_H
#define CONTROLLER_CELL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "controller/loading.h"
#include "sequences/beamline.h"
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
    double compliance_bar_s_per_gpa;
    double creep_s;
    double creep_s_max;    /* which it would be imprudent to exceed: with compliance_bar_s_per_gpa_max; no sigma */
    double half_width_bar; /* of the dead zone at no pressure, and its growth */
    double half_width_bar_per_gpa;
};

struct cell_passport {
    struct plan_cell cell;
    char run[64];           /* uid of the run */
    char measured[32];      /* UTC of the last branch, 2026-11-22T04:00:00Z */
    int64_t measured_utc_s; /* the same */
    char clock[16];         /* "real" or "simulated" */
    char scale[24];         /* the ruler of all its pressures: the run's ruby { } */
    double lambda0_nm;
    double temperature_k_zero;
    struct cell_estimate estimate;
    struct cell_estimate sigma; /* when it was measured */
    int32_t n_branches;
    struct cell_branch branches[CELL_BRANCHES_MAX];
};

/* What has happened to the cell since its passport was measured. */
struct cell_age {
    double days;
    int32_t n_reloadings;
};

/* Weighted least squares over all branches. With one pressure only, the slope is what that change saw of its edge, and
 * the width of the dead zone, if it was not seen either, what most cells have. A sigma is never smaller than what the
 * branches' own uncertainties make it: a few that agree by chance prove nothing. */
void cell_estimate_branches(const struct cell_branch *branches, int32_t n_branches, struct cell_estimate *ret_estimate,
                            struct cell_estimate *ret_sigma);

/* The age at an instant of UTC; a passport from a simulated night may be measured after it, and is then new. A run that
 * begins with hands at the screws is a reloading: when the cell was locked, or when the sequence begins at another
 * pressure than the passport ends with. Nights in between that left no passport count by their days only. */
struct cell_age cell_age_at(const struct cell_passport *passport, const struct plan *plan, int64_t utc_s);

/* The sigmas, grown with age. */
void cell_grow_sigma(const struct cell_passport *passport, const struct cell_age *age, struct cell_estimate *ret_sigma);

/* For the loading protocol, every byte defined; all zero when the passport does not tell everything that is asked. */
void cell_know(const struct cell_passport *passport, const struct cell_age *age, struct loading_cell *ret_cell);

/* Whether the passport is of the plan's cell: culet and medium, name and gasket where both give them; and the plan's
 * limits are not above the passport's. Errors: ERR_CONFIG (another cell), ERR_LIMIT. */
int cell_check_plan(const struct cell_passport *passport, const struct plan *plan, struct err *err);

/* 0.05 GPa: more than a ruby is read wrong by, less than a wrong lambda0 usually does. */
#define CELL_LAMBDA0_NM_MAX 0.02

/* Whether pressures of the passport and of this beamline are on one ruler: the same scale, and lambda0 within 0.02 nm
 * (0.05 GPa) when both are brought to one temperature. Errors: ERR_CONFIG (two rulers). */
int cell_check_ruler(const struct cell_passport *passport, const struct beamline *beamline, struct err *err);

/* lambda0 of the passport's ruler, at another temperature than that at which it is stated. */
double cell_lambda0_nm(const struct cell_passport *passport, double temperature_k_zero);

/* Whether it may be believed at this instant of UTC. Errors: ERR_CONFIG (a simulated cell for a run on instruments;
 * measured in the future, by the real clock). */
int cell_check_clock(const struct cell_passport *passport, bool is_real, int64_t utc_s, struct err *err);

#endif
