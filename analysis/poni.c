#include "analysis/poni.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "analysis/text_file.h"

#define ANGSTROM_PER_M 1e10
#define SIDE_MAX 100000 /* pixels; the largest detectors have 5000 */

/* The numbers a file may hold, and what they can be. */
enum { DISTANCE, PONI1, PONI2, ROT1, ROT2, ROT3, WAVELENGTH, PIXEL1, PIXEL2, NUMBER_COUNT };

static const struct {
    const char *key;
    double min, max;
    const char *domain;
    bool is_needed;
} numbers[NUMBER_COUNT] = {
    [DISTANCE] = {"Distance", 1e-6, 1e3, "metres, above 0 and up to 1000", true},
    [PONI1] = {"Poni1", -1e3, 1e3, "metres, within 1000 of 0", true},
    [PONI2] = {"Poni2", -1e3, 1e3, "metres, within 1000 of 0", true},
    [ROT1] = {"Rot1", -7.0, 7.0, "radians, within a turn of 0", true},
    [ROT2] = {"Rot2", -7.0, 7.0, "radians, within a turn of 0", true},
    [ROT3] = {"Rot3", -7.0, 7.0, "radians, within a turn of 0", true},
    [WAVELENGTH] = {"Wavelength", 1e-13, 1e-8, "metres, 1e-13 to 1e-8", false},
    [PIXEL1] = {"PixelSize1", 1e-7, 0.1, "metres, 1e-7 to 0.1", false},
    [PIXEL2] = {"PixelSize2", 1e-7, 0.1, "metres, 1e-7 to 0.1", false},
};

/* Families all of whose detectors have one pixel size. */
static const struct {
    const char *prefix;
    double pixel_size_m;
} families[] = {{"eiger", 75e-6}, {"pilatus", 172e-6}};

/* What has been read so far; a number is NAN until it is stated. */
struct reading {
    double number[NUMBER_COUNT];
    char detector[64];
    int orientation;
    size_t n_rows, n_columns;
    int line;
};

static int refuse(const struct reading *reading, struct err *err, const char *key, const char *value,
                  const char *expected)
{
    return err_set(err, ERR_DATA, "line %d: %s is '%.60s', expected %s", reading->line, key, value, expected);
}

static int take_number(struct reading *reading, int i, double value, const char *text, struct err *err)
{
    if (!(value >= numbers[i].min && value <= numbers[i].max))
        return refuse(reading, err, numbers[i].key, text, numbers[i].domain);
    reading->number[i] = value;
    return 0;
}

static int take_number_text(struct reading *reading, int i, const char *text, struct err *err)
{
    char *rest;
    double value = strtod(text, &rest);
    return take_number(reading, i, rest > text && !*rest ? value : NAN, text, err);
}

static int take_version(const struct reading *reading, const char *text, struct err *err)
{
    static const char *const known[] = {"1", "2", "2.0", "2.1", "3", "3.0"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(text, known[i]) == 0)
            return 0;
    return refuse(reading, err, "poni_version", text, "1, 2, 2.1 or 3");
}

/* ---- Detector_config ----------------------------------------------------------------------------------------- */

static int take_config_shape(struct reading *reading, const json_t *shape, struct err *err)
{
    json_int_t side[2];
    for (size_t i = 0; i < 2; i++) {
        side[i] = json_integer_value(json_array_get(shape, i));
        if (side[i] < 1 || side[i] > SIDE_MAX)
            return refuse(reading, err, "max_shape of Detector_config", "not a shape", "[rows, columns]");
    }
    reading->n_rows = (size_t)side[0];
    reading->n_columns = (size_t)side[1];
    return 0;
}

static int take_config_key(struct reading *reading, const char *key, const json_t *value, struct err *err)
{
    char text[40];
    snprintf(text, sizeof text, "%.9g", json_number_value(value));
    if (json_is_null(value))
        return 0;
    if (strcmp(key, "pixel1") == 0 || strcmp(key, "pixel2") == 0)
        return take_number(reading, key[5] == '1' ? PIXEL1 : PIXEL2,
                           json_is_number(value) ? json_number_value(value) : NAN, text, err);
    if (strcmp(key, "orientation") == 0) {
        json_int_t orientation = json_integer_value(value);
        if (!json_is_integer(value) || orientation < 0 || orientation > 4)
            return refuse(reading, err, "orientation of Detector_config", text, "1, 2, 3 or 4");
        reading->orientation = orientation ? (int)orientation : 3; /* 0 is pyFAI's "not stated", which it takes as 3 */
        return 0;
    }
    if (strcmp(key, "max_shape") == 0)
        return take_config_shape(reading, value, err);
    if (strcasecmp(key, "splinefile") == 0 || strcmp(key, "filename") == 0)
        return err_set(
            err, ERR_DATA,
            "line %d: %s of Detector_config names a file of pixel positions; expected a flat detector with a "
            "regular grid: calibrate with one",
            reading->line, key);
    return 0; /* such as the sensor */
}

static int take_config(struct reading *reading, const char *text, struct err *err)
{
    json_error_t cause;
    const char *key;
    json_t *value, *config = json_loads(text, 0, &cause);
    int code = 0;
    if (!json_is_object(config))
        code = err_set(err, ERR_DATA, "line %d: Detector_config is no JSON object (%s)", reading->line,
                       config ? "another value" : cause.text);
    else
        json_object_foreach(config, key, value) if (code == 0) code = take_config_key(reading, key, value, err);
    json_decref(config);
    return code;
}

/* ---- lines --------------------------------------------------------------------------------------------------- */

static int take_value(struct reading *reading, const char *key, const char *value, struct err *err)
{
    for (int i = 0; i < NUMBER_COUNT; i++)
        if (strcasecmp(key, numbers[i].key) == 0)
            return take_number_text(reading, i, value, err);
    if (strcasecmp(key, "poni_version") == 0)
        return take_version(reading, value, err);
    if (strcasecmp(key, "Detector") == 0)
        snprintf(reading->detector, sizeof reading->detector, "%s", value);
    if (strcasecmp(key, "Detector_config") == 0)
        return take_config(reading, value, err);
    if (strcasecmp(key, "SplineFile") == 0 && strcasecmp(value, "none") != 0)
        return refuse(reading, err, "SplineFile", value, "None: a flat detector with a regular grid");
    if (strcasecmp(key, "Parallax") == 0 && strcasecmp(value, "false") != 0)
        return refuse(reading, err, "Parallax", value, "False: its correction is not made here");
    return 0;
}

/* `line` is cut up. */
static int take_line(struct reading *reading, char *line, struct err *err)
{
    char *colon = strchr(line, ':'), *key = line + strspn(line, " \t"), *end;
    if (*key == '#' || *key == '\0' || *key == '\r')
        return 0;
    if (!colon)
        return err_set(err, ERR_DATA, "line %d is '%.60s', expected 'Key: value'", reading->line, key);
    for (end = colon; end > key && isspace((unsigned char)end[-1]); end--)
        ;
    *end = '\0';
    char *value = colon + 1 + strspn(colon + 1, " \t");
    for (end = value + strlen(value); end > value && isspace((unsigned char)end[-1]); end--)
        ;
    *end = '\0';
    return take_value(reading, key, value, err);
}

static int conclude(const struct reading *reading, struct poni *ret_poni, struct err *err)
{
    const double *number = reading->number;
    for (int i = 0; i < NUMBER_COUNT; i++)
        if (numbers[i].is_needed && isnan(number[i]))
            return err_set(err, ERR_DATA, "no line '%s: ...' in %d lines; expected a .poni file of pyFAI",
                           numbers[i].key, reading->line);
    if (isnan(number[PIXEL1]) != isnan(number[PIXEL2]))
        return err_set(err, ERR_DATA, "one pixel size without the other; expected both or none");
    double pixel_size_m = 0.0;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (strncasecmp(reading->detector, families[i].prefix, strlen(families[i].prefix)) == 0)
            pixel_size_m = families[i].pixel_size_m;
    *ret_poni = (struct poni){
        .geometry = {.distance_m = number[DISTANCE],
                     .poni_m = {number[PONI1], number[PONI2]},
                     .rotation_rad = {number[ROT1], number[ROT2], number[ROT3]},
                     .wavelength_angstrom = isnan(number[WAVELENGTH]) ? 0.0 : number[WAVELENGTH] * ANGSTROM_PER_M,
                     .pixel_size_m = {isnan(number[PIXEL1]) ? pixel_size_m : number[PIXEL1],
                                      isnan(number[PIXEL2]) ? pixel_size_m : number[PIXEL2]},
                     .orientation = reading->orientation},
        .n_rows = reading->n_rows,
        .n_columns = reading->n_columns};
    return 0;
}

int poni_parse(char *text, struct poni *ret_poni, struct err *err)
{
    struct reading reading = {.orientation = 3};
    for (int i = 0; i < NUMBER_COUNT; i++)
        reading.number[i] = NAN;
    int code = 0;
    for (char *line; code == 0 && (line = strsep(&text, "\n"));) {
        reading.line++;
        code = take_line(&reading, line, err);
    }
    return code ? code : conclude(&reading, ret_poni, err);
}

int poni_read(const char *path, struct poni *ret_poni, struct err *err)
{
    char *text;
    int code = text_file_read(path, PONI_BYTES_MAX, &text, err);
    if (code)
        return code;
    code = poni_parse(text, ret_poni, err);
    if (code)
        err_prefix(err, "%s", path);
    free(text);
    return code;
}
