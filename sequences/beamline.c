#include "sequences/beamline.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sequences/record.h"
#include "sequences/sandbox.h"

enum section { IN_BEAMLINE, IN_MEMBRANE, IN_SPECTROMETER, IN_RUBY, IN_DETECTOR, IN_RING, SECTION_COUNT };

static const char *const SECTIONS[SECTION_COUNT] = {"beamline", "membrane", "spectrometer", "ruby", "detector", "ring"};

#define SETTLE_S 5.0
#define LOST_FACTOR 3.0 /* of temperature_k_sigma while the thermometer is lost; and what a room does in a night */
#define LOST_K_MIN 2.0
#define COUNT_OF(array) ((int)(sizeof(array) / sizeof(array)[0]))
#define FIELD(key, unit, required, member, min, max)                                                                   \
    RECORD_FIELD(#key, unit, required, struct beamline, member, min, max)
#define WORD(key, required, member) FIELD(key, RECORD_WORD, required, member, 0, 0)
/* Two spellings: with the unit in the value, `distance = "5 m"`, or in the key, `distance_m = 5`. */
#define QUANTITY(key, unit, key_plain, required, member, min, max)                                                     \
    FIELD(key, unit, required, member, min, max), FIELD(key_plain, RECORD_PLAIN, required, member, min, max)

static const struct record_field BEAMLINE_FIELDS[] = {
    WORD(name, true, name),
    WORD(clock, false, clock),
    WORD(ca_address, true, ca_address),
};

static const struct record_field MEMBRANE_FIELDS[] = {
    WORD(driver, true, membrane.driver),
    WORD(address, true, membrane.address),
    FIELD(unit_id, RECORD_COUNT, false, membrane.unit_id, 1, 247), /* the unicast addresses of Modbus */
    FIELD(full_scale_bar, RECORD_PLAIN, false, membrane.full_scale_bar, 1, 1000),
    WORD(watchdog, false, membrane.watchdog),
    FIELD(membrane_bar_max, RECORD_PLAIN, true, membrane.membrane_bar_max, 1, 250),
    FIELD(slew_bar_per_min_max, RECORD_PLAIN, true, membrane.slew_bar_per_min_max, 0.1, 100),
};

static const struct record_field SPECTROMETER_FIELDS[] = {
    WORD(driver, true, spectrometer.driver),
    WORD(address, false, spectrometer.address),
    QUANTITY(exposure, RECORD_S, exposure_s, true, spectrometer.exposure_s, 0.001, 60),
    FIELD(wavelength_nm_min, RECORD_PLAIN, false, spectrometer.wavelength_nm_min, 200, 1100),
    FIELD(wavelength_nm_max, RECORD_PLAIN, false, spectrometer.wavelength_nm_max, 200, 1100),
    WORD(wavelength_pv, false, spectrometer.wavelength_pv),
    WORD(counts_pv, false, spectrometer.counts_pv),
    WORD(exposure_pv, false, spectrometer.exposure_pv),
    WORD(acquire_pv, false, spectrometer.acquire_pv),
    WORD(busy_pv, false, spectrometer.busy_pv),
    FIELD(counts_saturation, RECORD_PLAIN, false, spectrometer.counts_saturation, 100, 1e9),
    FIELD(wavelength_offset_nm, RECORD_PLAIN, false, spectrometer.wavelength_offset_nm, -2, 2),
    FIELD(wavelength_slope, RECORD_PLAIN, false, spectrometer.wavelength_slope, -0.01, 0.01),
    FIELD(fringe_max, RECORD_PLAIN, false, spectrometer.fringe_max, 0, 0.2),
};

/* R1 of any ruby at rest is near 694.2 nm; a number outside 690 to 698 is a slip of the pen. */
static const struct record_field RUBY_FIELDS[] = {
    WORD(scale, false, ruby.scale),
    QUANTITY(lambda0, RECORD_NM, lambda0_nm, true, ruby.lambda0_nm, 690, 698),
    FIELD(lambda0_nm_sigma, RECORD_PLAIN, false, ruby.lambda0_nm_sigma, 0, 0.02),
    FIELD(temperature_k_zero, RECORD_PLAIN, false, ruby.temperature_k_zero, 4, 1000),
    QUANTITY(temperature, RECORD_K, temperature_k, false, ruby.temperature_k, 4, 1000),
    FIELD(temperature_k_sigma, RECORD_PLAIN, false, ruby.temperature_k_sigma, 0, 100),
    WORD(temperature_pv, false, ruby.temperature_pv),
    FIELD(temperature_k_sigma_lost, RECORD_PLAIN, false, ruby.temperature_k_sigma_lost, 0, 100),
    WORD(correction, false, ruby.correction),
    WORD(ruby_access, false, ruby.ruby_access),
    WORD(optics_pv, false, ruby.optics_pv),
    WORD(optics_readback_pv, false, ruby.optics_readback_pv),
    WORD(laser_pv, false, ruby.laser_pv),
    WORD(laser_readback_pv, false, ruby.laser_readback_pv),
    QUANTITY(settle, RECORD_S, settle_s, false, ruby.settle_s, 0, 600),
};

static const struct record_field DETECTOR_FIELDS[] = {
    WORD(driver, true, detector.driver),
    WORD(prefix, true, detector.prefix),
    WORD(file_path, true, detector.file_path),
    QUANTITY(photon_energy, RECORD_EV, photon_energy_ev, true, detector.photon_energy_ev, 2000, 100000),
    QUANTITY(distance, RECORD_M, distance_m, true, detector.distance_m, 0.05, 50),
    FIELD(beam_center_x_px, RECORD_PLAIN, true, detector.beam_center_x_px, -100000, 100000),
    FIELD(beam_center_y_px, RECORD_PLAIN, true, detector.beam_center_y_px, -100000, 100000),
};

static const struct record_field RING_FIELDS[] = {
    WORD(current_pv, true, ring.current_pv),
    QUANTITY(current_min, RECORD_MA, current_ma_min, true, ring.current_ma_min, 0, 1000),
};

static const struct {
    const struct record_field *fields;
    int n_fields;
} FIELDS[SECTION_COUNT] = {
    [IN_BEAMLINE] = {BEAMLINE_FIELDS, COUNT_OF(BEAMLINE_FIELDS)},
    [IN_MEMBRANE] = {MEMBRANE_FIELDS, COUNT_OF(MEMBRANE_FIELDS)},
    [IN_SPECTROMETER] = {SPECTROMETER_FIELDS, COUNT_OF(SPECTROMETER_FIELDS)},
    [IN_RUBY] = {RUBY_FIELDS, COUNT_OF(RUBY_FIELDS)},
    [IN_DETECTOR] = {DETECTOR_FIELDS, COUNT_OF(DETECTOR_FIELDS)},
    [IN_RING] = {RING_FIELDS, COUNT_OF(RING_FIELDS)},
};

/* ---- addresses
 * -------------------------------------------------------------------------------------------------------- */

/* Splits HOST, HOST:PORT or [HOST]:PORT; *ret_port is -1 without one. False when it is none of these. */
static bool split_host(const char *text, char *ret_host, size_t size, int *ret_port)
{
    const char *host = text[0] == '[' ? text + 1 : text;
    size_t n_host = strcspn(host, text[0] == '[' ? "]" : ":");
    const char *rest = host + n_host;
    if (text[0] == '[' && *rest++ != ']')
        return false;
    *ret_port = -1;
    if (*rest == ':') {
        size_t n_digits = strspn(rest + 1, "0123456789");
        long port = strtol(rest + 1, NULL, 10);
        if (n_digits < 1 || n_digits > 5 || rest[1 + n_digits] || port < 1 || port > 65535)
            return false;
        *ret_port = (int)port;
    } else if (*rest) {
        return false;
    }
    if (n_host == 0 || n_host >= size)
        return false;
    memcpy(ret_host, host, n_host);
    ret_host[n_host] = '\0';
    return true;
}

/* By its text alone: a name that has to be asked for elsewhere is not this machine. */
static bool host_is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    if (inet_pton(AF_INET6, host, &v6) == 1)
        return IN6_IS_ADDR_LOOPBACK(&v6);
    return strcmp(host, "localhost") == 0;
}

static int check_detector(const struct beamline_detector *detector, const char *file, struct err *err)
{
    if (strcmp(detector->driver, "adeiger") == 0)
        return 0;
    return err_set(err, ERR_CONFIG, "%s: detector: unknown driver \"%s\" (known: adeiger)", file, detector->driver);
}

static int refuse_fast_clock(const struct beamline *beamline, const char *file, const char *instrument,
                             const char *address, struct err *err)
{
    return err_set(err, ERR_LIMIT,
                   "%s: clock \"%s\" refused: it runs fast, and the %s at \"%s\" is not on this machine's loopback; "
                   "use clock = \"real\"",
                   file, beamline->clock, instrument, address);
}

static bool address_is_serial(const char *address)
{
    const char *baud = strrchr(address, ':');
    return strncmp(address, "serial:/", 8) == 0 && baud > address + 7 && baud[1] &&
           strspn(baud + 1, "0123456789") == strlen(baud + 1);
}

/* A TCP port or a serial line. */
static int check_address(const char *section, const char *address, const char *file, struct err *err)
{
    char host[96];
    int port;
    bool is_tcp = strncmp(address, "tcp:", 4) == 0 && split_host(address + 4, host, sizeof host, &port) && port > 0;
    if (is_tcp || address_is_serial(address))
        return 0;
    return err_set(err, ERR_CONFIG,
                   "%s: %s: address = \"%s\": expected tcp:HOST:PORT or serial:/PATH:BAUD, like "
                   "\"serial:/dev/ttyUSB0:9600\"",
                   file, section, address);
}

/* An Alicat cannot be asked what it would do when the bus falls silent, nor what its full scale is. */
static int check_alicat(const struct beamline_membrane *membrane, const char *file, struct err *err)
{
    bool is_alicat = strcmp(membrane->driver, "alicat") == 0;
    if (!is_alicat && (membrane->full_scale_bar != 0 || membrane->watchdog[0]))
        return err_set(
            err, ERR_CONFIG,
            "%s: membrane: full_scale_bar and watchdog are for driver = \"alicat\"; a %s is asked; leave them "
            "out",
            file, membrane->driver);
    if (is_alicat && membrane->full_scale_bar == 0)
        return err_set(
            err, ERR_CONFIG,
            "%s: membrane: missing key 'full_scale_bar': an Alicat cannot be asked for it; give it in bar, and "
            "set the controller to work in bar",
            file);
    if (is_alicat && strcmp(membrane->watchdog, "off") != 0)
        return err_set(
            err, ERR_CONFIG,
            "%s: membrane: expected watchdog = \"off\": an Alicat with its communication watchdog on sets its "
            "set point to zero when the bus falls silent, and cannot be asked; switch it off at the "
            "controller, then say so here",
            file);
    return 0;
}

/* A driver that there is, at a TCP port or on a serial line. */
static int check_membrane(const struct beamline_membrane *membrane, const char *file, struct err *err)
{
    static const char *const drivers[] = {"bronkhorst", "alicat", "pace"};
    const char *driver = NULL;
    for (int i = 0; i < COUNT_OF(drivers); i++)
        if (strcmp(membrane->driver, drivers[i]) == 0)
            driver = drivers[i];
    if (!driver)
        return err_set(err, ERR_CONFIG, "%s: membrane: unknown driver \"%s\" (known: bronkhorst, alicat, pace)", file,
                       membrane->driver);
    int code = check_address("membrane", membrane->address, file, err);
    return code ? code : check_alicat(membrane, file, err);
}

/* An address, or PVs and what the wire does not tell; never both. */
static int check_spectrometer(const struct beamline_spectrometer *spectrometer, const char *file, struct err *err)
{
    bool is_epics = strcmp(spectrometer->driver, "epics-waveforms") == 0;
    const struct {
        const char *key;
        bool is_given;
    } keys[] = {{"wavelength_pv", spectrometer->wavelength_pv[0]},
                {"counts_pv", spectrometer->counts_pv[0]},
                {"exposure_pv", spectrometer->exposure_pv[0]},
                {"acquire_pv", spectrometer->acquire_pv[0]},
                {"busy_pv", spectrometer->busy_pv[0]},
                {"counts_saturation", spectrometer->counts_saturation > 0}};
    if (!is_epics && strcmp(spectrometer->driver, "ocean-optics") != 0)
        return err_set(err, ERR_CONFIG,
                       "%s: spectrometer: unknown driver \"%s\" (known: ocean-optics, epics-waveforms)", file,
                       spectrometer->driver);
    for (int i = 0; i < COUNT_OF(keys); i++) {
        if (is_epics && !keys[i].is_given)
            return err_set(err, ERR_CONFIG,
                           "%s: spectrometer: missing key '%s': driver = \"epics-waveforms\" needs wavelength_pv, "
                           "counts_pv, exposure_pv, acquire_pv, busy_pv and counts_saturation",
                           file, keys[i].key);
        if (!is_epics && keys[i].is_given)
            return err_set(err, ERR_CONFIG, "%s: spectrometer: %s is for driver = \"epics-waveforms\"; leave it out",
                           file, keys[i].key);
    }
    if (is_epics && spectrometer->address[0])
        return err_set(err, ERR_CONFIG,
                       "%s: spectrometer: address is for driver = \"ocean-optics\"; PVs are looked for at ca_address; "
                       "leave it out",
                       file);
    if (!(spectrometer->wavelength_nm_min < spectrometer->wavelength_nm_max))
        return err_set(err, ERR_CONFIG, "%s: spectrometer: wavelength_nm_min %g is not below wavelength_nm_max %g",
                       file, spectrometer->wavelength_nm_min, spectrometer->wavelength_nm_max);
    return is_epics ? 0 : check_address("spectrometer", spectrometer->address, file, err);
}

/* What is not known from the thermometer must not be taken for better known than what is. */
static int check_temperature(const struct beamline_ruby *ruby, const char *file, struct err *err)
{
    if (!ruby->temperature_pv[0] && ruby->temperature_k_sigma_lost >= 0)
        return err_set(
            err, ERR_CONFIG,
            "%s: ruby: temperature_k_sigma_lost is given, but no temperature_pv that could be lost; leave it "
            "out, or name the thermometer",
            file);
    if (ruby->temperature_k_sigma_lost >= 0 && !(ruby->temperature_k_sigma_lost > ruby->temperature_k_sigma))
        return err_set(err, ERR_CONFIG,
                       "%s: ruby: temperature_k_sigma_lost %g K refused: expected more than temperature_k_sigma %g K, "
                       "which is of a thermometer that is believed",
                       file, ruby->temperature_k_sigma_lost, ruby->temperature_k_sigma);
    return 0;
}

/* A fast clock must never meet a real instrument. */
static int check_clock(const struct beamline *beamline, const char *file, struct err *err)
{
    if (strcmp(beamline->clock, "real") == 0)
        return 0;
    const struct {
        const char *instrument, *address;
    } devices[] = {{"membrane controller", beamline->membrane.address},
                   {"spectrometer", beamline->spectrometer.address}};
    char host[96];
    int port;
    for (int i = 0; i < COUNT_OF(devices); i++)
        if (devices[i].address[0] &&
            (!split_host(devices[i].address + 4, host, sizeof host, &port) || !host_is_loopback(host)))
            return refuse_fast_clock(beamline, file, devices[i].instrument, devices[i].address, err);
    for (const char *word = beamline->ca_address; *(word += strspn(word, " ")); word += strcspn(word, " ")) {
        char address[sizeof beamline->ca_address];
        snprintf(address, sizeof address, "%.*s", (int)strcspn(word, " "), word);
        if (!split_host(address, host, sizeof host, &port) || !host_is_loopback(host))
            return refuse_fast_clock(beamline, file, "IOCs (ca_address)", address, err);
    }
    return 0;
}

/* ---- the whole
 * -------------------------------------------------------------------------------------------------------- */

/* Optics that are in the beam or not, and never half: all of their PVs, or none. */
static int check_access(const struct beamline_ruby *ruby, const char *file, struct err *err)
{
    bool is_between_scans = strcmp(ruby->ruby_access, "between_scans") == 0;
    const struct {
        const char *key, *pv;
    } pvs[] = {{"optics_pv", ruby->optics_pv},
               {"optics_readback_pv", ruby->optics_readback_pv},
               {"laser_pv", ruby->laser_pv},
               {"laser_readback_pv", ruby->laser_readback_pv}};
    if (!is_between_scans && strcmp(ruby->ruby_access, "always") != 0)
        return err_set(err, ERR_CONFIG, "%s: ruby: unknown ruby_access \"%s\" (known: always, between_scans)", file,
                       ruby->ruby_access);
    for (int i = 0; i < COUNT_OF(pvs); i++) {
        if (is_between_scans && !pvs[i].pv[0])
            return err_set(err, ERR_CONFIG,
                           "%s: ruby: missing key '%s': ruby_access = \"between_scans\" moves the optics and the laser "
                           "shutter, and needs optics_pv, optics_readback_pv, laser_pv and laser_readback_pv",
                           file, pvs[i].key);
        if (!is_between_scans && pvs[i].pv[0])
            return err_set(err, ERR_CONFIG,
                           "%s: ruby: %s is given, but with ruby_access = \"always\" nothing moves; leave it out, or "
                           "say ruby_access = \"between_scans\"",
                           file, pvs[i].key);
    }
    if (!is_between_scans && ruby->settle_s >= 0)
        return err_set(err, ERR_CONFIG,
                       "%s: ruby: settle_s is given, but with ruby_access = \"always\" nothing moves; leave it out, or "
                       "say ruby_access = \"between_scans\"",
                       file);
    return 0;
}

static int check_name(const char *key, const char *name, const char *known, const char *file, struct err *err)
{
    size_t length = strlen(name);
    for (const char *other = known; *other; other += strcspn(other, ","), other += strspn(other, ", "))
        if (strcspn(other, ",") == length && strncmp(other, name, length) == 0)
            return 0;
    return err_set(err, ERR_CONFIG, "%s: ruby: unknown %s \"%s\" (known: %s)", file, key, name, known);
}

/* The tables are in analysis/ruby_scale.c, which is not to be included here; a test holds the two together. */
static int check_ruler(const struct beamline_ruby *ruby, const char *file, struct err *err)
{
    static const char SCALES[] = "ruby2020, mao1986, forman1972, piermarini1975, mao1978, dewaele2004, chijioke2005, "
                                 "dorogokupets2007, dewaele2008, jacobsen2008, wei2011, liu2013";
    int code = check_name("scale", ruby->scale, SCALES, file, err);
    if (code == 0)
        code = check_name("correction", ruby->correction, "datchi2007, ragan1992, vos1991", file, err);
    return code;
}

static int check_beamline(const struct beamline *beamline, const char *file, struct err *err)
{
    int code = check_membrane(&beamline->membrane, file, err);
    if (code == 0)
        code = check_spectrometer(&beamline->spectrometer, file, err);
    if (code == 0)
        code = check_detector(&beamline->detector, file, err);
    if (code == 0)
        code = check_ruler(&beamline->ruby, file, err);
    if (code == 0)
        code = check_temperature(&beamline->ruby, file, err);
    if (code == 0)
        code = check_access(&beamline->ruby, file, err);
    if (code < 0)
        return code;
    if (beamline->ca_address[strspn(beamline->ca_address, " ")] == '\0')
        return err_set(err, ERR_CONFIG, "%s: beamline: ca_address is empty; expected like \"127.0.0.1:5064\"", file);
    return check_clock(beamline, file, err);
}

static int build(struct beamline *beamline, const struct record_list *list, struct err *err)
{
    bool have[SECTION_COUNT] = {false};
    for (int32_t i = 0; i < list->n_items; i++) {
        if (list->items[i].type != RECORD_CALL)
            continue;
        int section = 0;
        while (section < SECTION_COUNT && strcmp(SECTIONS[section], list->items[i].key) != 0)
            section++;
        if (section == SECTION_COUNT || have[section])
            return record_refuse(list, i, ERR_CONFIG, err, "given twice; one beamline has one of each");
        int code = record_read(list, i, FIELDS[section].fields, FIELDS[section].n_fields, beamline, err);
        if (code < 0)
            return code;
        have[section] = true;
    }
    for (int section = 0; section < SECTION_COUNT; section++)
        if (!have[section])
            return err_set(err, ERR_CONFIG, "%s: missing section %s { ... }", list->file, SECTIONS[section]);
    if (beamline->ruby.temperature_k == 0) /* not given: its least value is above zero */
        beamline->ruby.temperature_k = beamline->ruby.temperature_k_zero;
    int code = check_beamline(beamline, list->file, err);
    if (beamline->ruby.settle_s < 0) /* not given */
        beamline->ruby.settle_s = SETTLE_S;
    double lost_k = LOST_FACTOR * beamline->ruby.temperature_k_sigma;
    if (beamline->ruby.temperature_k_sigma_lost < 0) /* not given */
        beamline->ruby.temperature_k_sigma_lost = lost_k > LOST_K_MIN ? lost_k : LOST_K_MIN;
    return code;
}

int beamline_read(struct beamline *ret_beamline, const char *text, const char *name, struct err *err)
{
    static const struct sandbox_rules RULES = {.what = "beamline file",
                                               .constructors = SECTIONS,
                                               .n_constructors = SECTION_COUNT,
                                               .n_calls_max = 2 * SECTION_COUNT};
    static const struct beamline DEFAULTS = {
        .clock = "real",
        .membrane.unit_id = 1,
        .spectrometer = {.wavelength_nm_min = 690, .wavelength_nm_max = 705},
        .ruby = {.scale = "ruby2020",
                 .correction = "datchi2007",
                 .temperature_k_zero = 296,
                 .temperature_k_sigma = 1,
                 .temperature_k_sigma_lost = -1,
                 .ruby_access = "always",
                 .settle_s = -1},
    };
    struct beamline *beamline = malloc(sizeof *beamline);
    struct record_list *list = NULL;
    if (!beamline)
        return err_set(err, ERR_SYSTEM, "no memory for the beamline of %s", name);
    *beamline = DEFAULTS;
    int code = 0;
    if (strlen(text) < sizeof beamline->source)
        memcpy(beamline->source, text, strlen(text) + 1);
    else
        code = err_set(err, ERR_CONFIG, "%s is longer than %zu bytes", name, sizeof beamline->source - 1);
    if (code == 0)
        code = sandbox_evaluate(&list, beamline->source, name, &RULES, err);
    if (code == 0)
        code = build(beamline, list, err);
    if (code == 0)
        *ret_beamline = *beamline;
    free(list);
    free(beamline);
    return code;
}

int beamline_load(struct beamline *ret_beamline, const char *path, struct err *err)
{
    char *text = malloc(sizeof ret_beamline->source);
    if (!text)
        return err_set(err, ERR_SYSTEM, "no memory for the beamline of %s", path);
    int code = sandbox_read_file(text, sizeof ret_beamline->source, path, err);
    if (code == 0)
        code = beamline_read(ret_beamline, text, path, err);
    free(text);
    return code;
}
