/*
 * Parser: a sequence, through the sandbox and the records (sequences/plan). Property: a plan that is accepted keeps its
 * own limits, has an estimate, and its recorded text builds the same plan again.
 */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "sequences/plan.h"
#include "tests/fuzz.h"

const char *const fuzz_words[] = {"cell",
                                  "preloaded",
                                  "load",
                                  "unload",
                                  "isobar",
                                  "deflate",
                                  "{",
                                  "}",
                                  "=",
                                  ",",
                                  "'",
                                  "to",
                                  "at",
                                  "rate",
                                  "duration",
                                  "scan",
                                  "frames",
                                  "frame_time",
                                  "count",
                                  "back_off",
                                  "drift_gpa_max",
                                  "drift_correction",
                                  "'between_scans'",
                                  "'1 GPa'",
                                  "'2 bar/min'",
                                  "'3 h'",
                                  "1e308",
                                  "-1",
                                  "0/0",
                                  "1/0",
                                  "for i = 1, 9 do ",
                                  " end ",
                                  "nil",
                                  "true",
                                  "pressure_gpa_max",
                                  "membrane_bar_max",
                                  "culet_um",
                                  "medium",
                                  "name",
                                  NULL};

void fuzz_plant_seeds(void)
{
    static const char CELL[] = "cell { culet_um = 600, medium = 'methanol-ethanol 4:1', pressure_gpa_max = 8, "
                               "membrane_bar_max = 130, name = 'DAC 7' }\n";
    static const char *const STEPS[] = {
        "preloaded { at = '0.1 GPa' }\nload { to = '3.3 GPa', rate = '2 bar/min', back_off = 'apply' }\n"
        "isobar { duration = '3 h', scan = { frames = 6000, frame_time = '0.1 s', count = 4 }, drift_gpa_max = 0.12 }\n"
        "unload { to = '1.5 GPa' }\ndeflate {}\nisobar { duration = '20 min' }\n",
        ("for i = 1, 5 do\n  load { to = i .. ' GPa' }\n"
         "  isobar { duration = '9 min', drift_correction = 'none' }\nend\n"),
        "load { too = '3 GPa' }\n"};
    char text[2000];
    for (size_t i = 0; i < sizeof STEPS / sizeof STEPS[0]; i++)
        fuzz_plant(text, (size_t)snprintf(text, sizeof text, "%s%s", CELL, STEPS[i]));
}

static void check_step(const struct plan *plan, int i)
{
    const struct plan_step *step = &plan->steps[i];
    double s_min, s_max;
    FUZZ_CHECK(step->kind >= 0 && step->kind < PLAN_KIND_COUNT, "step %d of kind %d", i, step->kind);
    FUZZ_CHECK(step->pressure_gpa_target >= 0 && step->pressure_gpa_target <= plan->cell.pressure_gpa_max,
               "step %d to %g GPa of %g", i, step->pressure_gpa_target, plan->cell.pressure_gpa_max);
    bool is_change = step->kind == PLAN_LOAD || step->kind == PLAN_UNLOAD;
    FUZZ_CHECK(!is_change || (step->rate_bar_per_min > 0 && step->rate_bar_per_min <= 20), "step %d at %g bar/min", i,
               step->rate_bar_per_min);
    FUZZ_CHECK(step->kind != PLAN_ISOBAR || (step->duration_s > 0 && isfinite(step->duration_s)), "step %d of %g s", i,
               step->duration_s);
    FUZZ_CHECK(step->n_scans == 0 || (step->n_scans > 0 && step->n_frames > 0 && step->frame_time_s > 0),
               "step %d: %d scans of %d frames", i, step->n_scans, step->n_frames);
    plan_estimate_step(plan, i, &s_min, &s_max);
    FUZZ_CHECK(s_min >= 0 && s_min <= s_max && isfinite(s_max), "step %d takes %g to %g s", i, s_min, s_max);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct plan plan, again;
    static char text[PLAN_TEXT_MAX];
    struct err err = {0};
    if (size >= sizeof text || memchr(data, 0, size))
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (plan_read(&plan, text, "night.lua", &err)) {
        FUZZ_CHECK(err.message[0], "refused without a sentence");
        return 0;
    }
    FUZZ_CHECK(plan.n_steps >= 1 && plan.n_steps <= PLAN_STEPS_MAX, "%d steps", plan.n_steps);
    FUZZ_CHECK(plan.cell.pressure_gpa_max > 0 && plan.cell.membrane_bar_max > 0 &&
                   isfinite(plan.cell.pressure_gpa_max) && isfinite(plan.cell.membrane_bar_max),
               "limits %g GPa, %g bar", plan.cell.pressure_gpa_max, plan.cell.membrane_bar_max);
    for (int i = 0; i < plan.n_steps; i++)
        check_step(&plan, i);
    FUZZ_CHECK(plan_read(&again, plan.source, "night.lua", &err) == 0 && again.hash == plan.hash, "%s", err.message);
    return 0;
}
