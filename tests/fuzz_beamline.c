/*
 * Parser: a beamline file, through the sandbox and the records (sequences/beamline). Property: what is accepted has
 * addresses that can be opened, limits that limit, and a fast clock only on loopback; its recorded text reads the same.
 */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "drivers/address.h"
#include "sequences/beamline.h"
#include "tests/fuzz.h"

const char *const fuzz_words[] = {"beamline",
                                  "membrane",
                                  "spectrometer",
                                  "ruby",
                                  "detector",
                                  "ring",
                                  "{",
                                  "}",
                                  "=",
                                  ",",
                                  "name",
                                  "clock",
                                  "ca_address",
                                  "driver",
                                  "address",
                                  "unit_id",
                                  "full_scale_bar",
                                  "watchdog",
                                  "membrane_bar_max",
                                  "slew_bar_per_min_max",
                                  "exposure",
                                  "lambda0_nm",
                                  "scale",
                                  "correction",
                                  "ruby_access",
                                  "'between_scans'",
                                  "'tcp:127.0.0.1:502'",
                                  "'serial:/dev/ttyUSB0:9600'",
                                  "'192.0.2.1:5064'",
                                  "1e308",
                                  "-1",
                                  "0/0",
                                  "1/0",
                                  NULL};

#define COMMON                                                                                                         \
    "spectrometer { driver = 'ocean-optics', address = 'tcp:127.0.0.1:1503', exposure = '0.5 s' }\n"                   \
    "detector { driver = 'adeiger', prefix = 'ISB:cam1:', file_path = '/data', photon_energy = '20.95 keV', "          \
    "distance = '5 m', beam_center_x_px = 128, beam_center_y_px = 120.5 }\n"                                           \
    "ring { current_pv = 'ISB:RING:Current', current_ma_min = 20 }\n"

void fuzz_plant_seeds(void)
{
    static const char *const TEXTS[] = {
        "beamline { name = 'demo', clock = '/w/clock', ca_address = '127.0.0.1:5064' }\n"
        "membrane { driver = 'bronkhorst', address = 'tcp:127.0.0.1:1502', membrane_bar_max = 150, "
        "slew_bar_per_min_max = 20 }\nruby { lambda0_nm = 694.26 }\n" COMMON,
        "beamline { name = 'ID10', ca_address = '192.0.2.10:5064' }\n"
        "membrane { driver = 'alicat', address = 'serial:/dev/ttyUSB0:19200', unit_id = 3, full_scale_bar = 200, "
        "watchdog = 'off', membrane_bar_max = 150, slew_bar_per_min_max = 8 }\n"
        "ruby { scale = 'dewaele2008', lambda0_nm = 694.25, temperature_k_zero = 296, temperature_k = 300, "
        "temperature_k_sigma = 0.5, correction = 'ragan1992', ruby_access = 'between_scans', settle_s = 5, optics_pv = "
        "'A', optics_readback_pv = 'B', laser_pv = 'C', laser_readback_pv = 'D' }\n" COMMON};
    for (size_t i = 0; i < sizeof TEXTS / sizeof TEXTS[0]; i++)
        fuzz_plant(TEXTS[i], strlen(TEXTS[i]));
}

static void check(const struct beamline *beamline)
{
    const struct beamline_membrane *membrane = &beamline->membrane;
    struct address address;
    struct err err = {0};
    FUZZ_CHECK(address_parse(&address, membrane->address, &err) == 0, "%s", err.message);
    FUZZ_CHECK(address_parse(&address, beamline->spectrometer.address, &err) == 0, "%s", err.message);
    FUZZ_CHECK(membrane->membrane_bar_max > 0 && membrane->membrane_bar_max <= 1000 &&
                   membrane->slew_bar_per_min_max > 0 && isfinite(membrane->slew_bar_per_min_max),
               "%g bar, %g bar/min", membrane->membrane_bar_max, membrane->slew_bar_per_min_max);
    FUZZ_CHECK(membrane->unit_id >= 0 && membrane->unit_id <= 255, "unit %d", membrane->unit_id);
    FUZZ_CHECK(beamline->spectrometer.exposure_s > 0 && beamline->spectrometer.exposure_s <= 65, "exposure %g s",
               beamline->spectrometer.exposure_s);
    FUZZ_CHECK(beamline->spectrometer.wavelength_nm_min < beamline->spectrometer.wavelength_nm_max,
               "window %g to %g nm", beamline->spectrometer.wavelength_nm_min,
               beamline->spectrometer.wavelength_nm_max);
    FUZZ_CHECK(beamline->ruby.lambda0_nm > 600 && beamline->ruby.lambda0_nm < 800, "lambda0 %g nm",
               beamline->ruby.lambda0_nm);
    FUZZ_CHECK(beamline->ruby.temperature_k > 0 && beamline->ruby.temperature_k_zero > 0 &&
                   beamline->ruby.temperature_k_sigma >= 0 && isfinite(beamline->ruby.temperature_k),
               "ruby at %g K", beamline->ruby.temperature_k);
    FUZZ_CHECK(isfinite(beamline->detector.distance_m) && beamline->detector.photon_energy_ev > 0, "detector at %g m",
               beamline->detector.distance_m);
    FUZZ_CHECK(isfinite(beamline->ring.current_ma_min), "%g mA", beamline->ring.current_ma_min);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct beamline beamline, again;
    static char text[sizeof beamline.source];
    struct err err = {0};
    if (size >= sizeof text || memchr(data, 0, size))
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    memset(&beamline, 0, sizeof beamline);
    memset(&again, 0, sizeof again);
    if (beamline_read(&beamline, text, "beamline.lua", &err)) {
        FUZZ_CHECK(err.message[0], "refused without a sentence");
        return 0;
    }
    check(&beamline);
    FUZZ_CHECK(beamline_read(&again, beamline.source, "beamline.lua", &err) == 0 &&
                   memcmp(&again, &beamline, sizeof again) == 0,
               "%s", err.message);
    return 0;
}
