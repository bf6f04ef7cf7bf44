/*
 * Goal: a beamline file is read exactly or refused in a sentence, and a fast clock never meets an instrument that is
 * not on this machine's loopback. Method: one good file as a list of lines; each refusal replaces one line of it and
 * must be told apart by its sentence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "sequences/beamline.h"

enum line { BEAMLINE, MEMBRANE, SPECTROMETER, RUBY, DETECTOR, RING, LINE_COUNT };

static const char *const GOOD[LINE_COUNT] = {
    "beamline { name = 'demo', clock = '/w/clock', ca_address = '127.0.0.1:5064' }",
    "membrane { driver = 'bronkhorst', address = 'tcp:127.0.0.1:1502', membrane_bar_max = 150, slew_bar_per_min_max = "
    "20 }",
    "spectrometer { driver = 'ocean-optics', address = 'tcp:localhost:1503', exposure = '0.5 s' }",
    "ruby { lambda0_nm = 694.26 }",
    "detector { driver = 'adeiger', prefix = 'ISB:cam1:', file_path = '/data', photon_energy = '20.95 keV', distance = "
    "'5 m', "
    "beam_center_x_px = 128, beam_center_y_px = 120.5 }",
    "ring { current_pv = 'ISB:RING:Current', current_ma_min = 20 }",
};

static char path[] = "/tmp/isobar-beamline-XXXXXX";
static struct beamline beamline;
static struct err err;

static int make_file(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

/* The good file with one line replaced (NULL: left out). */
static int load_with(enum line replaced, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < LINE_COUNT; i++)
        fprintf(file, "%s\n", i != (int)replaced ? GOOD[i] : text ? text : "");
    fclose(file);
    err = (struct err){0};
    return beamline_load(&beamline, path, &err);
}

static void expect_good(enum line replaced, const char *text)
{
    if (load_with(replaced, text) < 0)
        fail_msg("%s\n refused: %s", text ? text : "", err.message);
}

static void everything_arrives_where_it_belongs(void **state)
{
    (void)state;
    expect_good(LINE_COUNT, NULL);
    assert_string_equal(beamline.name, "demo");
    assert_string_equal(beamline.clock, "/w/clock");
    assert_string_equal(beamline.ca_address, "127.0.0.1:5064");
    assert_string_equal(beamline.membrane.driver, "bronkhorst");
    assert_string_equal(beamline.membrane.address, "tcp:127.0.0.1:1502");
    assert_int_equal(beamline.membrane.unit_id, 1);
    assert_true(beamline.membrane.membrane_bar_max == 150 && beamline.membrane.slew_bar_per_min_max == 20);
    assert_string_equal(beamline.spectrometer.driver, "ocean-optics");
    assert_string_equal(beamline.spectrometer.address, "tcp:localhost:1503");
    assert_true(beamline.spectrometer.exposure_s == 0.5);
    assert_true(beamline.spectrometer.wavelength_offset_nm == 0 && beamline.spectrometer.wavelength_slope == 0);
    assert_true(beamline.spectrometer.wavelength_nm_min == 690 && beamline.spectrometer.wavelength_nm_max == 705);
    assert_string_equal(beamline.ruby.scale, "ruby2020");
    assert_true(beamline.ruby.lambda0_nm == 694.26 && beamline.ruby.temperature_k_zero == 296 &&
                beamline.ruby.temperature_k == 296);
    assert_string_equal(beamline.detector.driver, "adeiger");
    assert_string_equal(beamline.detector.prefix, "ISB:cam1:");
    assert_string_equal(beamline.detector.file_path, "/data");
    assert_true(beamline.detector.photon_energy_ev == 20950 && beamline.detector.distance_m == 5);
    assert_true(beamline.detector.beam_center_x_px == 128 && beamline.detector.beam_center_y_px == 120.5);
    assert_string_equal(beamline.ring.current_pv, "ISB:RING:Current");
    assert_true(beamline.ring.current_ma_min == 20);
    assert_non_null(strstr(beamline.source, "ruby { lambda0_nm = 694.26 }\n"));

    expect_good(BEAMLINE, "beamline { name = 'demo', ca_address = '10.1.2.3 ioc.example:5070' }");
    assert_string_equal(beamline.clock, "real");
    expect_good(RUBY,
                "ruby { scale = 'mao1986', lambda0 = '694.26 nm', temperature_k_zero = 295, temperature = '300 K' }");
    assert_true(beamline.ruby.temperature_k == 300 && beamline.ruby.temperature_k_zero == 295);
    expect_good(RUBY, "ruby { lambda0_nm = 694.26, temperature_k_zero = 290, lambda0_nm_sigma = 0.004 }");
    assert_true(beamline.ruby.lambda0_nm_sigma == 0.004);
    assert_true(beamline.ruby.temperature_k == 290);
    assert_string_equal(beamline.ruby.ruby_access, "always");
    expect_good(RUBY, "ruby { lambda0_nm = 694.26, ruby_access = 'always' }");
    expect_good(RUBY,
                "ruby { lambda0_nm = 694.26, ruby_access = 'between_scans', optics_pv = 'A', optics_readback_pv = "
                "'B', laser_pv = 'C', laser_readback_pv = 'D' }");
    assert_string_equal(beamline.ruby.ruby_access, "between_scans");
    assert_string_equal(beamline.ruby.optics_pv, "A");
    assert_string_equal(beamline.ruby.optics_readback_pv, "B");
    assert_string_equal(beamline.ruby.laser_pv, "C");
    assert_string_equal(beamline.ruby.laser_readback_pv, "D");
    assert_true(beamline.ruby.settle_s == 5);
    expect_good(RUBY,
                "ruby { lambda0_nm = 694.26, ruby_access = 'between_scans', optics_pv = 'A', optics_readback_pv = "
                "'B', laser_pv = 'C', laser_readback_pv = 'D', settle = '0 s' }");
    assert_true(beamline.ruby.settle_s == 0);
    assert_true(beamline.ruby.temperature_pv[0] == '\0' && beamline.ruby.temperature_k_sigma == 1);
    expect_good(RUBY, "ruby { lambda0_nm = 694.26, temperature_pv = 'T', temperature_k_sigma = 0.2 }");
    assert_string_equal(beamline.ruby.temperature_pv, "T");
    assert_true(beamline.ruby.temperature_k_sigma_lost == 2);
    expect_good(RUBY, "ruby { lambda0_nm = 694.26, temperature_pv = 'T', temperature_k_sigma = 4 }");
    assert_true(beamline.ruby.temperature_k_sigma_lost == 12);
    expect_good(RUBY, "ruby { lambda0_nm = 694.26, temperature_pv = 'T', temperature_k_sigma_lost = 5 }");
    assert_true(beamline.ruby.temperature_k_sigma_lost == 5);
    expect_good(SPECTROMETER,
                "spectrometer { driver = 'epics-waveforms', exposure = '0.5 s', wavelength_pv = 'W', "
                "counts_pv = 'C', exposure_pv = 'E', acquire_pv = 'A', busy_pv = 'B', counts_saturation = "
                "4095 }");
    assert_string_equal(beamline.spectrometer.wavelength_pv, "W");
    assert_string_equal(beamline.spectrometer.counts_pv, "C");
    assert_string_equal(beamline.spectrometer.exposure_pv, "E");
    assert_string_equal(beamline.spectrometer.acquire_pv, "A");
    assert_string_equal(beamline.spectrometer.busy_pv, "B");
    assert_true(beamline.spectrometer.counts_saturation == 4095 && beamline.spectrometer.exposure_s == 0.5);
    expect_good(RING, "ring { current_pv = 'X', current_min = '0 mA' }");
    expect_good(DETECTOR, "detector { driver = 'adeiger', prefix = 'P', file_path = '/d', photon_energy_ev = 20950, "
                          "distance = '4980 mm', "
                          "beam_center_x_px = -3, beam_center_y_px = 0 }");
    assert_true(beamline.detector.distance_m == 4.98 && beamline.detector.photon_energy_ev == 20950);
}

static void what_cannot_be_is_refused_in_a_sentence(void **state)
{
    (void)state;
    static const struct {
        enum line line;
        const char *text, *part;
    } REFUSALS[] = {
        {RING, NULL, "missing section ring { ... }"},
        {RUBY, "ruby { lambda0_nm = 694.26 } ruby { lambda0_nm = 694.26 }", ":4: ruby: given twice"},
        {RUBY, "rubi { lambda0_nm = 694.26 }", ":4: unknown name 'rubi'; nearest is 'ruby'"},
        {RUBY, "ruby { lambda_nm = 694.26 }", ":4: ruby: unknown key 'lambda_nm'; nearest is 'lambda0_nm'"},
        {RUBY, "ruby { lambda0 = 694.26 }",
         "lambda0 = 694.26: expected a wavelength with its unit, like \"694.26 nm\""},
        {RUBY, "ruby { lambda0_nm = 694.26, lambda0 = '694.26 nm' }", "lambda0 and lambda0_nm say the same: give one"},
        {RUBY, "ruby { }", "ruby: missing key 'lambda0'"},
        {RUBY, "ruby { lambda0_nm = 964.26 }", "lambda0_nm = 964.26: expected 690 to 698"},
        {RUBY, "ruby { lambda0_nm = 694.26, temperature = '23 C' }", "expected a temperature in K"},
        {RUBY, "ruby { lambda0_nm = 694.26, scale = 'mao86' }",
         "ruby: unknown scale \"mao86\" (known: ruby2020, mao1986, forman1972,"},
        {RUBY, "ruby { lambda0_nm = 694.26, ruby_access = 'sometimes' }",
         "ruby: unknown ruby_access \"sometimes\" (known: always, between_scans)"},
        {RUBY, "ruby { lambda0_nm = 694.26, ruby_access = 'between_scans' }", "ruby: missing key 'optics_pv'"},
        {RUBY,
         "ruby { lambda0_nm = 694.26, ruby_access = 'between_scans', optics_pv = 'A', optics_readback_pv = 'B', "
         "laser_pv "
         "= 'C' }",
         "ruby: missing key 'laser_readback_pv': ruby_access = \"between_scans\" moves the optics"},
        {RUBY, "ruby { lambda0_nm = 694.26, laser_pv = 'C' }",
         "ruby: laser_pv is given, but with ruby_access = \"always\" nothing moves; leave it out, or say"},
        {RUBY, "ruby { lambda0_nm = 694.26, settle_s = 3 }",
         "ruby: settle_s is given, but with ruby_access = \"always\" nothing moves"},
        {RUBY, "ruby { lambda0_nm = 694.26, settle_s = -1 }", "settle_s = -1: expected 0 to 600"},
        {BEAMLINE, "beamline { name = 'x', clock = 'real' }", "beamline: missing key 'ca_address'"},
        {BEAMLINE, "beamline { name = 'x', clock = 'real', ca_address = '  ' }", "ca_address is empty"},
        {SPECTROMETER, "spectrometer { driver = 'ocean', address = 'tcp:127.0.0.1:1503', exposure = '0.5 s' }",
         "spectrometer: unknown driver \"ocean\" (known: ocean-optics, epics-waveforms)"},
        {SPECTROMETER, "spectrometer { driver = 'ocean-optics', exposure = '0.5 s' }",
         "spectrometer: address = \"\": expected tcp:HOST:PORT or serial:/PATH:BAUD"},
        {SPECTROMETER,
         "spectrometer { driver = 'ocean-optics', address = 'tcp:127.0.0.1:1503', exposure = '0.5 s', busy_pv = 'B' }",
         "busy_pv is for driver = \"epics-waveforms\"; leave it out"},
        {SPECTROMETER,
         "spectrometer { driver = 'epics-waveforms', exposure = '0.5 s', wavelength_pv = 'W', counts_pv = 'C', "
         "exposure_pv = 'E', acquire_pv = 'A', counts_saturation = 4095 }",
         "spectrometer: missing key 'busy_pv': driver = \"epics-waveforms\" needs"},
        {SPECTROMETER,
         "spectrometer { driver = 'epics-waveforms', exposure = '0.5 s', wavelength_pv = 'W', counts_pv = 'C', "
         "exposure_pv = 'E', acquire_pv = 'A', busy_pv = 'B' }",
         "spectrometer: missing key 'counts_saturation'"},
        {SPECTROMETER,
         "spectrometer { driver = 'epics-waveforms', address = 'tcp:127.0.0.1:1', exposure = '0.5 s', wavelength_pv = "
         "'W', counts_pv = 'C', exposure_pv = 'E', acquire_pv = 'A', busy_pv = 'B', counts_saturation = 4095 }",
         "spectrometer: address is for driver = \"ocean-optics\""},
        {RUBY, "ruby { lambda0_nm = 694.26, temperature_k_sigma_lost = 5 }",
         "temperature_k_sigma_lost is given, but no temperature_pv that could be lost"},
        {RUBY,
         "ruby { lambda0_nm = 694.26, temperature_pv = 'T', temperature_k_sigma = 1, temperature_k_sigma_lost = 1 }",
         "temperature_k_sigma_lost 1 K refused: expected more than temperature_k_sigma 1 K"},
        {MEMBRANE,
         "membrane { driver = 'bronkhurst', address = 'tcp:127.0.0.1:1502', membrane_bar_max = 150, "
         "slew_bar_per_min_max = 20 }",
         "membrane: unknown driver \"bronkhurst\" (known: bronkhorst, alicat, pace)"},
        {MEMBRANE,
         "membrane { driver = 'bronkhorst', address = 'tcp:127.0.0.1', membrane_bar_max = 150, slew_bar_per_min_max = "
         "20 }",
         "address = \"tcp:127.0.0.1\": expected tcp:HOST:PORT or serial:/PATH:BAUD"},
        {MEMBRANE,
         "membrane { driver = 'bronkhorst', address = 'tcp:127.0.0.1:70000', membrane_bar_max = 150, "
         "slew_bar_per_min_max = 20 }",
         "expected tcp:HOST:PORT"},
        {MEMBRANE,
         "membrane { driver = 'bronkhorst', address = 'udp:127.0.0.1:1502', membrane_bar_max = 150, "
         "slew_bar_per_min_max = 20 }",
         "expected tcp:HOST:PORT"},
        {MEMBRANE,
         "membrane { driver = 'bronkhorst', address = 'tcp:127.0.0.1:1502', membrane_bar_max = -1, "
         "slew_bar_per_min_max = 20 }",
         "membrane_bar_max = -1: expected 1 to 250"},
        {MEMBRANE,
         "membrane { driver = 'bronkhorst', address = 'tcp:127.0.0.1:1502', membrane_bar_max = 0/0, "
         "slew_bar_per_min_max = 20 }",
         "nan: expected 1 to 250"},
        {MEMBRANE,
         "membrane { driver = 'bronkhorst', address = 'tcp:127.0.0.1:1502', unit_id = 248, membrane_bar_max = 150, "
         "slew_bar_per_min_max = 20 }",
         "unit_id = 248: expected 1 to 247"},
        {MEMBRANE,
         "membrane { driver = 'pace', address = 'serial:ttyS0:9600', membrane_bar_max = 150, slew_bar_per_min_max = 8 "
         "}",
         "address = \"serial:ttyS0:9600\": expected tcp:HOST:PORT or serial:/PATH:BAUD"},
        {MEMBRANE,
         "membrane { driver = 'alicat', address = 'tcp:127.0.0.1:502', membrane_bar_max = 150, slew_bar_per_min_max = "
         "8 }",
         "membrane: missing key 'full_scale_bar': an Alicat cannot be asked for it"},
        {MEMBRANE,
         "membrane { driver = 'alicat', address = 'tcp:127.0.0.1:502', full_scale_bar = 200, membrane_bar_max = 150, "
         "slew_bar_per_min_max = 8 }",
         "membrane: expected watchdog = \"off\": an Alicat with its communication watchdog on sets its set point to "
         "zero "
         "when the bus falls silent, and cannot be asked; switch it off at the controller, then say so here"},
        {MEMBRANE,
         "membrane { driver = 'pace', address = 'tcp:127.0.0.1:5025', watchdog = 'off', membrane_bar_max = 150, "
         "slew_bar_per_min_max = 8 }",
         "membrane: full_scale_bar and watchdog are for driver = \"alicat\"; a pace is asked; leave them out"},
        {SPECTROMETER,
         "spectrometer { driver = 'ocean-optics', address = 'tcp:127.0.0.1:1', exposure = '0.5 s', "
         "wavelength_offset_nm = "
         "3 }",
         "wavelength_offset_nm = 3"},
        {SPECTROMETER, "spectrometer { driver = 'ocean-optics', address = 'tcp:127.0.0.1:1', exposure = 0.5 }",
         "exposure = 0.5: expected a time with its unit"},
        {SPECTROMETER,
         "spectrometer { driver = 'ocean-optics', address = 'tcp:127.0.0.1:1', exposure = '0.5 s', wavelength_nm_min = "
         "710 }",
         "wavelength_nm_min 710 is not below wavelength_nm_max 705"},
        {RING, "while true do end", "beamline file"},
    };
    for (size_t i = 0; i < sizeof REFUSALS / sizeof REFUSALS[0]; i++) {
        int code = load_with(REFUSALS[i].line, REFUSALS[i].text);
        if (code >= 0 || !strstr(err.message, REFUSALS[i].part))
            fail_msg("expected \"%s\" in: %d %s", REFUSALS[i].part, code, err.message);
    }
}

static void a_fast_clock_meets_only_the_loopback(void **state)
{
    (void)state;
    static const struct {
        const char *host;
        int loopback;
    } HOSTS[] = {
        {"127.0.0.1", 1},
        {"127.255.1.9", 1},
        {"localhost", 1},
        {"[::1]", 1},
        {"128.0.0.1", 0},
        {"126.0.0.1", 0},
        {"10.0.0.1", 0},
        {"0.0.0.0", 0},
        {"127.1", 0},
        {"0127.0.0.1", 0},
        {"127.0.0.1.example", 0},
        {"localhost.", 0},
        {"LOCALHOST", 0},
        {"membrane", 0},
        {"[::]", 0},
        {"[::2]", 0},
        {"[fe80::1]", 0},
        {"1.127.0.0", 0},
        {"[::ffff:10.0.0.1]", 0},
        {"2130706433", 0},
    };
    for (size_t i = 0; i < sizeof HOSTS / sizeof HOSTS[0]; i++) {
        char text[300];
        const struct {
            enum line line;
            const char *format, *instrument;
        } PLACES[] = {
            {MEMBRANE,
             "membrane { driver = 'bronkhorst', address = 'tcp:%s:1502', membrane_bar_max = 150, slew_bar_per_min_max "
             "= 20 }",
             "the membrane controller at"},
            {SPECTROMETER, "spectrometer { driver = 'ocean-optics', address = 'tcp:%s:1503', exposure = '0.5 s' }",
             "the spectrometer at"},
            {BEAMLINE, "beamline { name = 'x', clock = '/w/clock', ca_address = '%s:5064' }",
             "the IOCs (ca_address) at"},
            {BEAMLINE, "beamline { name = 'x', clock = '/w/clock', ca_address = '127.0.0.1 %s' }",
             "the IOCs (ca_address) at"},
        };
        for (size_t j = 0; j < sizeof PLACES / sizeof PLACES[0]; j++) {
            snprintf(text, sizeof text, PLACES[j].format, HOSTS[i].host);
            int code = load_with(PLACES[j].line, text);
            if (code != (HOSTS[i].loopback ? 0 : ERR_LIMIT))
                fail_msg("%s gave %d: %s", text, code, err.message);
            if (code < 0 && (!strstr(err.message, PLACES[j].instrument) || !strstr(err.message, HOSTS[i].host)))
                fail_msg("expected \"%s\" in: %s", PLACES[j].instrument, err.message);
        }
    }
}

static void a_failure_writes_nothing(void **state)
{
    (void)state;
    memset(&beamline, 0x5a, sizeof beamline);
    assert_int_equal(load_with(RING, "ring { current_pv = 'x', current_ma_min = -1 }"), ERR_CONFIG);
    for (size_t i = 0; i < sizeof beamline; i++)
        assert_int_equal(((unsigned char *)&beamline)[i], 0x5a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_arrives_where_it_belongs),
        cmocka_unit_test(what_cannot_be_is_refused_in_a_sentence),
        cmocka_unit_test(a_fast_clock_meets_only_the_loopback),
        cmocka_unit_test(a_failure_writes_nothing),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
