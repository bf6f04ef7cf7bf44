/*
 * Goal: every scale gives the published pressures and every correction the published shifts, to the printed digit; the
 * ruler puts them together with honest uncertainties; a beamline file can name every scale of ruby.
 * Method: vectors computed elsewhere from the published equations; derivatives by differences; a second way of writing
 * the equation where there are no vectors (Forman, Liu, Wei).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "analysis/ruby_scale.h"
#include "sequences/beamline.h"

#define HALF_DIGIT 0.51e-6 /* the vectors have six decimals */
#define COUNT_OF(array) ((int)(sizeof(array) / sizeof(array)[0]))

/* clang-format off */
static const char *const R1_NAMES[] = {"piermarini1975", "mao1978", "mao1986", "dewaele2004", "chijioke2005",
                                       "dorogokupets2007", "dewaele2008", "jacobsen2008", "ruby2020"};
static const struct {
    double lambda_nm, lambda0_nm, gpa[9];
} PRESSURES[] = {
    {694.24, 694.24, {0.000000, 0.000000, 0.000000, 0.000000, 0.000000, 0.000000, 0.000000, 0.000000, 0.000000}},
    {694.25, 694.24, {0.027460, 0.027426, 0.027427, 0.027427, 0.027024, 0.027140, 0.027658, 0.027428, 0.026938}},
    {694.30, 694.24, {0.164760, 0.164582, 0.164601, 0.164614, 0.162202, 0.162903, 0.165999, 0.164620, 0.161694}},
    {694.50, 694.24, {0.713960, 0.713602, 0.713958, 0.714204, 0.703860, 0.707031, 0.720220, 0.714313, 0.701811}},
    {695.00, 694.24, {2.086960, 2.088920, 2.091971, 2.094075, 2.064649, 2.074875, 2.111800, 2.095017, 2.059748}},
    {695.50, 694.24, {3.459960, 3.468201, 3.476607, 3.482411, 3.434977, 3.453469, 3.512026, 3.485009, 3.428607}},
    {696.00, 694.24, {4.832960, 4.851455, 4.867894, 4.879257, 4.814904, 4.842812, 4.920947, 4.884346, 4.808387}},
    {697.00, 694.24, {7.578960, 7.629912, 7.670527, 7.698661, 7.603798, 7.653748, 7.765060, 7.711277, 7.600715}},
    {698.00, 694.24, {10.324960, 10.424360, 10.500089, 10.552658, 10.431815, 10.507682, 10.644525, 10.576263, 10.436730}},
    {700.00, 694.24, {15.816960, 16.061506, 16.240878, 16.365933, 16.207195, 16.344547, 16.511063, 16.422229, 16.239825}},
    {705.00, 694.24, {29.546960, 30.439063, 31.079652, 31.531117, 31.365410, 31.689183, 31.823651, 31.735656, 31.512098}},
    {710.00, 694.24, {43.276960, 45.230331, 46.636674, 47.638605, 47.604245, 48.108785, 48.100396, 48.095459, 47.876568}},
    {720.00, 694.24, {70.736960, 76.089585, 80.023798, 82.888060, 83.602018, 84.172884, 83.761975, 84.211012, 83.882097}},
    {694.24, 694.25, {-0.027460, -0.027424, -0.027424, -0.027424, -0.027020, -0.027135, -0.027654, -0.027423, -0.026933}},
    {694.25, 694.25, {0.000000, 0.000000, 0.000000, 0.000000, 0.000000, 0.000000, 0.000000, 0.000000, 0.000000}},
    {694.30, 694.25, {0.137300, 0.137146, 0.137159, 0.137168, 0.135157, 0.135740, 0.138322, 0.137172, 0.134732}},
    {694.50, 694.25, {0.686500, 0.686126, 0.686455, 0.686682, 0.676731, 0.679774, 0.692466, 0.686784, 0.674754}},
    {695.00, 694.25, {2.059500, 2.061345, 2.064316, 2.066365, 2.037310, 2.047383, 2.083854, 2.067282, 2.032453}},
    {695.50, 694.25, {3.432500, 3.440527, 3.448800, 3.454511, 3.407427, 3.425741, 3.483886, 3.457067, 3.401073}},
    {696.00, 694.25, {4.805500, 4.823681, 4.839933, 4.851165, 4.787141, 4.814849, 4.892612, 4.856196, 4.780615}},
    {697.00, 694.25, {7.551500, 7.601938, 7.642257, 7.670184, 7.575605, 7.625313, 7.736332, 7.682707, 7.572464}},
    {698.00, 694.25, {10.297500, 10.396185, 10.471506, 10.523791, 10.403186, 10.478775, 10.615398, 10.547267, 10.408000}},
    {700.00, 694.25, {15.789500, 16.032925, 16.211661, 16.336270, 16.177675, 16.314689, 16.481123, 16.392365, 16.210131}},
    {705.00, 694.25, {29.519500, 30.409446, 31.048796, 31.499379, 31.333551, 31.656930, 31.791592, 31.703516, 31.479974}},
    {710.00, 694.25, {43.249500, 45.199649, 46.604102, 47.604663, 47.569882, 48.074104, 48.066084, 48.060887, 47.841982}},
    {720.00, 694.25, {70.709500, 76.056680, 79.987540, 82.849295, 83.562101, 84.133255, 83.722727, 84.171071, 83.842493}},
};

static const char *const INVERSE_NAMES[] = {"mao1986", "dewaele2008", "ruby2020"};
static const struct {
    double gpa, lambda_nm[3];
} WAVELENGTHS[] = { /* lambda0 = 694.24 nm */
    {0.01, {694.243646, 694.243616, 694.243712}},
    {0.10, {694.276456, 694.276150, 694.277114}},
    {0.50, {694.422152, 694.420589, 694.425347}},
    {1.50, {694.785502, 694.780559, 694.794385}},
    {3.30, {695.436359, 695.424487, 695.453193}},
    {4.90, {696.011510, 695.992589, 696.033059}},
    {6.30, {696.512181, 696.486424, 696.536128}},
    {7.00, {696.761620, 696.732215, 696.786184}},
    {10.00, {697.823956, 697.777235, 697.847004}},
    {20.00, {701.289275, 701.166508, 701.264833}},
};

static const char *const SHIFT_NAMES[] = {"datchi2007", "datchi1997", "vos1991", "ragan1992"};
static const double SHIFT_K_ZERO[] = {296, 296, 300, 296};
static const struct {
    double temperature_k, shift_nm[4], splitting_inv_cm;
} SHIFTS[] = {
    {30.00, {-0.887000, -1.931160, -0.882674, -0.970133}, 28.634},
    {77.00, {-0.885213, -1.589940, -0.898477, -0.962957}, 28.351},
    {150.00, {-0.752831, -1.059960, -0.758621, -0.789384}, 28.466},
    {200.00, {-0.554525, -0.696960, -0.565530, -0.574996}, 28.812},
    {250.00, {-0.288868, -0.333960, -0.308324, -0.298261}, 29.275},
    {273.15, {-0.147916, -0.165891, -0.171137, -0.152703}, 29.505},
    {290.00, {-0.039592, -0.043560, -0.065130, -0.040894}, 29.671},
    {293.15, {-0.018869, -0.020691, -0.044785, -0.019492}, 29.702},
    {295.00, {-0.006633, -0.007260, -0.032762, -0.006853}, 29.720},
    {296.00, {0.000000, 0.000000, -0.026241, 0.000000}, 29.730},
    {298.00, {0.014908, 0.014520, -0.013151, 0.013751}, 29.749},
    {298.15, {0.016025, 0.015609, -0.012167, 0.014784}, 29.750},
    {300.00, {0.029792, 0.029040, 0.000000, 0.027559}, 29.768},
    {303.15, {0.053188, 0.051909, 0.020837, 0.049424}, 29.798},
    {310.00, {0.103874, 0.101640, 0.066655, 0.097444}, 29.863},
    {350.00, {0.395442, 0.392040, 0.346444, 0.389174}, 30.204},
    {400.00, {0.753138, 0.755040, 0.718010, 0.773254}, 30.496},
    {500.00, {1.470945, 1.481040, 1.484520, 1.555217}, 30.300},
    {600.00, {2.235775, 2.207040, 2.195550, 2.265676}, 28.484},
};

static const struct {
    double lambda_nm, temperature_k, lambda_nm_corrected, gpa[3];
} CORRECTED[] = { /* the scales of INVERSE_NAMES, lambda0 = 694.24 nm at 296 K, datchi2007 */
    {694.24, 290, 694.279592, {0.108603, 0.109522, 0.106678}},
    {694.24, 295, 694.246633, {0.018193, 0.018346, 0.017868}},
    {694.24, 296, 694.240000, {0.000000, 0.000000, 0.000000}},
    {694.24, 298, 694.225092, {-0.040883, -0.041226, -0.040151}},
    {694.24, 300, 694.210208, {-0.081696, -0.082379, -0.080229}},
    {694.24, 310, 694.136126, {-0.284740, -0.287091, -0.279559}},
    {695.00, 290, 695.039592, {2.201369, 2.222359, 2.167740}},
    {695.00, 295, 695.006633, {2.110297, 2.130319, 2.077836}},
    {695.00, 296, 695.000000, {2.091971, 2.111800, 2.059748}},
    {695.00, 298, 694.985092, {2.050788, 2.070184, 2.019101}},
    {695.00, 300, 694.970208, {2.009677, 2.028641, 1.978529}},
    {695.00, 310, 694.896126, {1.805147, 1.821992, 1.776740}},
    {697.00, 290, 697.039592, {7.782041, 7.878388, 7.712167}},
    {697.00, 295, 697.006633, {7.689208, 7.784044, 7.619383}},
    {697.00, 296, 697.000000, {7.670527, 7.765060, 7.600715}},
    {697.00, 298, 696.985092, {7.628548, 7.722402, 7.558766}},
    {697.00, 300, 696.970208, {7.586642, 7.679818, 7.516893}},
    {697.00, 310, 696.896126, {7.378157, 7.467992, 7.308631}},
    {700.00, 290, 700.039592, {16.355630, 16.628660, 16.356466}},
    {700.00, 295, 700.006633, {16.260101, 16.530761, 16.259362}},
    {700.00, 296, 700.000000, {16.240878, 16.511063, 16.239825}},
    {700.00, 298, 699.985092, {16.197680, 16.466797, 16.195922}},
    {700.00, 300, 699.970208, {16.154557, 16.422609, 16.152099}},
    {700.00, 310, 699.896126, {15.940017, 16.202802, 15.934127}},
};

static const char *const SAMARIUM_NAMES[] = {"samarium_datchi1997", "samarium_datchi2007", "samarium_rashchenko2015",
                                             "samarium_rashchenko2015_ratio"};
static const double SAMARIUM_NM_ZERO[] = {685.41, 685.41, 685.51, 685.51};
static const struct {
    double lambda_nm, gpa[4];
} SAMARIUM[] = {
    {685.41, {0.000000, 0.000000, -0.414169, -0.420674}},
    {685.51, {0.402640, 0.398514, -0.000000, 0.000000}},
    {686.00, {2.359620, 2.340192, 2.016120, 2.042145}},
    {687.00, {6.274135, 6.247352, 6.062930, 6.116404}},
    {688.00, {10.087981, 10.083036, 10.020610, 10.075629}},
    {690.00, {17.438991, 17.553202, 17.676883, 17.691753}},
    {695.00, {34.447581, 35.189409, 35.397798, 35.347074}},
};

static const struct {
    double edge_inv_cm, gpa;
} EDGES[] = { /* akahama2006, edge at 1334 cm-1 at ambient pressure */
    {1334, 0.0000},
    {1340, 2.4755},
    {1350, 6.6689},
    {1400, 28.9040},
    {1500, 79.7139},
    {1600, 138.9768},
};
/* clang-format on */

static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%.9g, expected %.9g within %.2g", value, expected, tolerance);
}

static double pressure(const char *name, double lambda_nm, double lambda0_nm)
{
    const struct ruby_scale *scale = ruby_scale_by_name(name);
    assert_non_null(scale);
    return ruby_pressure_gpa(scale, lambda_nm, lambda0_nm);
}

static void scales_give_the_vectors(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT_OF(PRESSURES); i++)
        for (int k = 0; k < COUNT_OF(R1_NAMES); k++)
            assert_near(pressure(R1_NAMES[k], PRESSURES[i].lambda_nm, PRESSURES[i].lambda0_nm), PRESSURES[i].gpa[k],
                        HALF_DIGIT);
    for (int i = 0; i < COUNT_OF(WAVELENGTHS); i++)
        for (int k = 0; k < COUNT_OF(INVERSE_NAMES); k++) {
            /* half a digit of wavelength, times the slope */
            double tolerance = HALF_DIGIT * ruby_slope_gpa_per_nm(ruby_scale_by_name(INVERSE_NAMES[k]),
                                                                  WAVELENGTHS[i].lambda_nm[k], 694.24);
            assert_near(pressure(INVERSE_NAMES[k], WAVELENGTHS[i].lambda_nm[k], 694.24), WAVELENGTHS[i].gpa, tolerance);
        }
    for (int i = 0; i < COUNT_OF(SAMARIUM); i++)
        for (int k = 0; k < COUNT_OF(SAMARIUM_NAMES); k++)
            assert_near(pressure(SAMARIUM_NAMES[k], SAMARIUM[i].lambda_nm, SAMARIUM_NM_ZERO[k]), SAMARIUM[i].gpa[k],
                        HALF_DIGIT);
    for (int i = 0; i < COUNT_OF(EDGES); i++)
        assert_near(pressure("akahama2006", EDGES[i].edge_inv_cm, 1334), EDGES[i].gpa, 0.51e-4);
    assert_null(ruby_scale_by_name("mao1987"));
    assert_null(ruby_scale_by_name(""));
}

/* Those without vectors: the paper's own words, or the same form with other numbers. */
static void scales_without_vectors(void **state)
{
    (void)state;
    /* 0.77 cm-1 per kbar */
    double nu0 = 1e7 / 694.24;
    for (double gpa = 0; gpa < 3; gpa += 0.25)
        assert_near(pressure("forman1972", 1e7 / (nu0 - 7.7 * gpa), 694.24), gpa, 1e-9);
    for (double nm = 694; nm < 710; nm += 1.3) {
        assert_near(pressure("liu2013", nm, 694.24), 1904 / 9.827 * (pow(nm / 694.24, 9.827) - 1), 1e-9);
        assert_near(pressure("wei2011", nm, 694.2), 1915 / 9.28 * (pow(nm / 694.2, 9.28) - 1), 1e-9);
        struct ruby_ruler wei = {ruby_scale_by_name("wei2011"), NULL, 694.2, 298};
        double lambda0_nm = 694.2 + 0.0063 * 100, a = 1915 + 62.2, b = 9.28 - 2.4 - 8.2e-3;
        assert_near(ruby_ruler_pressure_gpa(&wei, nm, 398), a / b * (pow(nm / lambda0_nm, b) - 1), 1e-9);
    }
    assert_near(pressure("eremets2023", 1332.5 * 1.1, 1332.5), 517 * 0.1 + 764 * 0.01, 1e-9);
}

static void slope_is_the_derivative(void **state)
{
    (void)state;
    const struct ruby_scale *scale;
    for (int i = 0; (scale = ruby_scale_at(i)); i++)
        for (double nm = 693; nm < 720; nm += 0.7) {
            double h = 1e-3,
                   difference = ruby_pressure_gpa(scale, nm + h, 694.24) - ruby_pressure_gpa(scale, nm - h, 694.24);
            assert_near(ruby_slope_gpa_per_nm(scale, nm, 694.24), difference / (2 * h), 1e-6);
        }
    static const double slopes[] = {2.7460, 2.7426, 2.7426, 2.7426, 2.7022, 2.7138, 2.7656, 2.7426, 2.6936};
    for (int k = 0; k < COUNT_OF(slopes); k++)
        assert_near(ruby_slope_gpa_per_nm(ruby_scale_by_name(R1_NAMES[k]), 694.24, 694.24), slopes[k], 0.5e-4);
}

static void temperature_gives_the_vectors(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT_OF(SHIFTS); i++) {
        double t = SHIFTS[i].temperature_k;
        for (int k = 0; k < COUNT_OF(SHIFT_NAMES); k++)
            assert_near(ruby_correction_shift_nm(ruby_correction_by_name(SHIFT_NAMES[k]), t, SHIFT_K_ZERO[k]),
                        SHIFTS[i].shift_nm[k], HALF_DIGIT);
        assert_near(ruby_shift_nm(t, 296), SHIFTS[i].shift_nm[0], HALF_DIGIT);
        double r1_nm = 694.26274 + ruby_correction_shift_nm(ruby_correction_by_name("ragan1992"), t, 296);
        assert_near(1e7 / (r1_nm - ruby_splitting_nm(t)) - 1e7 / r1_nm, SHIFTS[i].splitting_inv_cm, 0.6e-3);
    }
    assert_near(ruby_shift_nm(300, 298) + ruby_shift_nm(298, 296), ruby_shift_nm(300, 296), 1e-12);
    for (int i = 0; i < COUNT_OF(CORRECTED); i++)
        for (int k = 0; k < COUNT_OF(INVERSE_NAMES); k++) {
            struct ruby_ruler ruler = {ruby_scale_by_name(INVERSE_NAMES[k]), ruby_correction_by_name("datchi2007"),
                                       694.24, 296};
            assert_near(ruby_ruler_pressure_gpa(&ruler, CORRECTED[i].lambda_nm, CORRECTED[i].temperature_k),
                        CORRECTED[i].gpa[k], HALF_DIGIT);
            assert_near(CORRECTED[i].lambda_nm - ruby_shift_nm(CORRECTED[i].temperature_k, 296),
                        CORRECTED[i].lambda_nm_corrected, HALF_DIGIT);
        }
    assert_near(ruby_correction_shift_nm(ruby_correction_by_name("samarium_datchi2007"), 396, 296),
                -8.7e-3 + 4.62e-2 - 2.38e-3, 1e-12);
    assert_null(ruby_correction_by_name("nobody"));
}

/* One kelvin without a thermometer is 0.02 GPa, five times the sigma of a good fit; both are said. */
static void uncertainties_are_said_apart(void **state)
{
    (void)state;
    struct ruby_ruler ruler = {ruby_scale_by_name("ruby2020"), ruby_correction_by_name("datchi2007"), 694.25, 296};
    struct ruby_pressure p = ruby_ruler_derive(&ruler, 695.0, 0.0015, 296, 1.0);
    assert_near(p.gpa, 2.032453, HALF_DIGIT);
    assert_near(p.gpa_sigma_fit, 0.0015 * ruby_slope_gpa_per_nm(ruler.scale, 695.0, 694.25), 1e-7);
    assert_near(p.gpa_sigma_temperature, 0.007045 * ruby_slope_gpa_per_nm(ruler.scale, 695.0, 694.25), 1e-5);
    assert_near(p.gpa_sigma, hypot(p.gpa_sigma_fit, p.gpa_sigma_temperature), 1e-12);
    ruler.correction = NULL;
    assert_true(ruby_ruler_derive(&ruler, 695.0, 0.0015, 350, 1.0).gpa_sigma_temperature == 0);
}

static void the_table_is_whole(void **state)
{
    (void)state;
    const struct ruby_scale *scale;
    int n = 0;
    assert_string_equal(ruby_scale_at(0)->name, "ruby2020"); /* the default */
    for (; (scale = ruby_scale_at(n)); n++) {
        assert_ptr_equal(ruby_scale_by_name(scale->name), scale);
        assert_true(strlen(scale->citation) > 10 && strlen(scale->status) > 10 && ruby_form_text(scale->form)[0]);
        assert_true(scale->pressure_gpa_max > 0);
    }
    assert_int_equal(n, 18);
    const struct ruby_correction *correction;
    for (n = 0; (correction = ruby_correction_at(n)); n++) {
        assert_ptr_equal(ruby_correction_by_name(correction->name), correction);
        assert_true(correction->temperature_k_min < correction->temperature_k_max && correction->citation[0]);
    }
    assert_int_equal(n, 6);
}

static void a_beamline_can_name_every_scale_of_ruby(void **state)
{
    (void)state;
    static struct beamline beamline;
    const struct ruby_scale *scale;
    for (int i = 0; (scale = ruby_scale_at(i)); i++) {
        char text[2000];
        struct err err = {0};
        snprintf(text, sizeof text,
                 "beamline { name = 'x', ca_address = '127.0.0.1:5064' }\n"
                 "membrane { driver = 'bronkhorst', address = 'tcp:127.0.0.1:502', membrane_bar_max = 150, "
                 "slew_bar_per_min_max = 8 }\n"
                 "spectrometer { driver = 'ocean-optics', address = 'tcp:127.0.0.1:4001', exposure = '0.5 s' }\n"
                 "ruby { scale = '%s', lambda0_nm = 694.25 }\n"
                 "detector { driver = 'adeiger', prefix = 'X:', file_path = '/data', photon_energy = '20.95 keV', "
                 "distance = '5 m', beam_center_x_px = 1, beam_center_y_px = 1 }\n"
                 "ring { current_pv = 'SR', current_ma_min = 20 }\n",
                 scale->name);
        int code = beamline_read(&beamline, text, "beamline.lua", &err);
        if ((code == 0) != (scale->gauge == RUBY_GAUGE_R1))
            fail_msg("%s: %s", scale->name, err.message);
        if (code == 0)
            assert_string_equal(beamline.ruby.scale, scale->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(scales_give_the_vectors),
                                       cmocka_unit_test(scales_without_vectors),
                                       cmocka_unit_test(slope_is_the_derivative),
                                       cmocka_unit_test(temperature_gives_the_vectors),
                                       cmocka_unit_test(uncertainties_are_said_apart),
                                       cmocka_unit_test(the_table_is_whole),
                                       cmocka_unit_test(a_beamline_can_name_every_scale_of_ruby)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
