#include "controller/examine.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#include "analysis/ruby.h"
#include "controller/ruby_link.h"
#include "controller/temperature.h"
#include "db/store.h"
#include "drivers/eiger.h"
#include "drivers/membrane.h"
#include "drivers/ring.h"
#include "drivers/spectrometer.h"
#include "drivers/thermometer.h"

#define CONNECT_S 3.0
#define READY_S 2.0
#define EPICS_EPOCH_S 631152000.0 /* 1990 */
#define STAMP_S_DOUBT 60.0
#define FREE_GB_BAD 1.0
#define FREE_GB_DOUBT 10.0
#define CLOCK_S_DOUBT 0.1 /* the run's times go beside those of the detector and the ring */

static void examine_membrane(const struct beamline_membrane *beamline, struct doctor_report *report)
{
    const struct membrane_settings settings = {.driver = beamline->driver,
                                               .address = beamline->address,
                                               .unit_id = beamline->unit_id,
                                               .full_scale_bar = beamline->full_scale_bar,
                                               .membrane_bar_max = beamline->membrane_bar_max,
                                               .slew_bar_per_min_max = beamline->slew_bar_per_min_max};
    struct membrane *membrane = NULL;
    struct membrane_reading reading;
    struct err err = {0};
    if (membrane_open(&membrane, &settings, &err) || membrane_read(membrane, &reading, &err)) {
        doctor_add_failure(report, DOCTOR_MEMBRANE, DOCTOR_LINE, &err);
    } else {
        char supply[40] = "";
        if (!isnan(reading.supply_bar))
            snprintf(supply, sizeof supply, ", supply %.1f bar", reading.supply_bar);
        doctor_add(report, DOCTOR_MEMBRANE, reading.is_following ? DOCTOR_GOOD : DOCTOR_DOUBT,
                   reading.is_following ? ""
                                        : "control mode and valves at the controller: it does not follow its set point",
                   "%s at %s: %.2f bar, set point %.2f bar, full scale %.0f bar, slew %.3g bar/min%s", beamline->driver,
                   beamline->address, reading.membrane_bar, reading.membrane_bar_setpoint, reading.capacity_bar,
                   reading.slew_bar_per_min, supply);
    }
    membrane_close(membrane);
}

/* A cell that is not in place yet is no fault of the spectrometer. */
static void examine_ruby(const struct beamline *beamline, const struct spectrum *spectrum,
                         const struct examine_temperature *temperature, struct doctor_report *report)
{
    static const char advice[] = "laser, shutter and focus, if a ruby should be in view";
    struct ruby_fit fit;
    struct err err = {0};
    const struct beamline_ruby *ruby = &beamline->ruby;
    const struct ruby_camera camera = {spectrum->counts_saturation, beamline->spectrometer.fringe_max};
    if (ruby_fit_spectrum(spectrum->wavelength_nm, spectrum->counts, spectrum->n, &camera, NULL, &fit, &err)) {
        doctor_add(report, DOCTOR_RUBY, DOCTOR_DOUBT, advice, "%s", err.message);
        return;
    }
    const struct ruby_ruler ruler = {ruby_scale_by_name(ruby->scale), ruby_correction_by_name(ruby->correction),
                                     ruby->lambda0_nm, ruby->temperature_k_zero};
    struct ruby_pressure pressure = {NAN, NAN, NAN, NAN};
    char warning[300];
    ruby_warning_text(&fit, warning, sizeof warning);
    if (ruler.scale)
        pressure = ruby_ruler_derive(&ruler, fit.r1_nm, fit.r1_nm_sigma, temperature->k, temperature->k_sigma);
    doctor_add(report, DOCTOR_RUBY, warning[0] ? DOCTOR_DOUBT : DOCTOR_GOOD, warning,
               "R1 %.3f +- %.4f nm, %.0f counts high, %.2f nm wide: %.3f +- %.3f GPa on %s with lambda0 %.3f nm, "
               "at %.2f +- %.2g K",
               fit.r1_nm, fit.r1_nm_sigma, fit.amplitude_counts, fit.r1_nm_fwhm, pressure.gpa, pressure.gpa_sigma,
               ruby->scale, ruby->lambda0_nm, temperature->k, temperature->k_sigma);
}

/* Where it was found, and on what terms. */
static void name_place(const struct beamline_spectrometer *settings, const struct spectrometer_terms *terms,
                       char *ret_text, size_t size)
{
    if (terms->baud && terms->baud_found != terms->baud)
        snprintf(ret_text, size, "%s, found at %d baud and brought to %d", settings->address, terms->baud_found,
                 terms->baud);
    else if (terms->baud)
        snprintf(ret_text, size, "%s, found at %d baud", settings->address, terms->baud);
    else
        snprintf(ret_text, size, "%s", settings->address[0] ? settings->address : settings->counts_pv);
}

void examine_spectrometer(const struct beamline *beamline, struct epics *epics,
                          const struct examine_temperature *temperature, struct doctor_report *report)
{
    static struct spectrum spectrum; /* 64 kB */
    const struct beamline_spectrometer *settings = &beamline->spectrometer;
    const struct spectrometer_settings wanted = ruby_link_spectrometer(settings, epics);
    const enum doctor_wire wire = settings->address[0] ? DOCTOR_LINE : DOCTOR_EPICS;
    char place[200];
    struct spectrometer *spectrometer = NULL;
    struct err err = {0};
    int code = wire == DOCTOR_EPICS && !epics
                   ? err_set(&err, ERR_SYSTEM, "spectrometer not looked at: there is no Channel Access")
                   : spectrometer_open(&spectrometer, &wanted, &err);
    if (code == 0)
        code = spectrometer_acquire(spectrometer, settings->exposure_s, &spectrum, &err);
    if (code) {
        doctor_add_failure(report, DOCTOR_SPECTROMETER, wire, &err);
    } else {
        double top = 0;
        for (int i = 0; i < spectrum.n; i++) {
            double from_ruby_nm = spectrum.wavelength_nm[i] - 694.25;
            spectrum.wavelength_nm[i] += settings->wavelength_offset_nm + settings->wavelength_slope * from_ruby_nm;
            top = fmax(top, spectrum.counts[i]);
        }
        const struct spectrometer_terms *terms = spectrometer_terms(spectrometer);
        bool is_saturated = top >= 0.98 * spectrum.counts_saturation;
        name_place(settings, terms, place, sizeof place);
        doctor_add(report, DOCTOR_SPECTROMETER, is_saturated || terms->note[0] ? DOCTOR_DOUBT : DOCTOR_GOOD,
                   is_saturated     ? "the exposure: the spectrum is saturated"
                   : terms->note[0] ? "the baud rate in its address, to which it does not follow"
                                    : "",
                   "%s at %s: %d pixels from %.2f to %.2f nm, up to %.0f of %.0f counts in %g s", settings->driver,
                   place, spectrum.n, spectrum.wavelength_nm[0], spectrum.wavelength_nm[spectrum.n - 1], top,
                   spectrum.counts_saturation, spectrum.exposure_s);
        examine_ruby(beamline, &spectrum, temperature, report);
    }
    spectrometer_close(spectrometer);
}

/* ---- by Channel Access ----------------------------------------------------------------------------------------- */

/* What a channel says, once it has said something; false after CONNECT_S of silence. */
static bool channel_read(struct epics *epics, const char *name, struct epics_value *ret_value)
{
    struct epics_channel *channel;
    uint64_t n_seen = 0;
    int64_t deadline_ns = clock_wall_ns() + ns_from_s(CONNECT_S);
    if (epics_channel_open(&channel, epics, name, NULL))
        return false;
    do
        epics_channel_read(channel, ret_value);
    while (!ret_value->is_known && epics_wait(epics, &n_seen, deadline_ns));
    return ret_value->is_known;
}

static const char IOC_ADVICE[] = "whether the IOC runs, ca_address, and the PV names in the beamline file";

/* Believes it as a run would, in *ret_state as well; `epics` as above. What is stale to a run has not been processed
 * for a minute, which only the stamp of its IOC's clock can tell at one look. */
static void examine_thermometer(const struct beamline_ruby *ruby, struct epics *epics,
                                struct examine_temperature *ret_temperature, struct doctor_report *report)
{
    struct temperature_sample sample = {.t_ns = 0, .wall_ns = clock_wall_ns()};
    struct temperature temperature =
        temperature_begin(ruby->temperature_k, ruby->temperature_k_sigma, ruby->temperature_k_sigma_lost);
    struct thermometer *thermometer = NULL;
    struct err err = {0};
    char text[300];
    *ret_temperature = (struct examine_temperature){ruby->temperature_k, ruby->temperature_k_sigma};
    if (!ruby->temperature_pv[0])
        return;
    int code = epics ? thermometer_open(&thermometer, epics, ruby->temperature_pv, &err)
                     : err_set(&err, ERR_SYSTEM, "thermometer not looked at: there is no Channel Access");
    if (code == 0)
        code = thermometer_read(thermometer, CONNECT_S, &sample.temperature_k, &sample.stamp_ns, &err);
    thermometer_close(thermometer);
    sample.is_read = code == 0;
    struct temperature_use use = temperature_judge(&temperature, &sample);
    *ret_temperature = (struct examine_temperature){use.temperature_k, use.temperature_k_sigma};
    if (!sample.is_read) {
        doctor_add_failure(report, DOCTOR_THERMOMETER, DOCTOR_EPICS, &err);
        return;
    }
    if (temperature.doubt != TEMPERATURE_BELIEVED) {
        temperature_text(&temperature, &use, "", text, sizeof text);
        doctor_add(report, DOCTOR_THERMOMETER, DOCTOR_BAD, "the sensor, and its unit: kelvin", "%s", text);
        return;
    }
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    double age_s = (double)now.tv_sec + (double)now.tv_nsec * 1e-9 - EPICS_EPOCH_S - s_from_ns(sample.stamp_ns);
    bool is_old = !(fabs(age_s) <= STAMP_S_DOUBT);
    doctor_add(report, DOCTOR_THERMOMETER, is_old ? DOCTOR_DOUBT : DOCTOR_GOOD,
               is_old ? "whether its record is scanned, and its IOC's clock" : "",
               "%s: %.2f +- %.2g K, processed %.1f s ago by its IOC's clock", ruby->temperature_pv, use.temperature_k,
               use.temperature_k_sigma, age_s);
}

static void examine_optics(const struct beamline *beamline, struct epics *epics, struct doctor_report *report)
{
    const struct beamline_ruby *ruby = &beamline->ruby;
    const char *const names[] = {ruby->optics_pv, ruby->optics_readback_pv, ruby->laser_pv, ruby->laser_readback_pv};
    struct epics_value values[4];
    if (strcmp(ruby->ruby_access, "between_scans") != 0)
        return; /* nothing is ever moved there */
    for (int i = 0; i < 4; i++)
        if (!channel_read(epics, names[i], &values[i])) {
            doctor_add(report, DOCTOR_OPTICS, DOCTOR_BAD, IOC_ADVICE, "PV %s does not answer within %g s", names[i],
                       CONNECT_S);
            return;
        }
    bool is_valid = values[1].severity < EPICS_INVALID && values[3].severity < EPICS_INVALID;
    doctor_add(report, DOCTOR_OPTICS, is_valid ? DOCTOR_GOOD : DOCTOR_BAD,
               is_valid ? "" : "the stage and the shutter: a readback is invalid", "optics %s, laser shutter %s",
               values[1].text, values[3].text);
}

static void examine_detector(const struct beamline_detector *detector, struct epics *epics,
                             struct doctor_report *report)
{
    struct eiger *eiger;
    struct err err = {0};
    if (eiger_open(&eiger, epics, detector->prefix, &err)) {
        doctor_add_failure(report, DOCTOR_DETECTOR, DOCTOR_EPICS, &err);
        return;
    }
    if (epics_wait_connected(epics, detector->prefix, CONNECT_S, &err))
        doctor_add_failure(report, DOCTOR_DETECTOR, DOCTOR_EPICS, &err);
    else if (eiger_wait_ready(eiger, READY_S, &err))
        doctor_add(report, DOCTOR_DETECTOR, DOCTOR_BAD, "the detector's own screen, and initialize it if it stays so",
                   "%s", err.message);
    else
        doctor_add(report, DOCTOR_DETECTOR, DOCTOR_GOOD, "", "%s at %s every record answers; idle, high voltage ready",
                   detector->driver, detector->prefix);
    eiger_close(eiger);
}

static double free_gb(const char *path)
{
    struct statvfs volume;
    return statvfs(path, &volume) == 0 ? (double)volume.f_bavail * (double)volume.f_frsize / 1e9 : NAN;
}

/* "/data/raw/" and "/data/raw" are one directory: an IOC adds the slash. */
static bool is_same_path(const char *a, const char *b)
{
    size_t n_a = strlen(a), n_b = strlen(b);
    n_a -= n_a > 1 && a[n_a - 1] == '/';
    n_b -= n_b > 1 && b[n_b - 1] == '/';
    return n_a == n_b && memcmp(a, b, n_a) == 0;
}

void examine_files(const struct beamline_detector *detector, struct epics *epics, struct doctor_report *report)
{
    static const char advice[] = "the mount: file_path must lead to the same folder here and on the detector's host";
    char name[128];
    struct stat about;
    struct epics_value path, exists;
    if (stat(detector->file_path, &about) != 0) {
        doctor_add(report, DOCTOR_FILES, DOCTOR_BAD, advice, "file_path %s is not visible here: %s",
                   detector->file_path, strerror(errno));
        return;
    }
    if (!S_ISDIR(about.st_mode) || access(detector->file_path, R_OK | X_OK) != 0) {
        doctor_add(report, DOCTOR_FILES, DOCTOR_BAD, advice, "file_path %s is %s", detector->file_path,
                   S_ISDIR(about.st_mode) ? "not readable here" : "no folder");
        return;
    }
    double gb = free_gb(detector->file_path);
    snprintf(name, sizeof name, "%sFilePath_RBV", detector->prefix);
    bool is_known = channel_read(epics, name, &path);
    snprintf(name, sizeof name, "%sFilePathExists_RBV", detector->prefix);
    is_known = is_known && channel_read(epics, name, &exists);
    if (!is_known)
        doctor_add(report, DOCTOR_FILES, DOCTOR_DOUBT, IOC_ADVICE,
                   "file_path %s is here, %.0f GB free; its IOC does not say what it sees", detector->file_path, gb);
    else if (is_same_path(path.text, detector->file_path) && strcmp(exists.text, "Yes") != 0)
        doctor_add(report, DOCTOR_FILES, DOCTOR_BAD, advice,
                   "file_path %s is here, but its IOC says that it does not exist there", detector->file_path);
    else
        doctor_add(report, DOCTOR_FILES, gb < FREE_GB_DOUBT ? DOCTOR_DOUBT : DOCTOR_GOOD,
                   gb < FREE_GB_DOUBT ? "the room on that volume: a scan of 6000 frames takes gigabytes" : "",
                   "file_path %s is here, %.0f GB free; its IOC stands at %s", detector->file_path, gb,
                   path.text[0] ? path.text : "no folder yet");
}

static void examine_ring(const struct beamline_ring *settings, struct epics *epics, struct doctor_report *report)
{
    struct ring *ring;
    struct err err = {0};
    struct epics_value value;
    double current_ma = NAN;
    bool is_valid = false;
    if (!channel_read(epics, settings->current_pv, &value)) {
        doctor_add(report, DOCTOR_RING, DOCTOR_BAD, IOC_ADVICE, "PV %s does not answer within %g s",
                   settings->current_pv, CONNECT_S);
        return;
    }
    if (ring_open(&ring, epics, settings->current_pv, &err)) {
        doctor_add_failure(report, DOCTOR_RING, DOCTOR_EPICS, &err);
        return;
    }
    ring_read(ring, &current_ma, &is_valid);
    ring_close(ring);
    bool is_beam = is_valid && current_ma >= settings->current_ma_min;
    doctor_add(report, DOCTOR_RING,
               is_beam    ? DOCTOR_GOOD
               : is_valid ? DOCTOR_DOUBT
                          : DOCTOR_BAD,
               is_beam ? "" : "whether there is beam, and current_pv in the beamline file",
               "%s: %.1f mA, needed %.1f mA%s", settings->current_pv, current_ma, settings->current_ma_min,
               is_valid ? "" : " (the record is invalid)");
}

/* ---- this computer --------------------------------------------------------------------------------------------- */

void examine_disk(const char *db_path, struct doctor_report *report)
{
    char folder[4096] = ".";
    const char *slash = strrchr(db_path, '/');
    if (slash)
        snprintf(folder, sizeof folder, "%.*s", (int)(slash > db_path ? slash - db_path : 1), db_path);
    double gb = free_gb(folder);
    if (isnan(gb))
        doctor_add(report, DOCTOR_DISK, DOCTOR_BAD, "the folder of --db", "%s: %s", folder, strerror(errno));
    else
        doctor_add(report, DOCTOR_DISK,
                   gb < FREE_GB_BAD     ? DOCTOR_BAD
                   : gb < FREE_GB_DOUBT ? DOCTOR_DOUBT
                                        : DOCTOR_GOOD,
                   gb < FREE_GB_DOUBT ? "the room: a night's database takes a gigabyte, its results more" : "",
                   "%s: %.1f GB free", folder, gb);
}

void examine_clock(const struct clock *clock, struct doctor_report *report)
{
    struct timex kernel = {0};
    if (!clock_is_real(clock)) {
        bool is_alive = clock_is_alive(clock);
        doctor_add(report, DOCTOR_CLOCK, is_alive ? DOCTOR_GOOD : DOCTOR_BAD,
                   is_alive ? "" : "whether the simulator runs", "a simulator's, %s, %.0f times the wall's pace",
                   is_alive ? "kept" : "not kept any more", clock_speed(clock));
        return;
    }
    bool is_unsynchronised = adjtimex(&kernel) == TIME_ERROR || (kernel.status & STA_UNSYNC);
    double error_s = (double)kernel.maxerror * 1e-6;
    if (is_unsynchronised)
        doctor_add(report, DOCTOR_CLOCK, DOCTOR_DOUBT, "the time service (NTP) of this computer",
                   "this computer's, which says that nothing synchronises it");
    else
        doctor_add(report, DOCTOR_CLOCK, error_s > CLOCK_S_DOUBT ? DOCTOR_DOUBT : DOCTOR_GOOD,
                   error_s > CLOCK_S_DOUBT ? "the time service (NTP) of this computer" : "",
                   "this computer's, synchronised to better than %.3f s", error_s);
}

void examine_database(const char *db_path, struct doctor_report *report)
{
    struct store_reader *reader;
    struct store_rows *rows;
    struct err err = {0};
    if (access(db_path, F_OK) != 0) {
        doctor_add(report, DOCTOR_DATABASE, DOCTOR_GOOD, "", "%s does not exist yet", db_path);
        return;
    }
    int code = store_reader_open(&reader, db_path, &err);
    if (code == 0) {
        code = store_rows_open(&rows, reader, "SELECT quick_check FROM pragma_quick_check(1)", NULL, 0, &err);
        if (code == 0) {
            code = store_rows_next(rows, &err);
            bool is_whole = code == 1 && strcmp(store_rows_text(rows, 0), "ok") == 0;
            if (code >= 0)
                doctor_add(report, DOCTOR_DATABASE, is_whole ? DOCTOR_GOOD : DOCTOR_BAD,
                           is_whole ? "" : "the disk; begin the next run with a new file", "%s, quick_check: %s",
                           db_path, code == 1 ? store_rows_text(rows, 0) : "no answer");
            store_rows_close(rows);
        }
        store_reader_close(reader);
    }
    if (code < 0)
        doctor_add(report, DOCTOR_DATABASE, DOCTOR_BAD, "whether --db is the file that was meant", "%s", err.message);
}

void examine_beamline(const struct beamline *beamline, const struct clock *clock, const char *db_path,
                      struct doctor_report *report)
{
    struct epics *epics = NULL;
    struct examine_temperature temperature;
    struct err err = {0};
    /* The context reads the environment before other threads run. */
    epics_open(&epics, beamline->ca_address, &err);
    examine_membrane(&beamline->membrane, report);
    examine_thermometer(&beamline->ruby, epics, &temperature, report);
    examine_spectrometer(beamline, epics, &temperature, report);
    if (!epics) {
        doctor_add_failure(report, DOCTOR_DETECTOR, DOCTOR_EPICS, &err);
    } else {
        examine_optics(beamline, epics, report);
        examine_detector(&beamline->detector, epics, report);
        examine_files(&beamline->detector, epics, report);
        examine_ring(&beamline->ring, epics, report);
        epics_close(epics);
    }
    examine_disk(db_path, report);
    examine_clock(clock, report);
    examine_database(db_path, report);
}
