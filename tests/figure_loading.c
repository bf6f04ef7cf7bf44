/*
 * figure_loading FOLDER [SEED]: plays nights in virtual time and writes what tests/figures/ draws (`make figures`), one
 * .dat file per kind of curve; the first line of each names its columns and their units. Nothing is judged here: the
 * tests do that.
 *
 *   ladder  the ladder of Cornet et al. (Fig. S7), 0.1 .. 7 GPa and down again, isobars of 3 h, on one cell
 *   load    1.5 to 3.3 GPa in four ways, each from the same state of the same cell, so that it slips at the same times
 *   drift   all isobars of the ladder on many cells, with and without the back-off
 *
 * The cells are those of the rehearsal (plant_init): SEED, 1 when not given, and the following.
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "tests/nights/night.h"
#include "tests/nights/recipe.h"

#define ISOBAR_S 10800.0
#define N_SEEDS 12
#define LADDER_EVERY_S 30
#define LOAD_EVERY_S 5
#define DRIFT_EVERY_S 60
#define STATE_ISOBAR ((int)LOADING_STATE_COUNT) /* beside the states of the loading protocol */
#define STATE_NONE (-1)

static const struct night_readings readings = {
    .pressure_gpa_sigma = 0.005, .temperature_gpa_per_k = 0.02, .membrane_bar_sigma = 0.005};
static const double ladder_gpa[] = {0.1, 1.5, 3.3, 4.9, 6.3, 7.0, 6.3, 4.9, 3.3, 1.5};

#define N_RUNGS ((int)(sizeof ladder_gpa / sizeof ladder_gpa[0]))

static const char *folder;

static FILE *open_data(const char *name, const char *columns)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s.dat", folder, name);
    FILE *file = fopen(path, "w");
    if (!file) {
        perror(path);
        exit(1);
    }
    fprintf(file, "# %s\n", columns);
    return file;
}

static void close_data(FILE *file)
{
    bool is_written = !ferror(file);
    if (fclose(file) || !is_written) {
        fprintf(stderr, "figure_loading: a data file could not be written; is the disk full?\n");
        exit(1);
    }
}

static void set_back_off(struct core_settings *settings, enum plan_back_off back_off)
{
    for (int i = 0; i < settings->n_steps; i++)
        settings->steps[i].back_off = (int32_t)back_off;
}

static void begin(struct night *night, uint64_t seed, enum plan_back_off back_off)
{
    static struct core_settings settings;
    struct plant plant;
    night_default_settings(&settings);
    for (int i = 1; i < N_RUNGS; i++)
        night_add_change(&settings, ladder_gpa[i], ladder_gpa[i - 1], ISOBAR_S, 0);
    set_back_off(&settings, back_off);
    plant_init(&plant, seed, ladder_gpa[0]);
    night_begin(night, &settings, &plant, &readings, seed);
}

static int state_of(const struct night *night)
{
    if (night->core.phase == CORE_ISOBAR)
        return STATE_ISOBAR;
    return night->core.phase == CORE_LOADING ? (int)night->core.loading.state : STATE_NONE;
}

static double target_gpa(const struct night *night)
{
    return night->n_changes > 0 ? night->changes[night->n_changes - 1].target_gpa : ladder_gpa[0];
}

/* Writes when the protocol was in which state, a line per stay. */
struct stays {
    FILE *file;
    int state;
    double from_h;
};

static void note_state(struct stays *stays, double t_h, int state, double target)
{
    if (state == stays->state)
        return;
    if (stays->state != STATE_NONE && t_h > stays->from_h)
        fprintf(stays->file, "%.4f %.4f %d %.2f %s\n", stays->from_h, t_h, stays->state, target,
                stays->state == STATE_ISOBAR ? "isobar" : loading_state_name((enum loading_state)stays->state));
    stays->state = state;
    stays->from_h = t_h;
}

#define STAYS_COLUMNS "from_h to_h state target_gpa state_name"

/* ---- ladder -------------------------------------------------------------------------------------------------- */

static void write_ladder(uint64_t seed)
{
    static struct night night;
    struct stays stays = {.file = open_data("ladder_states", STAYS_COLUMNS), .state = STATE_NONE};
    FILE *file = open_data("ladder", "t_h membrane_bar pressure_gpa_true pressure_gpa_ruby target_gpa state");
    begin(&night, seed, PLAN_BACK_OFF_CALIBRATE);
    double t_h = 0.0, target = ladder_gpa[0];
    for (int64_t s = 0; night_step(&night); s++) {
        t_h = (double)s / 3600.0;
        note_state(&stays, t_h, state_of(&night), target);
        target = target_gpa(&night);
        if (s % LADDER_EVERY_S == 0 && night.n_changes > 0)
            fprintf(file, "%.4f %.3f %.4f %.4f %.2f %d\n", t_h, night.plant.membrane_bar,
                    plant_pressure_gpa(&night.plant), night.core.interlock.pressure_gpa, target, state_of(&night));
    }
    note_state(&stays, t_h, STATE_NONE, target);
    close_data(file);
    close_data(stays.file);
    printf("ladder: seed %llu, %d isobars, %.1f h, %s\n", (unsigned long long)seed, night.n_isobars, t_h,
           night.is_finished ? "finished" : "not finished");
}

/* ---- one load in four ways ----------------------------------------------------------------------------------- */

#define LOAD_COLUMNS "t_h membrane_bar pressure_gpa_true pressure_gpa_ruby is_isobar"
#define LOAD_S 10800 /* shorter than any change and its isobar */

static void write_load(FILE *file, FILE *starts, const char *name, struct night *night)
{
    bool is_started = false;
    struct stays stays = {.state = STATE_NONE};
    char states[64];
    snprintf(states, sizeof states, "%s_states", name);
    stays.file = open_data(states, STAYS_COLUMNS);
    for (int s = 0; s < LOAD_S && night_step(night); s++) {
        double t_h = s / 3600.0, truth_gpa = plant_pressure_gpa(&night->plant);
        bool is_isobar = night->core.phase == CORE_ISOBAR;
        note_state(&stays, t_h, state_of(night), target_gpa(night));
        if (is_isobar && !is_started)
            fprintf(starts, "%.4f %.4f %s\n", t_h, truth_gpa, name);
        is_started = is_started || is_isobar;
        if (s % LOAD_EVERY_S == 0)
            fprintf(file, "%.4f %.3f %.4f %.4f %d\n", t_h, night->plant.membrane_bar, truth_gpa,
                    night->core.interlock.pressure_gpa, is_isobar);
    }
    note_state(&stays, LOAD_S / 3600.0, STATE_NONE, target_gpa(night));
    close_data(stays.file);
}

/* The plain recipe (tests/nights/recipe.h), with and without its back-off. */
static void write_recipe(FILE *file, FILE *starts, const char *name, const struct night *from, double target,
                         bool has_back_off)
{
    struct recipe recipe;
    bool was_hold = false;
    recipe_begin(&recipe, &from->plant, &readings, from->random, from->core.settings.loading.membrane_bar_max);
    recipe_start(&recipe, 1, target, has_back_off);
    for (int s = 0; s < LOAD_S && recipe.state != RECIPE_REFUSED; s++) {
        recipe_step(&recipe);
        double truth_gpa = plant_pressure_gpa(&recipe.plant);
        if (s % RECIPE_READING_S == 0)
            fprintf(file, "%.4f %.3f %.4f %.4f %d\n", s / 3600.0, recipe.plant.membrane_bar, truth_gpa,
                    recipe.reading_gpa[2], was_hold);
        if (recipe.state == RECIPE_HOLD && !was_hold)
            fprintf(starts, "%.4f %.4f %s\n", s / 3600.0, truth_gpa, name);
        was_hold = recipe.state == RECIPE_HOLD;
    }
}

static void write_loads(uint64_t seed)
{
    static struct night night, same;
    static const char *const names[] = {"load_protocol", "load_no_back_off", "load_recipe", "load_ramp"};
    FILE *starts = open_data("load_starts", "t_h pressure_gpa_true name");
    begin(&night, seed, PLAN_BACK_OFF_CALIBRATE);
    while (night.n_isobars < 1 && night_step(&night))
        continue;
    assert(night.n_isobars == 1); /* at 1.5 GPa; the load to 3.3 GPa comes next */
    for (int i = 0; i < 4; i++) {
        FILE *file = open_data(names[i], LOAD_COLUMNS);
        same = night;
        if (i == 1)
            same.core.loading.settings.back_off = PLAN_BACK_OFF_NONE; /* the load has begun */
        if (i < 2)
            write_load(file, starts, names[i], &same);
        else
            write_recipe(file, starts, names[i], &same, ladder_gpa[2], i == 2);
        close_data(file);
    }
    close_data(starts);
    printf("load: seed %llu, 1.5 to 3.3 GPa in four ways\n", (unsigned long long)seed);
}

/* ---- drift --------------------------------------------------------------------------------------------------- */

static void write_drift_night(FILE *curves, FILE *departures, struct night *night, uint64_t seed)
{
    double start_gpa = 0.0;
    int rung = 0;
    int64_t start_s = 0;
    bool was_isobar = false;
    for (int64_t s = 0; night_step(night); s++) {
        bool is_isobar = night->core.phase == CORE_ISOBAR;
        if (is_isobar && !was_isobar) {
            rung = night->n_changes;
            start_s = s;
            start_gpa = plant_pressure_gpa(&night->plant);
        }
        if (is_isobar && (s - start_s) % DRIFT_EVERY_S == 0)
            fprintf(curves, "%.4f %+.4f %.2f %+d %llu %d\n", (double)(s - start_s) / 3600.0,
                    plant_pressure_gpa(&night->plant) - start_gpa, target_gpa(night),
                    night->changes[night->n_changes - 1].direction, (unsigned long long)seed, rung);
        if (was_isobar && !is_isobar)
            fprintf(curves, "\n");
        was_isobar = is_isobar;
    }
    for (int i = 0; i < night->n_changes; i++)
        if (night->changes[i].is_done)
            fprintf(departures, "%d %.2f %+d %llu %.4f %.4f\n", i + 1, night->changes[i].target_gpa,
                    night->changes[i].direction, (unsigned long long)seed, night->changes[i].departure_gpa,
                    night->changes[i].departure_gpa_oracle);
}

static void write_drifts(uint64_t seed, enum plan_back_off back_off, const char *name)
{
    static struct night night;
    char departures_name[64];
    snprintf(departures_name, sizeof departures_name, "%s_departure", name);
    FILE *curves = open_data(name, "t_h departure_gpa target_gpa direction seed rung");
    FILE *departures =
        open_data(departures_name, "rung target_gpa direction seed departure_gpa_max departure_gpa_max_oracle");
    int n_isobars = 0;
    for (uint64_t k = 0; k < N_SEEDS; k++) {
        begin(&night, seed + k, back_off);
        write_drift_night(curves, departures, &night, seed + k);
        n_isobars += night.n_isobars;
    }
    close_data(departures);
    close_data(curves);
    printf("%s: seeds %llu to %llu, %d of %d isobars held\n", name, (unsigned long long)seed,
           (unsigned long long)seed + N_SEEDS - 1, n_isobars, N_SEEDS * (N_RUNGS - 1));
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: figure_loading FOLDER [SEED]\n");
        return 2;
    }
    folder = argv[1];
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    write_ladder(seed);
    write_loads(seed);
    write_drifts(seed, PLAN_BACK_OFF_CALIBRATE, "drift_protocol");
    write_drifts(seed, PLAN_BACK_OFF_NONE, "drift_no_back_off");
    return 0;
}
