/*
 * Parser: pyFAI's geometry (analysis/poni), with the JSON inside it. Property: a geometry that is accepted has a
 * distance and pixels, and puts every corner of a detector at a q that its wavelength allows and at an azimuth.
 */
#include <math.h>
#include <string.h>

#include "analysis/poni.h"
#include "tests/fuzz.h"

#define SIDE 100

const char *const fuzz_words[] = {"poni_version: ",
                                  "Distance: ",
                                  "Poni1: ",
                                  "Poni2: ",
                                  "Rot1: ",
                                  "Rot2: ",
                                  "Rot3: ",
                                  "Wavelength: ",
                                  "PixelSize1: ",
                                  "PixelSize2: ",
                                  "Detector: ",
                                  "Eiger2_4M",
                                  "SplineFile: ",
                                  "None",
                                  "Parallax: ",
                                  "False",
                                  "\n",
                                  "Detector_config: {",
                                  "\"pixel1\": ",
                                  "\"pixel2\": ",
                                  "\"max_shape\": [",
                                  "\"orientation\": ",
                                  "null",
                                  "7.5e-05",
                                  "1e308",
                                  "nan",
                                  "-0",
                                  "}",
                                  "]",
                                  NULL};

void fuzz_plant_seeds(void)
{
    static const char NUMBERS[] = "Distance: 0.9\nPoni1: 0.01\nPoni2: -0.03\nRot1: 0.21\nRot2: -0.13\nRot3: 0.7\n";
    static const char *const HEADS[] = {
        "PixelSize1: 7.5e-05\nPixelSize2: 7.5e-05\nSplineFile: None\n",
        "poni_version: 2\nDetector: Detector\nDetector_config: {\"pixel1\": 7.5e-05, \"pixel2\": 8e-05}\n",
        "# Calibration done\r\nponi_version: 2.1\nDetector: Eiger2CdTe_4M\n"
        "Detector_config: {\"orientation\": 2, \"max_shape\": [2162, 2068]}\nWavelength: 5.9e-11\n",
        "poni_version: 3\nDetector: Pilatus1M\nDetector_config: {\"sensor\": {\"material\": \"Si\"}}\nParallax: "
        "False\n"};
    char text[1000];
    for (size_t i = 0; i < sizeof HEADS / sizeof HEADS[0]; i++)
        fuzz_plant(text, (size_t)snprintf(text, sizeof text, "%s%s", HEADS[i], NUMBERS));
}

static void check_place(const struct qmap_geometry *geometry, size_t row, size_t column)
{
    double q, phi, q_max = 4.0 * M_PI / geometry->wavelength_angstrom;
    qmap_locate(geometry, SIDE, SIDE, row, column, &q, &phi);
    FUZZ_CHECK(q >= 0.0 && q <= q_max * (1.0 + 1e-12), "q %g of at most %g/angstrom", q, q_max);
    FUZZ_CHECK(phi >= -180.0 && phi <= 180.0, "azimuth %g", phi);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char text[PONI_BYTES_MAX];
    struct poni poni;
    struct err err = {0};
    if (size >= sizeof text || memchr(data, 0, size))
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (poni_parse(text, &poni, &err)) {
        FUZZ_CHECK(err.message[0], "refused without a sentence");
        return 0;
    }
    struct qmap_geometry *geometry = &poni.geometry;
    FUZZ_CHECK(geometry->distance_m > 0.0 && geometry->orientation >= 1 && geometry->orientation <= 4,
               "distance %g m, orientation %d", geometry->distance_m, geometry->orientation);
    FUZZ_CHECK((poni.n_rows > 0) == (poni.n_columns > 0), "%zu x %zu", poni.n_rows, poni.n_columns);
    if (!qmap_is_stated(geometry))
        return 0;
    for (size_t i = 0; i < 4; i++)
        check_place(geometry, i / 2 * (SIDE - 1), i % 2 * (SIDE - 1));
    return 0;
}
