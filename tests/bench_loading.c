/*
 * bench_loading [CELLS]: the whole ladder, up and down, with 3 h isobars, on cells drawn at random that the controller
 * has never seen, on two laws of creep; one JSON line per protocol and law, with percentiles over all changes.
 *
 *   calibrate  the protocol of controller/loading.h
 *   apply      the same by the width of the dead zone as it is known, once it is known well
 *   corrected  calibrate, and every isobar declares a correction of its drift
 *   none       the same without the back-off
 *   paper      the plain recipe of tests/nights/recipe.h, ramped at 2 bar/min
 *
 * A cell whose membrane limit stands between it and a target counts as refused, from that change on. At a random
 * instant of every ladder the daemon is taken to have died: the cell then creeps for a day, and its limit must hold;
 * limit_exceeded_if_died_ever counts the ladders with any such instant (V11), the other invariants that a ladder broke
 * are in invariants_broken and by name in nights_broken.
 * SEED=N repeats a run.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/nights/cell.h"
#include "tests/nights/night.h"
#include "tests/nights/recipe.h"

#define N_CELLS 500
#define ISOBAR_S 10800.0
#define CHANGES_MAX 16384

enum protocol { PROTOCOL_CALIBRATE, PROTOCOL_APPLY, PROTOCOL_CORRECTED, PROTOCOL_NONE, PROTOCOL_PAPER, PROTOCOL_COUNT };

static const char *const protocol_names[PROTOCOL_COUNT] = {"calibrate", "apply", "corrected", "none", "paper"};
static const enum plan_back_off back_offs[PROTOCOL_COUNT] = {
    [PROTOCOL_APPLY] = PLAN_BACK_OFF_APPLY, [PROTOCOL_NONE] = PLAN_BACK_OFF_NONE};
static const char *const law_names[PLANT_FORM_COUNT] = {"linear", "log"};
static const double ladder_gpa[] = {0.1, 1.5, 3.3, 4.9, 6.3, 7.0, 6.3, 4.9, 3.3, 1.5};

#define N_RUNGS ((int)(sizeof ladder_gpa / sizeof ladder_gpa[0]))

struct tally {
    int n, n_refused, n_unfinished, n_limit, n_limit_if_died, n_violations, n_broken[INVARIANT_COUNT];
    double overshoot_gpa[CHANGES_MAX], ratio[CHANGES_MAX], departure_gpa[CHANGES_MAX], start_error_gpa[CHANGES_MAX],
        change_min[CHANGES_MAX];
};

static void add_change(struct tally *tally, const struct night_change *change)
{
    if (!change->is_done || tally->n == CHANGES_MAX)
        return;
    int i = tally->n++;
    tally->overshoot_gpa[i] = change->overshoot_gpa;
    tally->departure_gpa[i] = change->departure_gpa;
    tally->ratio[i] = change->departure_gpa / change->departure_gpa_oracle;
    tally->start_error_gpa[i] = fabs(change->start_error_gpa);
    tally->change_min[i] = change->change_s / 60.0;
}

static void count_violations(struct tally *tally, const struct oracle *oracle)
{
    bool is_any = false;
    for (int i = 0; i < INVARIANT_COUNT; i++) {
        tally->n_broken[i] += oracle->n_violations[i] > 0;
        is_any = is_any || (oracle->n_violations[i] > 0 && i != INVARIANT_V11);
    }
    tally->n_violations += is_any;
    tally->n_limit += oracle->n_violations[INVARIANT_LIMIT] > 0;
}

/* ---- the shipping protocol ----------------------------------------------------------------------------------- */

static void play_night(struct tally *tally, const struct cell *cell, enum protocol protocol, uint64_t seed)
{
    static struct night night;
    static struct core_settings settings;
    struct plant plant;
    struct random random = {.state = seed ^ 0x6b696c6c};
    night_default_settings(&settings);
    settings.loading.membrane_bar_max = cell->membrane_bar_max;
    for (int i = 1; i < N_RUNGS; i++)
        night_add_change(&settings, ladder_gpa[i], ladder_gpa[i - 1], ISOBAR_S, 0);
    for (int i = 0; i < settings.n_steps; i++) {
        settings.steps[i].back_off = (int32_t)back_offs[protocol];
        settings.steps[i].drift_correction =
            protocol == PROTOCOL_CORRECTED ? PLAN_CORRECT_BETWEEN_SCANS : PLAN_CORRECT_NONE;
    }
    plant_init_law(&plant, &cell->law, seed, ladder_gpa[0]);
    night_begin(&night, &settings, &plant, &cell->readings, seed);
    int64_t death_s = (int64_t)(130000.0 * random_uniform(&random));
    bool has_died = false;
    for (int64_t s = 0; night_step(&night); s++)
        if (s == death_s && (has_died = true))
            tally->n_limit_if_died += night_pressure_gpa_if_died(&night) >= settings.loading.pressure_gpa_max;
    if (!has_died)
        tally->n_limit_if_died += night_pressure_gpa_if_died(&night) >= settings.loading.pressure_gpa_max;
    for (int i = 0; i < night.n_changes; i++)
        add_change(tally, &night.changes[i]);
    tally->n_refused += night.is_refused;
    tally->n_unfinished += !night.is_refused && !night.is_finished;
    count_violations(tally, &night.oracle);
}

/* ---- the plain recipe ---------------------------------------------------------------------------------------- */

static void recipe_hold(struct recipe *recipe, struct night_change *change)
{
    struct plant oracle = recipe->plant;
    oracle.membrane_bar = oracle.load_bar + oracle.law.takeup_bar;
    const struct plant_input still = {
        .membrane_bar_setpoint = oracle.membrane_bar, .slew_bar_per_s = 1.0, .output_on = true};
    double start_gpa = plant_pressure_gpa(&recipe->plant);
    change->start_error_gpa = start_gpa - change->target_gpa;
    for (int s = 0; s < (int)ISOBAR_S; s++) {
        plant_step(&oracle, 0.5, &still);
        plant_step(&oracle, 0.5, &still);
        recipe_step(recipe);
        change->departure_gpa = fmax(change->departure_gpa, fabs(plant_pressure_gpa(&recipe->plant) - start_gpa));
        change->departure_gpa_oracle =
            fmax(change->departure_gpa_oracle, fabs(plant_pressure_gpa(&oracle) - start_gpa));
    }
    change->is_done = true;
}

static void play_recipe(struct tally *tally, const struct cell *cell, uint64_t seed)
{
    struct recipe recipe;
    struct plant plant;
    plant_init_law(&plant, &cell->law, seed, ladder_gpa[0]);
    recipe_begin(&recipe, &plant, &cell->readings, (struct random){.state = seed}, cell->membrane_bar_max);
    for (int i = 1; i < N_RUNGS && recipe.state != RECIPE_REFUSED; i++) {
        struct night_change change = {.direction = ladder_gpa[i] > ladder_gpa[i - 1] ? 1 : -1,
                                      .target_gpa = ladder_gpa[i],
                                      .overshoot_gpa = -INFINITY};
        recipe_start(&recipe, change.direction, change.target_gpa, true);
        do {
            recipe_step(&recipe);
            double beyond_gpa = change.direction * (plant_pressure_gpa(&recipe.plant) - change.target_gpa);
            change.overshoot_gpa = fmax(change.overshoot_gpa, beyond_gpa);
            change.change_s += 1.0;
        } while (recipe.state < RECIPE_HOLD);
        tally->n_refused += recipe.state == RECIPE_REFUSED;
        if (recipe.state == RECIPE_REFUSED)
            return;
        recipe_hold(&recipe, &change);
        add_change(tally, &change);
    }
}

/* ---- figures ------------------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(double *values, int n, double fraction)
{
    if (n == 0)
        return NAN;
    qsort(values, (size_t)n, sizeof *values, compare);
    return values[(int)(fraction * (n - 1) + 0.5)];
}

static void print_tally(struct tally *tally, enum protocol protocol, enum plant_form law, int n_cells)
{
    int n = tally->n;
    printf("{\"bench\":\"loading\",\"protocol\":\"%s\",\"law\":\"%s\",\"cells\":%d,\"changes\":%d,\"refused\":%d,"
           "\"unfinished\":%d,",
           protocol_names[protocol], law_names[law], n_cells, n, tally->n_refused, tally->n_unfinished);
    printf("\"overshoot_gpa_p50\":%.3f,\"overshoot_gpa_p95\":%.3f,\"overshoot_gpa_max\":%.3f,",
           percentile(tally->overshoot_gpa, n, 0.5), percentile(tally->overshoot_gpa, n, 0.95),
           percentile(tally->overshoot_gpa, n, 1.0));
    printf("\"departure_ratio_p50\":%.2f,\"departure_ratio_p95\":%.2f,", percentile(tally->ratio, n, 0.5),
           percentile(tally->ratio, n, 0.95));
    printf("\"departure_gpa_p50\":%.3f,\"departure_gpa_p95\":%.3f,\"departure_gpa_max\":%.3f,",
           percentile(tally->departure_gpa, n, 0.5), percentile(tally->departure_gpa, n, 0.95),
           percentile(tally->departure_gpa, n, 1.0));
    printf("\"start_error_gpa_p50\":%.3f,\"start_error_gpa_p95\":%.3f,", percentile(tally->start_error_gpa, n, 0.5),
           percentile(tally->start_error_gpa, n, 0.95));
    printf("\"change_min_p50\":%.0f,\"change_min_p95\":%.0f,", percentile(tally->change_min, n, 0.5),
           percentile(tally->change_min, n, 0.95));
    printf("\"limit_exceeded\":%d,\"limit_exceeded_if_died\":%d,\"limit_exceeded_if_died_ever\":%d,", tally->n_limit,
           tally->n_limit_if_died, tally->n_broken[INVARIANT_V11]);
    printf("\"invariants_broken\":%d,\"nights_broken\":{", tally->n_violations);
    for (int i = 0, k = 0; i < INVARIANT_COUNT; i++)
        if (tally->n_broken[i])
            printf("%s\"%s\":%d", k++ ? "," : "", oracle_invariant_name((enum invariant)i), tally->n_broken[i]);
    printf("}}\n");
    fflush(stdout);
}

static void run_law(enum plant_form law, uint64_t seed, int n_cells)
{
    static struct tally tally;
    for (int protocol = 0; protocol < PROTOCOL_COUNT; protocol++) {
        struct random random = {.state = seed};
        memset(&tally, 0, sizeof tally);
        for (int i = 0; i < n_cells; i++) {
            struct cell cell;
            cell_draw(&cell, law, &random);
            uint64_t cell_seed = random_bits(&random);
            if (protocol == PROTOCOL_PAPER)
                play_recipe(&tally, &cell, cell_seed);
            else
                play_night(&tally, &cell, (enum protocol)protocol, cell_seed);
        }
        print_tally(&tally, (enum protocol)protocol, law, n_cells);
    }
}

int main(int argc, char **argv)
{
    int n_cells = argc > 1 ? (int)strtol(argv[1], NULL, 10) : N_CELLS;
    const char *given = getenv("SEED");
    uint64_t seed = given && *given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    printf("seed %llu (SEED=%llu repeats it)\n", (unsigned long long)seed, (unsigned long long)seed);
    fflush(stdout);
    for (int law = 0; law < PLANT_FORM_COUNT; law++) /* one process per law */
        if (fork() == 0) {
            run_law((enum plant_form)law, seed, n_cells);
            _exit(0);
        }
    int status, n_failed = 0;
    while (wait(&status) > 0)
        n_failed += status != 0;
    return n_failed ? 1 : 0;
}
