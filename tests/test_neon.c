/*
 * Goal: an axis that is off comes back to the wavelengths of neon, and a spectrum that does not tell is refused in a
 * sentence. Method: lamps drawn here from the published wavelengths, with pixels, noise, and an axis that is shifted,
 * stretched, bent; some lines missing, some that are not neon's, some saturated. A hundred lamps by chance.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "analysis/neon.h"
#include "sim/random.h"

#define N_MAX 4096

static double axis_nm[N_MAX], counts[N_MAX];
static struct random chance = {.state = 3};
static struct err err;

struct lamp {
    double from_nm, to_nm, step_nm;
    double offset_nm, slope, bend; /* of the axis: what it says is too low by that */
    double argon_nm;               /* a foreign line; 0: none */
    double clip;                   /* counts; 0: none */
};

static const struct {
    double nm, height;
} LAMP_LINES[] = {{667.82766, 9000}, {671.7043, 2500},   {692.94672, 20000}, {702.405, 3000},    {703.24128, 30000},
                  {717.3938, 3500},  {724.51665, 15000}, {640.2248, 30000},  {650.65277, 20000}, {659.89528, 8000}};

static int draw(const struct lamp *lamp)
{
    int n = (int)((lamp->to_nm - lamp->from_nm) / lamp->step_nm);
    for (int i = 0; i < n; i++) {
        double nm = lamp->from_nm + i * lamp->step_nm, d = nm - 694.25;
        double photons = 50;
        for (size_t k = 0; k < sizeof LAMP_LINES / sizeof LAMP_LINES[0]; k++) {
            double u = (nm - LAMP_LINES[k].nm) / 0.06;
            photons += u * u < 50 ? LAMP_LINES[k].height * exp(-0.5 * u * u) : 0;
        }
        double v = (nm - lamp->argon_nm) / 0.06;
        photons += lamp->argon_nm > 0 && v * v < 50 ? 8000 * exp(-0.5 * v * v) : 0;
        counts[i] = rint(300 + photons + sqrt(photons + 100) * random_normal(&chance));
        if (lamp->clip > 0)
            counts[i] = fmin(counts[i], lamp->clip);
        axis_nm[i] = nm - lamp->offset_nm - lamp->slope * d - lamp->bend * d * d;
    }
    return n;
}

static void expect_corrected(const struct lamp *lamp, int n_lines)
{
    struct neon_correction correction;
    int n = draw(lamp);
    if (neon_calibrate(axis_nm, counts, n, &correction, &err))
        fail_msg("%s", err.message);
    assert_int_equal(correction.n_lines, n_lines);
    double at_nm = lamp->from_nm + (lamp->to_nm - lamp->from_nm) / 2, d = at_nm - 694.25;
    double said_nm = at_nm - lamp->offset_nm - lamp->slope * d - lamp->bend * d * d;
    double corrected_nm = said_nm + correction.offset_nm + correction.slope * (said_nm - NEON_AROUND_NM);
    if (!(fabs(corrected_nm - at_nm) < 0.004))
        fail_msg("%.4f nm comes back as %.4f", at_nm, corrected_nm);
    assert_true(correction.residual_nm_rms < 0.004);
}

static void three_lines_around_the_ruby_are_enough(void **state)
{
    (void)state;
    expect_corrected(&(struct lamp){.from_nm = 690, .to_nm = 705, .step_nm = 0.04, .offset_nm = 0.15}, 3);
    expect_corrected(&(struct lamp){.from_nm = 690, .to_nm = 705, .step_nm = 0.04, .offset_nm = -1.2, .slope = 1e-3},
                     3);
}

static void any_axis_within_reach_comes_back(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++)
        expect_corrected(&(struct lamp){.from_nm = 662,
                                        .to_nm = 730,
                                        .step_nm = 0.03 + 0.03 * random_uniform(&chance),
                                        .offset_nm = 3.6 * (random_uniform(&chance) - 0.5),
                                        .slope = 2e-3 * (random_uniform(&chance) - 0.5),
                                        .argon_nm = i % 2 ? 696.543 : 706.722},
                         7);
}

static void expect_refused(const struct lamp *lamp, const char *words)
{
    struct neon_correction correction = {.n_lines = -1};
    int n = draw(lamp);
    assert_int_equal(neon_calibrate(axis_nm, counts, n, &correction, &err), ERR_FIT);
    if (!strstr(err.message, words))
        fail_msg("expected '%s' in '%s'", words, err.message);
    assert_int_equal(correction.n_lines, -1);
}

static void what_does_not_tell_is_refused(void **state)
{
    (void)state;
    expect_refused(&(struct lamp){.from_nm = 690, .to_nm = 700, .step_nm = 0.04}, "1 of 1 peaks are lines of neon");
    expect_refused(&(struct lamp){.from_nm = 675, .to_nm = 692, .step_nm = 0.04}, "0 of 0 peaks");
    expect_refused(&(struct lamp){.from_nm = 690, .to_nm = 705, .step_nm = 0.04, .clip = 2000}, "not saturated?");
    expect_refused(&(struct lamp){.from_nm = 635, .to_nm = 665, .step_nm = 0.04}, "too far from the ruby");
    /* bent by more than a straight correction takes away, each line still within reach of the others */
    expect_refused(&(struct lamp){.from_nm = 660, .to_nm = 730, .step_nm = 0.04, .bend = 5e-5}, "is still up to 0.0");
    counts[3] = NAN;
    struct neon_correction correction;
    assert_int_equal(neon_calibrate(axis_nm, counts, 1000, &correction, &err), ERR_DATA);
    assert_int_equal(neon_calibrate(axis_nm, counts, 10, &correction, &err), ERR_DATA);
}

static void the_list_ascends(void **state)
{
    (void)state;
    int n = 0;
    for (; neon_wavelength_nm(n) > 0; n++)
        assert_true(n == 0 || neon_wavelength_nm(n) > neon_wavelength_nm(n - 1) + 0.3);
    assert_true(n >= 20 && n <= NEON_LINES_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_lines_around_the_ruby_are_enough),
        cmocka_unit_test(any_axis_within_reach_comes_back),
        cmocka_unit_test(what_does_not_tell_is_refused),
        cmocka_unit_test(the_list_ascends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
