/*
 * Goal: q and azimuth are those of the geometry; bands, sectors and parts divide the valid pixels, and nothing else; a
 * .poni file and a file of polygons say what their writers meant. Method: known answers from triangles; properties that
 * hold for every division; each sentence of refusal. The agreement with pyFAI pixel by pixel is tests/wire_qmap.py's,
 * for which this program, called with PONI ROWS COLUMNS, writes q and phi of every pixel to standard output as doubles.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/polygon.h"
#include "analysis/poni.h"
#include "analysis/qmap.h"

#define ROWS 120
#define COLUMNS 150
#define PIXEL_M 75e-6
#define DEG (M_PI / 180.0)

static void close_to(double seen, double expected, double within)
{
    if (!(fabs(seen - expected) <= within))
        fail_msg("%.15g, expected %.15g", seen, expected);
}

static double q_of_angle(double two_theta, double wavelength_angstrom)
{
    return 4.0 * M_PI / wavelength_angstrom * sin(two_theta / 2.0);
}

/* ---- geometry ------------------------------------------------------------------------------------------------ */

static void flat_detector(void **state)
{
    (void)state;
    const double center[2] = {40.0, 30.0}, no_arm[2] = {0.0, 0.0};
    const struct qmap_geometry geometry = qmap_geometry_of_arm(2.0, center, PIXEL_M, 12398.419843320026, no_arm);
    double q, phi;
    close_to(geometry.wavelength_angstrom, 1.0, 1e-12);
    qmap_locate(&geometry, ROWS, COLUMNS, 30, 40, &q, &phi);
    close_to(q, 0.0, 1e-12);
    static const struct {
        size_t row, column;
        double phi;
    } cases[] = {{30, 90, 0.0}, {80, 40, 90.0}, {30, 0, 180.0}, {0, 40, -90.0}, {70, 80, 45.0}, {0, 10, -135.0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qmap_locate(&geometry, ROWS, COLUMNS, cases[i].row, cases[i].column, &q, &phi);
        double away = hypot((double)cases[i].row - 30.0, (double)cases[i].column - 40.0) * PIXEL_M;
        close_to(q, q_of_angle(atan2(away, 2.0), 1.0), 1e-14);
        close_to(fabs(phi), fabs(cases[i].phi), 1e-9);
        assert_true(phi * cases[i].phi >= 0.0);
    }
}

static void detector_on_an_arm(void **state)
{
    (void)state;
    const double center[2] = {75.0, 60.0};
    double q, phi, direct[2], distance_m;
    static const double arms[][3] = {{11.0, 0.0, 0.0}, {-11.0, 0.0, 180.0}, {0.0, 7.0, 90.0}, {0.0, -7.0, -90.0}};
    for (size_t i = 0; i < sizeof arms / sizeof arms[0]; i++) {
        const struct qmap_geometry geometry = qmap_geometry_of_arm(5.0, center, PIXEL_M, 21000.0, arms[i]);
        qmap_locate(&geometry, ROWS, COLUMNS, 60, 75, &q, &phi);
        close_to(q, q_of_angle(fabs(arms[i][0] + arms[i][1]) * DEG, geometry.wavelength_angstrom), 1e-12);
        close_to(fabs(phi), fabs(arms[i][2]), 1e-9);
        assert_true(phi * arms[i][2] >= 0.0);
        qmap_find_beam(&geometry, ROWS, COLUMNS, direct, &distance_m);
        close_to(direct[0], 75.0 - 5.0 * tan(arms[i][0] * DEG) / PIXEL_M, 1e-6);
        close_to(direct[1], 60.0 - 5.0 * tan(arms[i][1] * DEG) / PIXEL_M, 1e-6);
        close_to(distance_m, 5.0 / cos((arms[i][0] + arms[i][1]) * DEG), 1e-9);
    }
    const double tilted[2] = {8.0, 15.0}; /* the angle between the beam and an arm turned twice */
    const struct qmap_geometry geometry = qmap_geometry_of_arm(1.0, center, PIXEL_M, 21000.0, tilted);
    qmap_locate(&geometry, ROWS, COLUMNS, 60, 75, &q, &phi);
    close_to(q, q_of_angle(acos(cos(8.0 * DEG) * cos(15.0 * DEG)), geometry.wavelength_angstrom), 1e-12);
}

static void orientation_and_roll(void **state)
{
    (void)state;
    struct qmap_geometry geometry = {.distance_m = 0.5,
                                     .poni_m = {0.001, 0.003},
                                     .rotation_rad = {0.2, -0.1, 0.3},
                                     .wavelength_angstrom = 0.6,
                                     .pixel_size_m = {PIXEL_M, 2.0 * PIXEL_M},
                                     .orientation = 3};
    double q[2], phi[2];
    for (int orientation = 1; orientation <= 4; orientation++) {
        struct qmap_geometry turned = geometry;
        turned.orientation = orientation;
        size_t row = orientation <= 2 ? ROWS - 1 - 17 : 17, column = orientation % 3 == 1 ? COLUMNS - 1 - 31 : 31;
        qmap_locate(&geometry, ROWS, COLUMNS, 17, 31, &q[0], &phi[0]);
        qmap_locate(&turned, ROWS, COLUMNS, row, column, &q[1], &phi[1]);
        close_to(q[1], q[0], 1e-12);
        close_to(phi[1], phi[0], 1e-9);
    }
    geometry.rotation_rad[2] += 0.4; /* about the beam: q stays, the azimuth turns with it */
    qmap_locate(&geometry, ROWS, COLUMNS, 17, 31, &q[1], &phi[1]);
    close_to(q[1], q[0], 1e-12);
    close_to(fabs(remainder(phi[1] - phi[0], 360.0)), 0.4 / DEG, 1e-9);
}

/* Behind the sample and close to the beam: no digit is lost where cos(2 theta) is near 1 or -1. */
static void extreme_angles(void **state)
{
    (void)state;
    struct qmap_geometry geometry = {.distance_m = 900.0,
                                     .poni_m = {0.5 * PIXEL_M, 0.5 * PIXEL_M},
                                     .wavelength_angstrom = 1.0,
                                     .pixel_size_m = {PIXEL_M, PIXEL_M},
                                     .orientation = 3};
    double q, phi;
    qmap_locate(&geometry, ROWS, COLUMNS, 0, 1, &q, &phi);
    close_to(q / (2.0 * M_PI * PIXEL_M / 900.0), 1.0, 1e-12);
    geometry.rotation_rad[0] = M_PI;
    qmap_locate(&geometry, ROWS, COLUMNS, 0, 0, &q, &phi);
    close_to(q, 4.0 * M_PI, 1e-12);
}

/* ---- division ------------------------------------------------------------------------------------------------ */

static const double middle[2] = {75.0, 60.0}, straight[2] = {0.0, 0.0};

static struct qmap *divide(const struct qmap_geometry *geometry, const uint8_t *is_masked, int n_bands,
                           const struct qmap_range *bands, int n_sectors)
{
    const struct qmap_settings settings = {.geometry = geometry,
                                           .n_rows = ROWS,
                                           .n_columns = COLUMNS,
                                           .is_masked = is_masked,
                                           .n_bands = n_bands,
                                           .bands = bands,
                                           .n_sectors = n_sectors};
    struct qmap *qmap;
    struct err err = {0};
    if (qmap_divide(&qmap, &settings, &err))
        fail_msg("%s", err.message);
    return qmap;
}

/* What holds for every division: bins are numbered through and filled, a pixel of a bin is in its range and in a part,
 * parts do not reach over bins. */
static void check_division(const struct qmap *qmap, const struct qmap_geometry *geometry, const uint8_t *is_masked)
{
    int bin_of_part[QMAP_PARTS_MAX + 1] = {0};
    size_t n_in_bin[QMAP_BINS_MAX + 1] = {0}, n_in_all = 0;
    for (size_t p = 0; p < ROWS * COLUMNS; p++) {
        int bin = qmap->dynamic.of_pixel[p], part = qmap->profile.of_pixel[p];
        assert_true((bin == 0) == (part == 0) && (bin == 0 || !is_masked[p]));
        assert_true(bin <= qmap->dynamic.n && part <= qmap->profile.n);
        if (bin == 0)
            continue;
        assert_true(bin_of_part[part] == 0 || bin_of_part[part] == bin);
        bin_of_part[part] = bin;
        n_in_bin[bin]++;
        n_in_all++;
        double q = (double)(p / COLUMNS), phi = (double)(p % COLUMNS);
        if (geometry)
            qmap_locate(geometry, ROWS, COLUMNS, p / COLUMNS, p % COLUMNS, &q, &phi);
        const struct qmap_bin *place = &qmap->bins[bin - 1];
        double width = place->phi.max - place->phi.min;
        double from_middle = phi - place->phi.min - width / 2.0;
        from_middle = geometry ? remainder(from_middle, 360.0) : from_middle;
        assert_true(q > place->q.min - 1e-6 && q < place->q.max + 1e-6);
        assert_true(fabs(from_middle) < width / 2.0 + 1e-4);
    }
    for (int b = 1; b <= qmap->dynamic.n; b++)
        assert_true(n_in_bin[b] > 0 && n_in_bin[b] == qmap->bins[b - 1].n_pixels);
    for (int k = 1; k <= qmap->profile.n; k++)
        assert_true(bin_of_part[k] > 0);
    assert_true(qmap->profile.n <= qmap->dynamic.n || n_in_all / (size_t)qmap->profile.n >= 500);
}

static void bands_of_equal_width(void **state)
{
    (void)state;
    static uint8_t is_masked[ROWS * COLUMNS];
    const struct qmap_geometry geometry = qmap_geometry_of_arm(2.0, middle, PIXEL_M, 21000.0, straight);
    memset(is_masked, 0, sizeof is_masked);
    for (size_t p = 0; p < sizeof is_masked; p += 7)
        is_masked[p] = 1;
    struct qmap *qmap = divide(&geometry, is_masked, 6, NULL, 1);
    check_division(qmap, &geometry, is_masked);
    assert_int_equal(qmap->dynamic.n, 6);
    size_t n = 0;
    for (int b = 0; b < 6; b++) {
        n += qmap->bins[b].n_pixels;
        close_to((qmap->bins[b].q.max - qmap->bins[b].q.min) / (qmap->bins[0].q.max - qmap->bins[0].q.min), 1.0, 1e-6);
        close_to(qmap->dynamic.grid[0][b], qmap->bins[b].q_mean, 1e-9);
    }
    assert_int_equal(n, ROWS * COLUMNS - (ROWS * COLUMNS + 6) / 7); /* every valid pixel is in one */
    qmap_free(qmap);
}

static void stated_bands_and_sectors(void **state)
{
    (void)state;
    static uint8_t is_masked[ROWS * COLUMNS];
    const struct qmap_geometry geometry = qmap_geometry_of_arm(2.0, middle, PIXEL_M, 21000.0, straight);
    static const struct qmap_range bands[] = {{0.005, 0.010}, {0.010, 0.012}, {0.015, 0.020}, {3.0, 4.0}};
    memset(is_masked, 0, sizeof is_masked);
    struct qmap *qmap = divide(&geometry, is_masked, 4, bands, 8);
    check_division(qmap, &geometry, is_masked);
    assert_int_equal(qmap->dynamic.n, 24); /* nothing is in the fourth band */
    assert_int_equal(qmap->dynamic.n_grid[0], 4);
    assert_true(isnan(qmap->dynamic.grid[0][3]));
    close_to(qmap->dynamic.grid[1][0], -157.5, 1e-9);
    for (size_t p = 0; p < ROWS * COLUMNS; p++) {
        double q, phi;
        qmap_locate(&geometry, ROWS, COLUMNS, p / COLUMNS, p % COLUMNS, &q, &phi);
        bool is_in = (q >= 0.005 && q < 0.012) || (q >= 0.015 && q < 0.020);
        assert_int_equal(qmap->dynamic.of_pixel[p] > 0, is_in);
    }
    qmap_free(qmap);
}

/* On an arm only a part of the circle is seen, here across the cut at 180 degrees: that part is divided. */
static void sectors_of_what_is_covered(void **state)
{
    (void)state;
    static uint8_t is_masked[ROWS * COLUMNS];
    const double back[2] = {-1.0, 0.0};
    const struct qmap_geometry geometry = qmap_geometry_of_arm(2.0, middle, PIXEL_M, 21000.0, back);
    memset(is_masked, 0, sizeof is_masked);
    struct qmap *qmap = divide(&geometry, is_masked, 1, NULL, 4);
    check_division(qmap, &geometry, is_masked);
    assert_int_equal(qmap->dynamic.n, 4);
    double width = qmap->bins[0].phi.max - qmap->bins[0].phi.min;
    if (!(width > 4.0 && width < 6.0))
        fail_msg("a sector of %g degrees", width); /* of 17 to 19 that are seen */
    for (int b = 0; b < 4; b++)
        assert_true(qmap->bins[b].n_pixels > ROWS * COLUMNS / 10 && fabs(qmap->dynamic.grid[1][b]) > 90.0 &&
                    fabs(qmap->dynamic.grid[1][b]) <= 180.0);
    qmap_free(qmap);
}

static void without_geometry(void **state)
{
    (void)state;
    static uint8_t is_masked[ROWS * COLUMNS];
    memset(is_masked, 0, sizeof is_masked);
    memset(is_masked, 1, 10 * COLUMNS);
    struct qmap *qmap = divide(NULL, is_masked, 1, NULL, 1);
    check_division(qmap, NULL, is_masked);
    assert_false(qmap->has_q);
    assert_int_equal(qmap->dynamic.n, 1);
    assert_int_equal(qmap->bins[0].n_pixels, (ROWS - 10) * COLUMNS);
    assert_true(qmap->profile.n >= 16);
    qmap_free(qmap);
}

static void refused_divisions(void **state)
{
    (void)state;
    static uint8_t is_masked[ROWS * COLUMNS];
    const struct qmap_geometry geometry = qmap_geometry_of_arm(2.0, middle, PIXEL_M, 21000.0, straight);
    static const struct qmap_range far[] = {{5.0, 6.0}};
    struct qmap_settings settings = {
        .n_rows = ROWS, .n_columns = COLUMNS, .is_masked = is_masked, .n_bands = 3, .n_sectors = 1};
    struct qmap *qmap;
    struct err err = {0};
    memset(is_masked, 0, sizeof is_masked);
    assert_int_equal(qmap_divide(&qmap, &settings, &err), ERR_ARG);
    assert_non_null(strstr(err.message, "need the geometry"));
    settings.geometry = &geometry;
    settings.n_sectors = 100;
    assert_int_equal(qmap_divide(&qmap, &settings, &err), ERR_ARG);
    assert_non_null(strstr(err.message, "more than 255 bins"));
    settings.n_sectors = settings.n_bands = 1;
    settings.bands = far;
    assert_int_equal(qmap_divide(&qmap, &settings, &err), ERR_DATA);
    if (!strstr(err.message, "to 0.03833/angstrom"))
        fail_msg("%s", err.message);
    memset(is_masked, 1, sizeof is_masked);
    assert_int_equal(qmap_divide(&qmap, &settings, &err), ERR_DATA);
    assert_non_null(strstr(err.message, "0 valid pixels"));
}

/* ---- .poni --------------------------------------------------------------------------------------------------- */

#define NUMBERS "Distance: 0.9\nPoni1: 0.01\nPoni2: -0.03\nRot1: 0.21\nRot2: -0.13\nRot3: 0.7\nWavelength: 5.9e-11\n"

static int parse(const char *text, struct poni *ret_poni, struct err *err)
{
    char copy[2000];
    snprintf(copy, sizeof copy, "%s", text);
    return poni_parse(copy, ret_poni, err);
}

static void poni_of_every_version(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double pixel_size_m[2];
        int orientation;
        size_t n_rows;
    } cases[] = {
        {"# Nota: C-Order\r\nPixelSize1: 7.5e-05\r\nPixelSize2: 8e-05\r\nSplineFile: None\r\n" NUMBERS,
         {75e-6, 80e-6},
         3,
         0},
        {"distance: 3\nrot3: 1\n" NUMBERS, {0.0, 0.0}, 3, 0},
        {"poni_version: 2\nDetector: Detector\nDetector_config: {\"pixel1\": 7.5e-05, \"pixel2\": 8e-05, "
         "\"max_shape\": "
         "[514, 1030]}\n" NUMBERS,
         {75e-6, 80e-6},
         3,
         514},
        {"poni_version: 2.1\nDetector: Eiger2CdTe_4M\nDetector_config: {\"orientation\": 2}\n" NUMBERS,
         {75e-6, 75e-6},
         2,
         0},
        {"poni_version: 3\nDetector: Pilatus1M\nDetector_config: {\"orientation\": 4, \"sensor\": null}\n" NUMBERS
         "Parallax: False\n# Calibrant: LaB6\n",
         {172e-6, 172e-6},
         4,
         0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct poni poni;
        struct err err = {0};
        if (parse(cases[i].text, &poni, &err))
            fail_msg("case %zu: %s", i, err.message);
        close_to(poni.geometry.distance_m, 0.9, 0.0);
        close_to(poni.geometry.poni_m[1], -0.03, 0.0);
        close_to(poni.geometry.rotation_rad[2], 0.7, 0.0);
        close_to(poni.geometry.wavelength_angstrom, 0.59, 1e-15);
        close_to(poni.geometry.pixel_size_m[0], cases[i].pixel_size_m[0], 0.0);
        close_to(poni.geometry.pixel_size_m[1], cases[i].pixel_size_m[1], 0.0);
        assert_int_equal(poni.geometry.orientation, cases[i].orientation);
        assert_int_equal(poni.n_rows, cases[i].n_rows);
    }
}

static void refused_poni(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "no line 'Distance: ...' in 1 lines"},
        {"tau = 95 s\n", "line 1 is 'tau = 95 s', expected 'Key: value'"},
        {NUMBERS "\nDistance: -0.9\n", "line 9: Distance is '-0.9', expected metres, above 0"},
        {NUMBERS "Rot1: nan\n", "line 8: Rot1 is 'nan', expected radians"},
        {NUMBERS "Poni2: 12 mm\n", "line 8: Poni2 is '12 mm'"},
        {NUMBERS "Wavelength: 0.59\n", "line 8: Wavelength is '0.59', expected metres, 1e-13 to 1e-8"},
        {"poni_version: 4\n" NUMBERS, "poni_version is '4', expected 1, 2, 2.1 or 3"},
        {"Parallax: True\n" NUMBERS, "Parallax is 'True'"},
        {"SplineFile: frelon.spline\n" NUMBERS, "SplineFile is 'frelon.spline'"},
        {"Detector_config: {\"pixel1\": 7.5e-05\n" NUMBERS, "line 1: Detector_config is no JSON object"},
        {"Detector_config: [1, 2]\n" NUMBERS, "line 1: Detector_config is no JSON object"},
        {"Detector_config: {\"pixel1\": 7.5e-05}\n" NUMBERS, "one pixel size without the other"},
        {"Detector_config: {\"pixel1\": \"big\"}\n" NUMBERS, "line 1: PixelSize1 is"},
        {"Detector_config: {\"orientation\": 5}\n" NUMBERS, "line 1: orientation of Detector_config is '5'"},
        {"Detector_config: {\"max_shape\": [0, 5]}\n" NUMBERS, "line 1: max_shape"},
        {"Detector_config: {\"filename\": \"x.h5\"}\n" NUMBERS, "names a file of pixel positions"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct poni poni;
        struct err err = {0};
        assert_int_equal(parse(cases[i][0], &poni, &err), ERR_DATA);
        if (!strstr(err.message, cases[i][1]))
            fail_msg("'%s', expected '%s'", err.message, cases[i][1]);
    }
}

/* ---- polygons ------------------------------------------------------------------------------------------------ */

static size_t count_masked(const char *text, uint8_t *is_masked, struct err *err)
{
    char copy[2000];
    size_t n = 0;
    snprintf(copy, sizeof copy, "%s", text);
    memset(is_masked, 0, ROWS * COLUMNS);
    if (polygon_mask(copy, ROWS, COLUMNS, is_masked, err))
        return 0;
    for (size_t p = 0; p < ROWS * COLUMNS; p++)
        n += is_masked[p];
    return n;
}

static void polygons(void **state)
{
    (void)state;
    static uint8_t is_masked[ROWS * COLUMNS];
    struct err err = {0};
    assert_int_equal(count_masked("# a square\n9.5 19.5\n29.5, 19.5\n29.5 24.5\n9.5\t24.5\r\n", is_masked, &err), 100);
    assert_true(is_masked[20 * COLUMNS + 10] && is_masked[24 * COLUMNS + 29]);
    assert_true(!is_masked[20 * COLUMNS + 30] && !is_masked[25 * COLUMNS + 10] && !is_masked[19 * COLUMNS + 10]);
    /* two, one of them over three edges of the detector, and a triangle of half a square */
    assert_int_equal(
        count_masked("-50 -50\n4.5 -50\n4.5 1e3\n-50 1e3\n\n\n50.4 10.5\n70.4 10.5\n50.4 30.5\n", is_masked, &err),
        5 * ROWS + 20 * 19 / 2);
    /* a star of one line: its heart is crossed twice and stays */
    count_masked("50 10\n62 46\n31 24\n69 24\n38 46\n", is_masked, &err);
    assert_true(is_masked[14 * COLUMNS + 50] && !is_masked[30 * COLUMNS + 50]);
    static const char *const bad[][2] = {{"", "no polygon in 1 lines"},
                                         {"1 2\n3 4\n\n", "line 3 has 2 corners"},
                                         {"1 2\n3 4\n5 x\n", "line 3 is '5 x', expected column and row"},
                                         {"1 2 3\n", "line 1 is '1 2 3'"},
                                         {"1 nan\n", "line 1 is '1 nan'"},
                                         {"1 1e9\n", "line 1 is '1 1e9'"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(count_masked(bad[i][0], is_masked, &err), 0);
        if (!strstr(err.message, bad[i][1]))
            fail_msg("'%s', expected '%s'", err.message, bad[i][1]);
    }
}

static int write_maps(const char *path, size_t n_rows, size_t n_columns)
{
    struct poni poni;
    struct err err = {0};
    if (poni_read(path, &poni, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    for (size_t row = 0; row < n_rows; row++)
        for (size_t column = 0; column < n_columns; column++) {
            double place[2];
            qmap_locate(&poni.geometry, n_rows, n_columns, row, column, &place[0], &place[1]);
            fwrite(place, sizeof place, 1, stdout);
        }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4)
        return write_maps(argv[1], strtoul(argv[2], NULL, 10), strtoul(argv[3], NULL, 10));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flat_detector),
        cmocka_unit_test(detector_on_an_arm),
        cmocka_unit_test(orientation_and_roll),
        cmocka_unit_test(extreme_angles),
        cmocka_unit_test(bands_of_equal_width),
        cmocka_unit_test(stated_bands_and_sectors),
        cmocka_unit_test(sectors_of_what_is_covered),
        cmocka_unit_test(without_geometry),
        cmocka_unit_test(refused_divisions),
        cmocka_unit_test(poni_of_every_version),
        cmocka_unit_test(refused_poni),
        cmocka_unit_test(polygons),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
