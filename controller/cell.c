#include "controller/cell.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "analysis/ruby.h"

/* ---- estimates ----------------------------------------------------------------------------------------------- */

/* The edges are u = takeup + bar_per_gpa p + side (half_width + half_width_per_gpa p), side +1 upper, -1 lower: four
 * unknowns, weighted least squares over all that the branches say of them. */
enum { U_TAKEUP, U_BAR_PER_GPA, U_WIDTH, U_WIDTH_PER_GPA, U_COUNT };

/* The near edge is computed from a slide of many minutes; the far edge from the first sign of a drop, which a slip of
 * the cell can give too early; the slope of the edge comes from the slide itself. */
#define NEAR_BAR_SIGMA 1.0
#define FAR_BAR_SIGMA 3.0
#define EDGE_BAR_PER_GPA_SIGMA 0.5
/* What most cells have, and twice the spread that is supposed of them (2 to 8 bar, 5 to 20 % of the load): matters
 * where the branches say little of the dead zone, and keeps a single change from saying nothing of its growth. */
static const struct {
    double value, sigma;
} WIDTH_PRIOR = {5.0, 3.5}, WIDTH_PER_GPA_PRIOR = {1.2, 1.2};

/* One change tells the compliance to this share when it says no more: response.c allows a cell as much from one change
 * to the next. All changes together cannot tell it better than the soft edge of the dead zone is a straight line. */
#define COMPLIANCE_SHARE 0.3
#define COMPLIANCE_SHARE_MIN 0.05

static const struct cell_estimate UNKNOWN = {NAN, NAN, NAN, NAN, NAN, NAN, NAN};

struct equations {
    double m[U_COUNT][2 * U_COUNT]; /* normal matrix; its inverse beside it */
    double right[U_COUNT];
    double square; /* of all that was observed, in sigmas */
    int n;
};

static void equations_add(struct equations *equations, const double *x, double y, double sigma)
{
    if (isnan(y))
        return;
    double weight = 1.0 / (sigma * sigma);
    for (int i = 0; i < U_COUNT; i++) {
        for (int j = 0; j < U_COUNT; j++)
            equations->m[i][j] += weight * x[i] * x[j];
        equations->right[i] += weight * x[i] * y;
    }
    equations->square += weight * y * y;
    equations->n++;
}

/* Gauss and Jordan on a symmetric positive matrix; false when it is singular. */
static bool equations_invert(struct equations *equations)
{
    for (int i = 0; i < U_COUNT; i++)
        equations->m[i][U_COUNT + i] = 1.0;
    for (int k = 0; k < U_COUNT; k++) {
        double *row = equations->m[k], pivot = row[k];
        if (!(pivot > 1e-6))
            return false;
        for (int j = 0; j < 2 * U_COUNT; j++)
            row[j] /= pivot;
        for (int i = 0; i < U_COUNT; i++) {
            double factor = equations->m[i][k];
            for (int j = 0; j < 2 * U_COUNT && i != k; j++)
                equations->m[i][j] -= factor * row[j];
        }
    }
    return true;
}

/* The sigmas are scaled by the residual scatter where it is larger than it should be. */
static bool equations_solve(struct equations *equations, double *ret_solution, double *ret_sigma)
{
    if (!equations_invert(equations))
        return false;
    double chi2 = equations->square;
    for (int i = 0; i < U_COUNT; i++) {
        ret_solution[i] = 0.0;
        for (int j = 0; j < U_COUNT; j++)
            ret_solution[i] += equations->m[i][U_COUNT + j] * equations->right[j];
        chi2 -= ret_solution[i] * equations->right[i];
    }
    double chi2_reduced = equations->n > U_COUNT ? chi2 / (equations->n - U_COUNT) : 1.0;
    for (int i = 0; i < U_COUNT; i++)
        ret_sigma[i] = sqrt(equations->m[i][U_COUNT + i] * fmax(chi2_reduced, 1.0));
    return true;
}

static void add_branch(struct equations *equations, const struct cell_branch *branch)
{
    double p = branch->pressure_gpa, side = branch->direction;
    if (side == 0.0)
        return;
    equations_add(equations, (double[]){0.0, 1.0, 0.0, side}, branch->edge_bar_per_gpa, EDGE_BAR_PER_GPA_SIGMA);
    if (isnan(p))
        return;
    equations_add(equations, (double[]){1.0, p, side, side * p}, branch->membrane_bar_near_edge, NEAR_BAR_SIGMA);
    equations_add(equations, (double[]){1.0, p, -side, -side * p}, branch->membrane_bar_far_edge, FAR_BAR_SIGMA);
}

/* Mean of one member over the branches that have it; NaN: none has. */
static double mean_of(const struct cell_branch *branches, int32_t n_branches, size_t offset)
{
    double sum = 0.0, value;
    int n = 0;
    for (int32_t i = 0; i < n_branches; i++) {
        memcpy(&value, (const char *)&branches[i] + offset, sizeof value);
        if (branches[i].direction == 0 || isnan(value))
            continue;
        sum += value;
        n++;
    }
    return n ? sum / n : NAN;
}

/* Of the mean compliance: the larger of what the branches say of themselves and of what they scatter. */
static double compliance_sigma(const struct cell_branch *branches, int32_t n_branches, double mean)
{
    double square = 0.0, scatter = 0.0;
    int n = 0;
    for (int32_t i = 0; i < n_branches; i++) {
        double value = branches[i].compliance_bar_s_per_gpa;
        double sigma = branches[i].compliance_bar_s_per_gpa_max - value;
        if (branches[i].direction == 0 || isnan(value))
            continue;
        if (!(sigma > 0.0))
            sigma = COMPLIANCE_SHARE * value;
        square += sigma * sigma;
        scatter += (value - mean) * (value - mean);
        n++;
    }
    if (n == 0)
        return NAN;
    double sigma = sqrt(square) / n, sigma_scatter = n > 1 ? sqrt(scatter / (n - 1) / n) : 0.0;
    return fmax(fmax(sigma, sigma_scatter), COMPLIANCE_SHARE_MIN * mean);
}

void cell_estimate_branches(const struct cell_branch *branches, int32_t n_branches, struct cell_estimate *ret_estimate,
                            struct cell_estimate *ret_sigma)
{
    struct equations equations = {0};
    double solution[U_COUNT], sigma[U_COUNT];
    *ret_estimate = *ret_sigma = UNKNOWN;
    for (int32_t i = 0; i < n_branches; i++)
        add_branch(&equations, &branches[i]);
    equations_add(&equations, (double[]){0.0, 0.0, 1.0, 0.0}, WIDTH_PRIOR.value, WIDTH_PRIOR.sigma);
    equations_add(&equations, (double[]){0.0, 0.0, 0.0, 1.0}, WIDTH_PER_GPA_PRIOR.value, WIDTH_PER_GPA_PRIOR.sigma);
    if (!equations_solve(&equations, solution, sigma) || !(solution[U_BAR_PER_GPA] > 0.0))
        return;
    double gpa_per_bar = 1.0 / solution[U_BAR_PER_GPA], gpa_per_bar_share = sigma[U_BAR_PER_GPA] * gpa_per_bar;
    double compliance = mean_of(branches, n_branches, offsetof(struct cell_branch, compliance_bar_s_per_gpa));
    double compliance_max = mean_of(branches, n_branches, offsetof(struct cell_branch, compliance_bar_s_per_gpa_max));
    double compliance_share = compliance_sigma(branches, n_branches, compliance) / compliance;
    *ret_estimate = (struct cell_estimate){
        .takeup_bar = solution[U_TAKEUP],
        .gpa_per_bar = gpa_per_bar,
        .compliance_bar_s_per_gpa = compliance,
        .creep_s = gpa_per_bar * compliance,
        .creep_s_max = gpa_per_bar * compliance_max,
        .half_width_bar = solution[U_WIDTH],
        .half_width_bar_per_gpa = solution[U_WIDTH_PER_GPA],
    };
    *ret_sigma = (struct cell_estimate){
        .takeup_bar = sigma[U_TAKEUP],
        .gpa_per_bar = gpa_per_bar * gpa_per_bar_share,
        .compliance_bar_s_per_gpa = compliance * compliance_share,
        .creep_s =
            ret_estimate->creep_s * sqrt(compliance_share * compliance_share + gpa_per_bar_share * gpa_per_bar_share),
        .creep_s_max = NAN,
        .half_width_bar = sigma[U_WIDTH],
        .half_width_bar_per_gpa = sigma[U_WIDTH_PER_GPA],
    };
}

/* ---- age ----------------------------------------------------------------------------------------------------- */

/* No measurement of it is published. At rest a gasket goes on yielding, and friction changes with dust, gas and
 * temperature: many small changes, independent, whose squares add. 3 % after a day, 8 % after a week, 16 % after a
 * month; after a year and a half the passport knows no more than response.c supposes of any cell (70 %). */
#define SHARE_PER_ROOT_DAY 0.03
/* Cells of one make differ by 30 %. The same cell, with its screws drawn anew, keeps anvils, gasket and membrane, and
 * seats its piston differently: half of that. */
#define SHARE_PER_RELOADING 0.15
/* A cell that still stands on its membrane begins where it was left; hands at the screws move it by more than this. */
#define RELOADING_GPA 0.5
/* What a value near zero is not to grow less than. */
#define TAKEUP_BAR_TYPICAL 10.0

#define S_PER_DAY 86400.0

struct cell_age cell_age_at(const struct cell_passport *passport, const struct plan *plan, int64_t utc_s)
{
    double preloaded_gpa = plan->steps[0].pressure_gpa_target, last_gpa = NAN;
    bool is_locked = false;
    for (int32_t i = 0; i < passport->n_branches; i++) {
        is_locked = is_locked || passport->branches[i].direction == 0;
        last_gpa = passport->branches[i].pressure_gpa;
    }
    bool is_reloaded = is_locked || !(fabs(preloaded_gpa - last_gpa) <= RELOADING_GPA);
    return (struct cell_age){.days = fmax(0.0, (double)(utc_s - passport->measured_utc_s) / S_PER_DAY),
                             .n_reloadings = is_reloaded};
}

static double grow(double value, double typical, double sigma, double share)
{
    double grown = fmax(fabs(value), typical) * share;
    return isnan(value) ? NAN : sqrt(sigma * sigma + grown * grown);
}

void cell_grow_sigma(const struct cell_passport *passport, const struct cell_age *age, struct cell_estimate *ret_sigma)
{
    const struct cell_estimate *value = &passport->estimate, *sigma = &passport->sigma;
    double share = sqrt(age->days * SHARE_PER_ROOT_DAY * SHARE_PER_ROOT_DAY +
                        age->n_reloadings * SHARE_PER_RELOADING * SHARE_PER_RELOADING);
    *ret_sigma = (struct cell_estimate){
        .takeup_bar = grow(value->takeup_bar, TAKEUP_BAR_TYPICAL, sigma->takeup_bar, share),
        .gpa_per_bar = grow(value->gpa_per_bar, 0.0, sigma->gpa_per_bar, share),
        .compliance_bar_s_per_gpa = grow(value->compliance_bar_s_per_gpa, 0.0, sigma->compliance_bar_s_per_gpa, share),
        .creep_s = grow(value->creep_s, 0.0, sigma->creep_s, share),
        .creep_s_max = NAN,
        .half_width_bar = grow(value->half_width_bar, WIDTH_PRIOR.value, sigma->half_width_bar, share),
        .half_width_bar_per_gpa =
            grow(value->half_width_bar_per_gpa, WIDTH_PER_GPA_PRIOR.value, sigma->half_width_bar_per_gpa, share),
    };
}

void cell_know(const struct cell_passport *passport, const struct cell_age *age, struct loading_cell *ret_cell)
{
    const struct cell_estimate *value = &passport->estimate;
    struct cell_estimate sigma;
    cell_grow_sigma(passport, age, &sigma);
    memset(ret_cell, 0, sizeof *ret_cell);
    bool is_known = value->compliance_bar_s_per_gpa > 0.0 && value->gpa_per_bar > 0.0 && value->half_width_bar > 0.0 &&
                    sigma.compliance_bar_s_per_gpa > 0.0 && sigma.gpa_per_bar > 0.0 && sigma.half_width_bar > 0.0 &&
                    sigma.half_width_bar_per_gpa > 0.0 && value->takeup_bar > 0.0 && sigma.takeup_bar > 0.0;
    if (!is_known)
        return;
    ret_cell->is_known = 1;
    ret_cell->compliance_bar_s_per_gpa = value->compliance_bar_s_per_gpa;
    ret_cell->compliance_bar_s_per_gpa_sigma = sigma.compliance_bar_s_per_gpa;
    ret_cell->takeup_bar = value->takeup_bar;
    ret_cell->takeup_bar_sigma = sigma.takeup_bar;
    ret_cell->bar_per_gpa = 1.0 / value->gpa_per_bar;
    ret_cell->bar_per_gpa_sigma = sigma.gpa_per_bar / (value->gpa_per_bar * value->gpa_per_bar);
    ret_cell->half_width_bar = value->half_width_bar;
    ret_cell->half_width_bar_sigma = sigma.half_width_bar;
    ret_cell->half_width_bar_per_gpa = fmax(value->half_width_bar_per_gpa, 0.0); /* friction grows with the load */
    ret_cell->half_width_bar_per_gpa_sigma = sigma.half_width_bar_per_gpa;
}

/* ---- whether it may be used ---------------------------------------------------------------------------------- */

#define FUTURE_S_MAX 300 /* computers' clocks agree to minutes */

static int check_text(const char *what, const char *passport, const char *plan, struct err *err)
{
    if (strcmp(passport, plan) == 0)
        return 0;
    return err_set(err, ERR_CONFIG,
                   "this passport is of another cell: its %s is '%s', that of the sequence '%s'; use the passport of "
                   "this cell, or none",
                   what, passport, plan);
}

static int check_limit(const char *what, const char *unit, double passport, double plan, struct err *err)
{
    if (plan <= passport)
        return 0;
    return err_set(err, ERR_LIMIT,
                   "the sequence gives the cell a %s of %g %s, its passport %g %s: a limit may be lowered, not raised; "
                   "lower it in cell { }",
                   what, plan, unit, passport, unit);
}

int cell_check_plan(const struct cell_passport *passport, const struct plan *plan, struct err *err)
{
    const struct plan_cell *own = &passport->cell, *other = &plan->cell;
    int code = 0;
    if (own->name[0] && other->name[0])
        code = check_text("name", own->name, other->name, err);
    if (code == 0 && own->culet_um != other->culet_um)
        code =
            err_set(err, ERR_CONFIG,
                    "this passport is of another cell: its culet_um is %g, that of the sequence %g; use the passport "
                    "of this cell, or none",
                    own->culet_um, other->culet_um);
    if (code == 0 && own->gasket[0] && other->gasket[0])
        code = check_text("gasket", own->gasket, other->gasket, err);
    if (code == 0)
        code = check_text("medium", own->medium, other->medium, err);
    if (code == 0)
        code = check_limit("pressure_gpa_max", "GPa", own->pressure_gpa_max, other->pressure_gpa_max, err);
    if (code == 0)
        code = check_limit("membrane_bar_max", "bar", own->membrane_bar_max, other->membrane_bar_max, err);
    return code;
}

double cell_lambda0_nm(const struct cell_passport *passport, double temperature_k_zero)
{
    return passport->lambda0_nm + ruby_shift_nm(temperature_k_zero, passport->temperature_k_zero);
}

int cell_check_ruler(const struct cell_passport *passport, const struct beamline *beamline, struct err *err)
{
    const struct beamline_ruby *ruby = &beamline->ruby;
    if (strcmp(passport->scale, ruby->scale) != 0)
        return err_set(
            err, ERR_CONFIG,
            "two rulers: the passport's pressures are on the ruby scale %s, those of this beamline on %s; use "
            "one scale for all nights of a cell",
            passport->scale, ruby->scale);
    double apart_nm = ruby->lambda0_nm - cell_lambda0_nm(passport, ruby->temperature_k_zero);
    if (fabs(apart_nm) <= CELL_LAMBDA0_NM_MAX)
        return 0;
    return err_set(
        err, ERR_CONFIG,
        "two rulers: lambda0 of this beamline is %.3f nm at %g K, that of the passport %.3f nm at %g K, %+.3f "
        "nm apart at one temperature (at most %.2f); measure lambda0 of this cell's ruby before loading and "
        "keep it for all its nights",
        ruby->lambda0_nm, ruby->temperature_k_zero, passport->lambda0_nm, passport->temperature_k_zero, apart_nm,
        CELL_LAMBDA0_NM_MAX);
}

int cell_check_clock(const struct cell_passport *passport, bool is_real, int64_t utc_s, struct err *err)
{
    if (!is_real)
        return 0;
    if (strcmp(passport->clock, "real") != 0)
        return err_set(err, ERR_CONFIG,
                       "this passport was measured on simulated instruments and is no property of any real cell; a run "
                       "on instruments begins without it");
    if (passport->measured_utc_s - utc_s > FUTURE_S_MAX)
        return err_set(err, ERR_CONFIG,
                       "this passport was measured at %s, which lies in the future; check the clock of this computer",
                       passport->measured);
    return 0;
}
