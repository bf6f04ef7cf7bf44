/*
 * Goal: the ruler gives the published pressures, the fit gives the expected lines of real spectra and honest sigmas,
 * and everything that carries no answer is refused with its reason.
 * Method: vectors computed elsewhere from the published equations; the real spectra of shared/data/spectra (which
 * stands beside the checkout, see its README); seeded synthetic spectra from sim/spectrum, which inverts the scale by
 * itself; one spoiled spectrum per refusal; small files written here.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "analysis/ruby.h"
#include "analysis/spectrum_file.h"
#include "sim/spectrum.h"

#define N_MAX 4096
#define SATURATION 65535.0

static double wavelength_nm[N_MAX], counts[N_MAX];

/* ---- the ruler ----------------------------------------------------------------------------------------------- */

static const struct {
    double lambda_nm, lambda0_nm, mao1986_gpa, ruby2020_gpa;
} pressures[] = {
    {694.24, 694.24, 0.000000, 0.000000},   {694.25, 694.24, 0.027427, 0.026938},
    {694.30, 694.24, 0.164601, 0.161694},   {694.50, 694.24, 0.713958, 0.701811},
    {695.00, 694.24, 2.091971, 2.059748},   {695.50, 694.24, 3.476607, 3.428607},
    {696.00, 694.24, 4.867894, 4.808387},   {697.00, 694.24, 7.670527, 7.600715},
    {698.00, 694.24, 10.500089, 10.436730}, {700.00, 694.24, 16.240878, 16.239825},
    {705.00, 694.24, 31.079652, 31.512098}, {710.00, 694.24, 46.636674, 47.876568},
    {720.00, 694.24, 80.023798, 83.882097}, {694.24, 694.25, -0.027424, -0.026933},
    {694.25, 694.25, 0.000000, 0.000000},   {694.30, 694.25, 0.137159, 0.134732},
    {694.50, 694.25, 0.686455, 0.674754},   {695.00, 694.25, 2.064316, 2.032453},
    {695.50, 694.25, 3.448800, 3.401073},   {696.00, 694.25, 4.839933, 4.780615},
    {697.00, 694.25, 7.642257, 7.572464},   {698.00, 694.25, 10.471506, 10.408000},
    {700.00, 694.25, 16.211661, 16.210131}, {705.00, 694.25, 31.048796, 31.479974},
    {710.00, 694.25, 46.604102, 47.841982}, {720.00, 694.25, 79.987540, 83.842493},
};

static const struct {
    double pressure_gpa, mao1986_nm, ruby2020_nm;
} wavelengths[] = {
    {0.01, 694.243646, 694.243712},  {0.10, 694.276456, 694.277114}, {0.50, 694.422152, 694.425347},
    {1.50, 694.785502, 694.794385},  {3.30, 695.436359, 695.453193}, {4.90, 696.011510, 696.033059},
    {6.30, 696.512181, 696.536128},  {7.00, 696.761620, 696.786184}, {10.00, 697.823956, 697.847004},
    {20.00, 701.289275, 701.264833},
};

static const struct {
    double temperature_k, shift_nm;
} shifts[] = {
    {30.00, -0.887000},  {77.00, -0.885213},  {150.00, -0.752831}, {200.00, -0.554525}, {250.00, -0.288868},
    {273.15, -0.147916}, {290.00, -0.039592}, {293.15, -0.018869}, {295.00, -0.006633}, {296.00, 0.000000},
    {298.00, 0.014908},  {298.15, 0.016025},  {300.00, 0.029792},  {303.15, 0.053188},  {310.00, 0.103874},
    {350.00, 0.395442},  {400.00, 0.753138},  {500.00, 1.470945},  {600.00, 2.235775},
};

static const struct {
    double lambda_nm, temperature_k, lambda_nm_corrected, mao1986_gpa, ruby2020_gpa;
} corrected[] = {
    {694.24, 290, 694.279592, 0.108603, 0.106678},   {694.24, 295, 694.246633, 0.018193, 0.017868},
    {694.24, 296, 694.240000, 0.000000, 0.000000},   {694.24, 298, 694.225092, -0.040883, -0.040151},
    {694.24, 300, 694.210208, -0.081696, -0.080229}, {694.24, 310, 694.136126, -0.284740, -0.279559},
    {695.00, 290, 695.039592, 2.201369, 2.167740},   {695.00, 295, 695.006633, 2.110297, 2.077836},
    {695.00, 296, 695.000000, 2.091971, 2.059748},   {695.00, 298, 694.985092, 2.050788, 2.019101},
    {695.00, 300, 694.970208, 2.009677, 1.978529},   {695.00, 310, 694.896126, 1.805147, 1.776740},
    {697.00, 290, 697.039592, 7.782041, 7.712167},   {697.00, 295, 697.006633, 7.689208, 7.619383},
    {697.00, 296, 697.000000, 7.670527, 7.600715},   {697.00, 298, 696.985092, 7.628548, 7.558766},
    {697.00, 300, 696.970208, 7.586642, 7.516893},   {697.00, 310, 696.896126, 7.378157, 7.308631},
    {700.00, 290, 700.039592, 16.355630, 16.356466}, {700.00, 295, 700.006633, 16.260101, 16.259362},
    {700.00, 296, 700.000000, 16.240878, 16.239825}, {700.00, 298, 699.985092, 16.197680, 16.195922},
    {700.00, 300, 699.970208, 16.154557, 16.152099}, {700.00, 310, 699.896126, 15.940017, 15.934127},
};

static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%.9g, expected %.9g within %.2g", value, expected, tolerance);
}

#define HALF_DIGIT 0.51e-6 /* the vectors have six decimals */

static void scales_give_the_vectors(void **state)
{
    (void)state;
    const struct ruby_scale *mao = ruby_scale_by_name("mao1986"), *shen = ruby_scale_by_name("ruby2020");
    for (size_t i = 0; i < sizeof pressures / sizeof pressures[0]; i++) {
        double lambda_nm = pressures[i].lambda_nm, lambda0_nm = pressures[i].lambda0_nm;
        assert_near(ruby_pressure_gpa(mao, lambda_nm, lambda0_nm), pressures[i].mao1986_gpa, HALF_DIGIT);
        assert_near(ruby_pressure_gpa(shen, lambda_nm, lambda0_nm), pressures[i].ruby2020_gpa, HALF_DIGIT);
    }
    for (size_t i = 0; i < sizeof wavelengths / sizeof wavelengths[0]; i++) {
        double tolerance = 3 * HALF_DIGIT; /* half a digit of wavelength, times 2.8 GPa per nm */
        assert_near(ruby_pressure_gpa(mao, wavelengths[i].mao1986_nm, 694.24), wavelengths[i].pressure_gpa, tolerance);
        assert_near(ruby_pressure_gpa(shen, wavelengths[i].ruby2020_nm, 694.24), wavelengths[i].pressure_gpa,
                    tolerance);
    }
    assert_null(ruby_scale_by_name("mao1978"));
    assert_null(ruby_scale_by_name(""));
}

static void temperature_gives_the_vectors(void **state)
{
    (void)state;
    const struct ruby_scale *mao = ruby_scale_by_name("mao1986"), *shen = ruby_scale_by_name("ruby2020");
    for (size_t i = 0; i < sizeof shifts / sizeof shifts[0]; i++)
        assert_near(ruby_shift_nm(shifts[i].temperature_k, 296), shifts[i].shift_nm, HALF_DIGIT);
    assert_near(ruby_shift_nm(300, 298) + ruby_shift_nm(298, 296), ruby_shift_nm(300, 296), 1e-12);
    for (size_t i = 0; i < sizeof corrected / sizeof corrected[0]; i++) {
        double lambda_nm = corrected[i].lambda_nm - ruby_shift_nm(corrected[i].temperature_k, 296);
        assert_near(lambda_nm, corrected[i].lambda_nm_corrected, HALF_DIGIT);
        assert_near(ruby_pressure_gpa(mao, lambda_nm, 694.24), corrected[i].mao1986_gpa, HALF_DIGIT);
        assert_near(ruby_pressure_gpa(shen, lambda_nm, 694.24), corrected[i].ruby2020_gpa, HALF_DIGIT);
    }
}

static void slope_is_the_derivative(void **state)
{
    (void)state;
    const char *const names[] = {"mao1986", "ruby2020"};
    for (int k = 0; k < 2; k++) {
        const struct ruby_scale *scale = ruby_scale_by_name(names[k]);
        for (double nm = 693; nm < 720; nm += 0.7) {
            double h = 1e-3;
            double difference = ruby_pressure_gpa(scale, nm + h, 694.24) - ruby_pressure_gpa(scale, nm - h, 694.24);
            assert_near(ruby_slope_gpa_per_nm(scale, nm, 694.24), difference / (2 * h), 1e-6);
        }
    }
    assert_near(ruby_slope_gpa_per_nm(ruby_scale_by_name("ruby2020"), 694.24, 694.24), 2.6936, 0.5e-4);
    assert_near(ruby_slope_gpa_per_nm(ruby_scale_by_name("mao1986"), 694.24, 694.24), 2.7426, 0.5e-4);
}

/* ---- real spectra -------------------------------------------------------------------------------------------- */

static int real_read(const char *name)
{
    char path[200];
    struct err err = {0};
    int n = 0;
    snprintf(path, sizeof path, "../shared/data/spectra/%s", name);
    if (spectrum_file_read(path, wavelength_nm, counts, N_MAX, &n, &err))
        fail_msg("%s", err.message);
    return n;
}

static struct ruby_fit fit_good(int n, const struct ruby_fit *seed)
{
    struct ruby_fit fit = {0};
    struct err err = {0};
    if (ruby_fit_spectrum(wavelength_nm, counts, n, SATURATION, seed, &fit, &err))
        fail_msg("%s", err.message);
    return fit;
}

static void real_resolved(void **state)
{
    (void)state;
    int n = real_read("hr4000_resolved.txt");
    assert_int_equal(n, 3648);
    struct ruby_fit fit = fit_good(n, NULL);
    assert_near(fit.r1_nm, 694.822, 0.003);
    assert_near(fit.r2_nm, 693.378, 0.003);
    assert_near(fit.r1_nm_fwhm, 0.62, 0.005);
    assert_near(ruby_pressure_gpa(ruby_scale_by_name("ruby2020"), fit.r1_nm, 694.25), 1.55, 0.01);
    assert_int_equal(fit.warnings, 0);
    struct ruby_fit again = fit_good(n, &fit);
    assert_near(again.r1_nm, fit.r1_nm, 2e-5); /* the start does not matter */
}

static void real_broad(void **state)
{
    (void)state;
    struct ruby_fit fit = fit_good(real_read("hr4c5088_broad_with_header.txt"), NULL);
    assert_near(fit.r1_nm, 695.362, 0.006);
    assert_near(fit.r1_nm_fwhm, 1.08, 0.01);
    assert_near(fit.splitting_nm, 1.395, 0.005);
    assert_true(fit.warnings & RUBY_WARNING_WIDTH);
}

static void assert_refused(int n, double saturation, const char *word)
{
    struct ruby_fit fit = {.r1_nm = -7};
    struct err err = {0};
    int code = ruby_fit_spectrum(wavelength_nm, counts, n, saturation, NULL, &fit, &err);
    if (code != ERR_FIT || !strstr(err.message, word))
        fail_msg("expected a refusal with \"%s\", got %s: %s (R1 %.3f)", word, err_name(code), err.message, fit.r1_nm);
    assert_true(fit.r1_nm == -7);
}

static void real_unresolved(void **state)
{
    (void)state;
    assert_refused(real_read("craic_unresolved.txt"), SATURATION, "unresolved");
}

/* ---- synthetic spectra --------------------------------------------------------------------------------------- */

static int synthesise(struct random *random, double pressure_gpa, double exposure_s, double nm_min, double nm_max,
                      double step_nm)
{
    static double photons[N_MAX];
    static uint16_t frame[N_MAX];
    int n = (int)((nm_max - nm_min) / step_nm) + 1;
    assert_in_range(n, 1, N_MAX);
    for (int i = 0; i < n; i++)
        wavelength_nm[i] = nm_min + i * step_nm;
    struct spectrum_scene scene = {
        .pressure_gpa = pressure_gpa, .temperature_k = 296, .exposure_s = exposure_s, .is_lit = true};
    spectrum_expect(&scene, wavelength_nm, n, photons);
    spectrum_draw(random, photons, n, frame);
    for (int i = 0; i < n; i++)
        counts[i] = frame[i];
    return n;
}

/* The simulator's own inverse of the scale is the inverse of the ruler. */
static void simulator_and_ruler_agree(void **state)
{
    (void)state;
    const struct ruby_scale *shen = ruby_scale_by_name("ruby2020");
    for (double gpa = 0; gpa < 20; gpa += 0.37)
        assert_near(ruby_pressure_gpa(shen, spectrum_r1_nm(gpa, 296), 694.25), gpa, 1e-9);
    /* its linear shift and Datchi's polynomial: 0.01 GPa within 3 K */
    assert_near(spectrum_r1_nm(3, 299) - spectrum_r1_nm(3, 296), ruby_shift_nm(299, 296), 0.0037);
    assert_near(spectrum_r1_nm(3, 293) - spectrum_r1_nm(3, 296), ruby_shift_nm(293, 296), 0.0037);
}

/* Sigma is what the scatter is. With 200 spectra a pull of 1 comes out within 0.85 to 1.15 (three standard errors). */
static void pulls(void **state)
{
    (void)state;
    struct random random = {.state = 20240611};
    const double exposures_s[] = {0.5, 0.1, 2.0};
    for (int k = 0; k < 3; k++) {
        double sum = 0, sum2 = 0, sigma = 0;
        for (int i = 0; i < 200; i++) {
            double pressure_gpa = 8 * random_uniform(&random);
            struct ruby_fit fit = fit_good(synthesise(&random, pressure_gpa, exposures_s[k], 690, 705, 0.0302), NULL);
            double pull = (fit.r1_nm - spectrum_r1_nm(pressure_gpa, 296)) / fit.r1_nm_sigma;
            sum += pull;
            sum2 += pull * pull;
            sigma += fit.r1_nm_sigma / 200 * 2.75;
            assert_int_equal(fit.warnings, 0);
            assert_near(fit.chi2_reduced, 1, 0.5);
        }
        double mean = sum / 200, deviation = sqrt(sum2 / 200 - mean * mean);
        printf("exposure %g s: pull %.3f +- %.3f, sigma %.4f GPa\n", exposures_s[k], mean, deviation, sigma);
        assert_near(deviation, 1, 0.15);
        assert_near(mean, 0, 0.25);
    }
}

static void is_fast(void **state)
{
    (void)state;
    struct random random = {.state = 5};
    struct timespec begin, end;
    double took_ms = 0;
    for (int i = 0; i < 50; i++) {
        int n = synthesise(&random, 5, 0.5, 690, 705, 0.0302);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
        fit_good(n, NULL);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
        took_ms += ((double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) * 1e-6) / 50;
    }
    printf("%.2f ms per fit\n", took_ms);
#if !defined(__SANITIZE_ADDRESS__)
    assert_true(took_ms < 3);
#endif
}

static void spikes_and_seeds_do_not_lead_astray(void **state)
{
    (void)state;
    struct random random = {.state = 77};
    struct ruby_fit seed = {.r1_nm = 694.25, .r1_nm_fwhm = 0.62, .r2_nm_fwhm = 0.55};
    for (int i = 0; i < 40; i++) {
        double pressure_gpa = 0.2 * i;
        int n = synthesise(&random, pressure_gpa, 0.5, 690, 705, 0.0302);
        counts[(int)(random_uniform(&random) * n)] += 9000; /* a cosmic ray */
        struct ruby_fit fit = fit_good(n, i % 2 ? &seed : NULL);
        assert_near(fit.r1_nm, spectrum_r1_nm(pressure_gpa, 296), 6 * fit.r1_nm_sigma);
        assert_true(fit.r1_nm_sigma < 0.0013);
    }
}

static void refusals(void **state)
{
    (void)state;
    struct random random = {.state = 3};
    int n = synthesise(&random, 3, 0, 690, 705, 0.03);
    assert_refused(n, SATURATION, "no ruby line");
    n = synthesise(&random, 3, 0.5, 690, 705, 0.03);
    counts[100] += 30000; /* only a spike */
    for (int i = 0; i < n; i++)
        counts[i] = i == 100 ? counts[i] : 300 + 10 * random_normal(&random);
    assert_refused(n, SATURATION, "no ruby line");
    n = synthesise(&random, 3, 5, 690, 705, 0.03);
    assert_refused(n, SATURATION, "saturated");
    for (int i = 0; i < n; i++)
        counts[i] = fmin(counts[i], 16383); /* a 14 bit sensor behind a 16 bit wire */
    assert_refused(n, SATURATION, "saturated");
    n = synthesise(&random, 3, 0.5, 690, 695.6, 0.03);
    assert_refused(n, SATURATION, "edge");
    n = synthesise(&random, 3, 0.5, 693.6, 705, 0.03);
    assert_refused(n, SATURATION, "edge");
    n = synthesise(&random, 3, 0.5, 694.8, 705, 0.03);
    assert_refused(n, SATURATION, "edge");
    n = synthesise(&random, 3, 0.5, 660, 740, 0.3);
    assert_refused(n, SATURATION, "unresolved");
    assert_refused(synthesise(&random, 3, 0.5, 660, 740, 0.25), SATURATION, "points across R1");
    n = synthesise(&random, 3, 0.5, 660, 740, 0.6);
    assert_refused(n, SATURATION, "unresolved");
    n = synthesise(&random, 3, 0.003, 690, 705, 0.03);
    assert_refused(n, SATURATION, "");
    for (int i = 0; i < n; i++)
        counts[i] = rint(500 + 9000 * exp(-pow((wavelength_nm[i] - 696) / 0.3, 2)) + 30 * random_normal(&random));
    assert_refused(n, SATURATION, "one line");
    for (int i = 0; i < n; i++)
        counts[i] = rint(500 + 9000 * exp(-pow((wavelength_nm[i] - 697) / 2.5, 2)) + 30 * random_normal(&random));
    assert_refused(n, SATURATION, "");
    struct ruby_fit fit;
    struct err err;
    counts[7] = NAN;
    assert_int_equal(ruby_fit_spectrum(wavelength_nm, counts, n, SATURATION, NULL, &fit, &err), ERR_DATA);
    counts[7] = 1;
    wavelength_nm[9] = wavelength_nm[8];
    assert_int_equal(ruby_fit_spectrum(wavelength_nm, counts, n, SATURATION, NULL, &fit, &err), ERR_DATA);
    assert_int_equal(ruby_fit_spectrum(wavelength_nm, counts, 5, SATURATION, NULL, &fit, &err), ERR_DATA);
}

/* Any counts at all: an answer or a refusal, never a crash, and an answer only where there are two lines. */
static void noise_is_refused(void **state)
{
    (void)state;
    struct random random = {.state = 99};
    struct ruby_fit fit;
    struct err err;
    for (int round = 0; round < 500; round++) {
        int n = 30 + (int)(470 * random_uniform(&random));
        double scale = exp(20 * random_uniform(&random) - 8);
        for (int i = 0; i < n; i++) {
            wavelength_nm[i] = 690 + 15.0 * i / n;
            counts[i] = scale * random_normal(&random) * (round % 3 ? 1 : random_normal(&random));
        }
        assert_true(ruby_fit_spectrum(wavelength_nm, counts, n, SATURATION, NULL, &fit, &err) < 0);
    }
    memset(counts, 0, sizeof counts);
    assert_refused(400, SATURATION, "no ruby line");
}

/* ---- files --------------------------------------------------------------------------------------------------- */

#define TEXT_SIZE 8192

static char file_path[] = "/tmp/isobar_spectrum_XXXXXX";

static int file_read(const void *text, size_t size, int *ret_n, struct err *err)
{
    FILE *file = fopen(file_path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, size, file), size);
    fclose(file);
    return spectrum_file_read(file_path, wavelength_nm, counts, 100, ret_n, err);
}

/* Header, then 20 lines from `format`, which takes nm and counts as text. */
static size_t compose(char *ret_text, const char *header, const char *format, bool is_comma, bool is_descending)
{
    size_t size = (size_t)snprintf(ret_text, TEXT_SIZE, "%s", header);
    for (int i = 0; i < 20; i++) {
        char nm[32], value[32];
        snprintf(nm, sizeof nm, "%.2f", 694 + 0.03 * (is_descending ? 19 - i : i));
        snprintf(value, sizeof value, "%.1f", 1000.5 + (is_descending ? 19 - i : i));
        if (is_comma)
            *strchr(nm, '.') = *strchr(value, '.') = ',';
        size += (size_t)snprintf(ret_text + size, TEXT_SIZE - size, format, nm, value);
    }
    return size;
}

static void reads_every_layout(void **state)
{
    (void)state;
    const struct {
        const char *header, *format;
        bool is_comma, is_descending;
    } layouts[] = {{"", "%s\t%s\n", false, false},
                   {"", "%s %s\r\n", false, false},
                   {"\xef\xbb\xbf", "  %s   %s  \n", false, false},
                   {"nm,counts\n", "%s,%s\n", false, false},
                   {"nm, counts\n", "%s, %s\n", false, true},
                   {"Datum: 1. Mai\n\n", "%s\t%s\n", true, false},
                   {"nm;counts\n", "%s;%s\n", true, false},
                   {"nm; counts\n", "%s ; %s\n", true, true},
                   {"", "%s,%s\n", true, false},
                   {"# a remark\n>>>>>Begin<<<<<\n", "%s\t%s\n\n", false, false}};
    char text[TEXT_SIZE];
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        struct err err = {0};
        int n = 0;
        size_t size =
            compose(text, layouts[i].header, layouts[i].format, layouts[i].is_comma, layouts[i].is_descending);
        if (file_read(text, size, &n, &err))
            fail_msg("layout %zu: %s", i, err.message);
        assert_int_equal(n, 20);
        for (int k = 0; k < 20; k++) {
            assert_near(wavelength_nm[k], 694 + 0.03 * k, 1e-9);
            assert_near(counts[k], 1000.5 + k, 1e-9);
        }
        assert_int_equal(file_read(text, size - 1, &n, &err), 0); /* no line end at the end */
        assert_int_equal(n, 20);
    }
}

static void refuses_files(void **state)
{
    (void)state;
    char text[TEXT_SIZE];
    size_t size = compose(text, "", "%s\t%s\n", false, false);
    const struct {
        const char *tail, *word;
        int code;
    } tails[] = {{"695.00\tabc\n", ":21:", ERR_DATA}, {"695.00\n", ":21:", ERR_DATA},
                 {"\n695.0 1 2\n", ":22:", ERR_DATA}, {"695.0 nan\n", ":21:", ERR_DATA},
                 {"695.0 1e999\n", ":21:", ERR_DATA}, {"694.01 5\n", "not in order", ERR_DATA},
                 {"695.0 0x10\n", ":21:", ERR_DATA}};
    struct err err = {0};
    int n = -7;
    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        snprintf(text + size, sizeof text - size, "%s", tails[i].tail);
        int code = file_read(text, strlen(text), &n, &err);
        if (code != tails[i].code || !strstr(err.message, tails[i].word))
            fail_msg("\"%s\": %s: %s", tails[i].tail, err_name(code), err.message);
    }
    assert_int_equal(file_read("", 0, &n, &err), ERR_DATA);
    assert_int_equal(file_read("694.1 5\n694.2 5\n", 16, &n, &err), ERR_DATA);
    assert_non_null(strstr(err.message, "only 2 points"));
    assert_int_equal(file_read("\x89HDF\r\n\x1a\n\0\0", 10, &n, &err), ERR_DATA);
    assert_non_null(strstr(err.message, ":2: binary"));
    memset(text, 'x', sizeof text);
    assert_int_equal(file_read(text, sizeof text, &n, &err), ERR_DATA);
    for (int i = 0; i < 120; i++)
        snprintf(text + 9 * i, 10, "%6.2f 1\n", 600 + i * 0.5);
    assert_int_equal(file_read(text, 9 * 120, &n, &err), ERR_FULL);
    assert_int_equal(n, -7);
    assert_int_equal(spectrum_file_read("/nonexistent", wavelength_nm, counts, 10, &n, &err), ERR_IO);
    assert_int_equal(spectrum_file_read("/", wavelength_nm, counts, 10, &n, &err), ERR_IO);
}

int main(void)
{
    int fd = mkstemp(file_path);
    assert_true(fd >= 0);
    close(fd);
    const struct CMUnitTest tests[] = {cmocka_unit_test(scales_give_the_vectors),
                                       cmocka_unit_test(temperature_gives_the_vectors),
                                       cmocka_unit_test(slope_is_the_derivative),
                                       cmocka_unit_test(real_resolved),
                                       cmocka_unit_test(real_broad),
                                       cmocka_unit_test(real_unresolved),
                                       cmocka_unit_test(simulator_and_ruler_agree),
                                       cmocka_unit_test(pulls),
                                       cmocka_unit_test(is_fast),
                                       cmocka_unit_test(spikes_and_seeds_do_not_lead_astray),
                                       cmocka_unit_test(refusals),
                                       cmocka_unit_test(noise_is_refused),
                                       cmocka_unit_test(reads_every_layout),
                                       cmocka_unit_test(refuses_files)};
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(file_path);
    return failures;
}
