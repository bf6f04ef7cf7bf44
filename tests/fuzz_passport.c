/*
 * Parser: a cell's passport (controller/passport). Property: what is accepted can be used: estimates, their growth and
 * the knowledge for a run are computed without harm, and the passport that is written of it reads the same again.
 */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "controller/passport.h"
#include "tests/fuzz.h"

const char *const fuzz_words[] = {"cell",
                                  "cell_passport",
                                  "cell_branch",
                                  "{",
                                  "}",
                                  "=",
                                  ",",
                                  "run",
                                  "measured",
                                  "clock",
                                  "'real'",
                                  "'simulated'",
                                  "scale",
                                  "lambda0_nm",
                                  "temperature_k_zero",
                                  "n_branches",
                                  "direction",
                                  "pressure_gpa",
                                  "membrane_bar_near_edge",
                                  "compliance_bar_s_per_gpa",
                                  "half_width_bar",
                                  "1e308",
                                  "1e-308",
                                  "-1",
                                  "0/0",
                                  "1/0",
                                  "2026-11-22T04:00:00Z",
                                  NULL};

static char path[] = "/dev/shm/isobar-fuzz-passport-XXXXXX";

static void remove_folder(void) { rmdir(path); }

/* A name in a folder of its own: the passport is never written over another file. */
static const char *fresh_path(void)
{
    static char file[sizeof path + 12];
    if (!file[0]) {
        if (!mkdtemp(path))
            abort();
        atexit(remove_folder);
        snprintf(file, sizeof file, "%s/cell.lua", path);
    }
    unlink(file);
    return file;
}

static struct cell_branch branch_of(int32_t step_index, int32_t direction, double pressure_gpa)
{
    double half_width_bar = 4.0 + 1.2 * pressure_gpa, middle_bar = 10.0 + 10.0 * pressure_gpa;
    return (struct cell_branch){step_index,
                                direction,
                                pressure_gpa,
                                middle_bar + direction * half_width_bar,
                                middle_bar - direction * half_width_bar,
                                middle_bar,
                                9000.0,
                                10000.0,
                                10.0 + 1.2 * direction,
                                half_width_bar};
}

void fuzz_plant_seeds(void)
{
    static struct cell_passport passport;
    static uint8_t text[PLAN_TEXT_MAX];
    struct err err = {0};
    for (int n = 0; n <= 3; n++) {
        passport = (struct cell_passport){.cell = {.name = "DAC 7",
                                                   .culet_um = 600,
                                                   .medium = "methanol-ethanol 4:1",
                                                   .hydrostatic_gpa_max = 10,
                                                   .pressure_gpa_max = 8,
                                                   .membrane_bar_max = 130},
                                          .run = "20261122T040000-1",
                                          .measured = "2026-11-22T04:00:00Z",
                                          .measured_utc_s = 1795320000,
                                          .clock = "simulated",
                                          .scale = "ruby2020",
                                          .lambda0_nm = 694.25,
                                          .temperature_k_zero = 296,
                                          .n_branches = n};
        for (int i = 0; i < n; i++)
            passport.branches[i] = branch_of(i, i < 2 ? 1 : -1, 1.5 + i);
        cell_estimate_branches(passport.branches, n, &passport.estimate, &passport.sigma);
        const char *file = fresh_path();
        FILE *stream;
        if (passport_write_file(&passport, file, &err) || !(stream = fopen(file, "rb"))) {
            fprintf(stderr, "%s\n", err.message);
            abort();
        }
        fuzz_plant(text, fread(text, 1, sizeof text, stream));
        fclose(stream);
        unlink(file);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cell_passport passport, again;
    struct loading_cell known;
    struct err err = {0};
    memset(&passport, 0, sizeof passport);
    memset(&again, 0, sizeof again);
    if (passport_read_file(&passport, fuzz_file(data, size), &err)) {
        FUZZ_CHECK(err.message[0], "refused without a sentence");
        return 0;
    }
    FUZZ_CHECK(passport.n_branches >= 0 && passport.n_branches <= CELL_BRANCHES_MAX, "%d branches",
               passport.n_branches);
    FUZZ_CHECK(passport.cell.pressure_gpa_max > 0 && passport.cell.membrane_bar_max > 0, "limits %g GPa, %g bar",
               passport.cell.pressure_gpa_max, passport.cell.membrane_bar_max);
    struct cell_age age = {.days = 3, .n_reloadings = 1};
    cell_know(&passport, &age, &known);
    if (known.is_known)
        FUZZ_CHECK(known.compliance_bar_s_per_gpa > 0 && isfinite(known.compliance_bar_s_per_gpa_sigma) &&
                       known.bar_per_gpa > 0 && known.half_width_bar >= 0,
                   "compliance %g, %g bar/GPa, half width %g", known.compliance_bar_s_per_gpa, known.bar_per_gpa,
                   known.half_width_bar);
    const char *file = fresh_path();
    FUZZ_CHECK(passport_write_file(&passport, file, &err) == 0, "%s", err.message);
    FUZZ_CHECK(passport_read_file(&again, file, &err) == 0, "%s", err.message);
    FUZZ_CHECK(again.n_branches == passport.n_branches && again.lambda0_nm == passport.lambda0_nm,
               "not the same again");
    unlink(file);
    return 0;
}
