#include "controller/ruby_link.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/neon.h"
#include "analysis/ruby.h"
#include "controller/temperature.h"
#include "drivers/thermometer.h"

#define WAIT_MS_MAX 50
#define DARK_MS_MAX 5
#define EXPOSURE_S_MIN 0.002
#define THERMOMETER_S 0.5 /* of wall time; at the first connection four times that */

struct ruby_link {
    struct beamline_spectrometer spectrometer_settings;
    struct beamline_ruby ruby_settings;
    struct ruby_ruler ruler;      /* of the reading at hand */
    _Atomic double lambda0_nm;    /* wanted */
    _Atomic int64_t ruler_number; /* set after it, read before it */
    struct epics *epics;
    double exposure_s; /* the stated one, or less after a saturated spectrum */
    unsigned warnings; /* of the last reading */
    struct instrument_context *context;
    struct store *store;
    struct instrument *instrument;
    struct spectrometer *spectrometer; /* kept over losses of the link: it remembers the last spectrum */
    struct thermometer *thermometer;   /* NULL: the temperature is stated */
    struct temperature temperature;
    struct temperature_use now; /* of the reading that is being made */
    int64_t read_ns;            /* when the last exposure began */
    struct spectrum spectrum;
    float counts[SPECTRUM_MAX];
    struct ruby_fit fit;
    bool has_fit; /* seeds the next one */
};

static void put_log(struct ruby_link *link, const char *severity, const char *text)
{
    const struct store_value row[] = {store_integer(clock_now_ns(link->context->clock)), store_text(severity),
                                      store_text(text)};
    store_put(link->store, STORE_LOG, row, 3, 0, NULL);
}

struct spectrometer_settings ruby_link_spectrometer(const struct beamline_spectrometer *settings, struct epics *epics)
{
    return (struct spectrometer_settings){.driver = settings->driver,
                                          .wavelength_nm_min = settings->wavelength_nm_min,
                                          .wavelength_nm_max = settings->wavelength_nm_max,
                                          .address = settings->address,
                                          .epics = epics,
                                          .wavelength_pv = settings->wavelength_pv,
                                          .counts_pv = settings->counts_pv,
                                          .exposure_pv = settings->exposure_pv,
                                          .acquire_pv = settings->acquire_pv,
                                          .busy_pv = settings->busy_pv,
                                          .counts_saturation = settings->counts_saturation};
}

static int link_open(void *self, struct err *err)
{
    struct ruby_link *link = self;
    const struct spectrometer_settings wanted = ruby_link_spectrometer(&link->spectrometer_settings, link->epics);
    link->has_fit = false;
    return link->spectrometer ? spectrometer_connect(link->spectrometer, err)
                              : spectrometer_open(&link->spectrometer, &wanted, err);
}

static const char *link_note(void *self)
{
    struct ruby_link *link = self;
    return spectrometer_terms(link->spectrometer)->note;
}

static void link_close(void *self) { (void)self; } /* the driver has closed what failed */

/* The temperature of the reading that is being made, and what is new about it. A step of it is one of the pressure,
 * whatever the sample does. Returns whether that is a warning. */
static bool read_temperature(struct ruby_link *link, double r1_nm, char *ret_text, size_t size)
{
    struct err err = {0};
    double timeout_s = link->temperature.has_believed ? THERMOMETER_S : 4 * THERMOMETER_S;
    double before_k = link->now.temperature_k;
    struct temperature_sample sample = {.t_ns = 0};
    ret_text[0] = '\0';
    if (!link->thermometer)
        return false;
    sample.is_read = thermometer_read(link->thermometer, timeout_s, &sample.temperature_k, &sample.stamp_ns, &err) == 0;
    sample.t_ns = clock_now_ns(link->context->clock);
    sample.wall_ns = clock_wall_ns();
    link->now = temperature_judge(&link->temperature, &sample);
    temperature_text(&link->temperature, &link->now, err.message, ret_text, size);
    size_t used = strlen(ret_text);
    if (link->now.step_k != 0)
        snprintf(ret_text + used, size - used, ": the pressure moves by %+.3f GPa with it, whatever the sample does",
                 ruby_ruler_pressure_gpa(&link->ruler, r1_nm, link->now.temperature_k) -
                     ruby_ruler_pressure_gpa(&link->ruler, r1_nm, before_k));
    return link->temperature.doubt != TEMPERATURE_BELIEVED || link->now.step_k != 0;
}

static void put_row(struct ruby_link *link, int64_t t_ns, const struct ruby_pressure *pressure, const char *reason)
{
    const struct spectrum *spectrum = &link->spectrum;
    const struct beamline_ruby *settings = &link->ruby_settings;
    for (int i = 0; i < spectrum->n; i++)
        link->counts[i] = (float)spectrum->counts[i];
    double step_nm = spectrum->n > 1
                         ? (spectrum->wavelength_nm[spectrum->n - 1] - spectrum->wavelength_nm[0]) / (spectrum->n - 1)
                         : NAN;
    bool is_good = !reason;
    char warning[300];
    ruby_warning_text(&link->fit, warning, sizeof warning);
    const struct store_value row[] = {
        store_integer(t_ns),
        is_good ? store_real(pressure->gpa) : store_null(),
        is_good ? store_real(pressure->gpa_sigma_fit) : store_null(),
        is_good ? store_real(pressure->gpa_sigma_temperature) : store_null(),
        is_good ? store_real(link->fit.r1_nm) : store_null(),
        is_good ? store_real(link->fit.r1_nm_sigma) : store_null(),
        is_good ? store_real(link->fit.r1_nm_sigma_noise) : store_null(),
        is_good ? store_real(link->fit.r2_nm) : store_null(),
        is_good ? store_real(link->fit.r1_nm_fwhm) : store_null(),
        is_good ? store_real(link->fit.r2_nm_fwhm) : store_null(),
        store_real(link->ruler.lambda0_nm),
        store_real(link->now.temperature_k),
        store_real(link->now.temperature_k_sigma),
        store_real(settings->temperature_k_zero),
        store_text(settings->scale),
        store_text(settings->correction),
        store_real(spectrum->exposure_s),
        is_good ? store_null() : store_text(reason),
        is_good && warning[0] ? store_text(warning) : store_null(),
        store_real(spectrum->wavelength_nm[0]),
        store_real(step_nm),
        store_blob(link->counts, (size_t)spectrum->n * sizeof link->counts[0]),
    };
    store_put(link->store, STORE_RUBY, row, sizeof row / sizeof row[0], 0, NULL);
}

/* Said once when it begins, and once when it is over. */
static void note_warnings(struct ruby_link *link)
{
    char text[300];
    ruby_warning_text(&link->fit, text, sizeof text);
    if (link->fit.warnings != link->warnings)
        put_log(link, link->fit.warnings ? "warning" : "info",
                text[0] ? text : "ruby: width and splitting are those of free ruby");
    link->warnings = link->fit.warnings;
}

/* Less light after a saturated spectrum; more again, up to what is stated, when there is plenty of room. */
static void adapt_exposure(struct ruby_link *link, bool is_saturated)
{
    double stated_s = link->spectrometer_settings.exposure_s;
    double top = link->fit.amplitude_counts + link->fit.background_counts;
    if (is_saturated)
        link->exposure_s = fmax(link->exposure_s / 2, fmin(EXPOSURE_S_MIN, stated_s));
    else if (link->has_fit && top < 0.3 * link->spectrum.counts_saturation)
        link->exposure_s = fmin(1.5 * link->exposure_s, stated_s);
}

static void post_rejected(struct ruby_link *link, const char *reason)
{
    struct event event = inbox_event(EVENT_RUBY_REJECTED, reason);
    event.integer[0] = link->read_ns;
    inbox_post(link->context->inbox, &event);
}

static void read_pressure(struct ruby_link *link, int64_t t_ns)
{
    struct err err = {0};
    struct ruby_fit fit;
    char news[EVENT_TEXT_MAX];
    const struct spectrum *spectrum = &link->spectrum;
    int64_t ruler_number = link->ruler_number;
    link->ruler.lambda0_nm = link->lambda0_nm;
    const struct ruby_camera camera = {spectrum->counts_saturation, link->spectrometer_settings.fringe_max};
    int code = ruby_fit_spectrum(spectrum->wavelength_nm, spectrum->counts, spectrum->n, &camera,
                                 link->has_fit ? &link->fit : NULL, &fit, &err);
    link->has_fit = code == 0;
    adapt_exposure(link, code == ERR_LIMIT);
    if (code) {
        post_rejected(link, err.message);
        put_row(link, t_ns, NULL, err.message);
        return;
    }
    link->fit = fit;
    note_warnings(link);
    /* The control is told of the noise only: what the line model and the temperature are uncertain by is common to
     * neighbouring readings, and would hide a drop of the pressure that is plain to see. */
    bool is_warning = read_temperature(link, fit.r1_nm, news, sizeof news);
    struct ruby_pressure pressure = ruby_ruler_derive(&link->ruler, fit.r1_nm, fit.r1_nm_sigma_noise,
                                                      link->now.temperature_k, link->now.temperature_k_sigma);
    struct event event = inbox_event(EVENT_RUBY, news[0] ? news : NULL);
    event.integer[0] = link->read_ns;
    event.integer[1] = ruler_number;
    event.integer[2] = is_warning;
    event.value[0] = pressure.gpa;
    event.value[1] = pressure.gpa_sigma_fit;
    event.value[2] = fit.r1_nm;
    event.value[3] = fit.r1_nm_sigma;
    event.value[4] = link->now.temperature_k;
    event.value[5] = link->now.temperature_k_sigma;
    inbox_post(link->context->inbox, &event);
    put_row(link, t_ns, &pressure, NULL);
}

/* To the axis that the neon lines gave. Stored as it is used; what was added stands in the beamline file. */
static void correct_axis(struct ruby_link *link)
{
    const struct beamline_spectrometer *settings = &link->spectrometer_settings;
    for (int i = 0; i < link->spectrum.n; i++)
        link->spectrum.wavelength_nm[i] +=
            settings->wavelength_offset_nm +
            settings->wavelength_slope * (link->spectrum.wavelength_nm[i] - NEON_AROUND_NM);
}

static int link_work(void *self, struct err *err)
{
    struct ruby_link *link = self;
    int64_t due_ns = link->read_ns + ns_from_s(link->context->cadence_s);
    int64_t awake_ns = link->context->is_ruby_dark ? clock_now_ns(link->context->clock) + NS_PER_S : due_ns;
    clock_sleep_until(link->context->clock, awake_ns, link->context->is_ruby_dark ? DARK_MS_MAX : WAIT_MS_MAX);
    int64_t now_ns = clock_now_ns(link->context->clock);
    if (now_ns < due_ns || link->context->is_ruby_dark)
        return 0;
    link->read_ns = now_ns;
    int code = spectrometer_acquire(link->spectrometer, link->exposure_s, &link->spectrum, err);
    if (code == 0) {
        correct_axis(link);
        read_pressure(link, clock_now_ns(link->context->clock));
    }
    if (code == ERR_DATA) /* a spectrum came, and is none; the next one is asked for on a new connection */
        post_rejected(link, err->message);
    return code == ERR_DATA ? 0 : code;
}

int ruby_link_start(struct ruby_link **ret_link, const struct beamline *settings, struct epics *epics,
                    struct instrument_context *context, struct store *store, struct err *err)
{
    static const struct instrument_class class = {.lost = EVENT_SPECTROMETER_LOST,
                                                  .found = EVENT_SPECTROMETER_FOUND,
                                                  .open = link_open,
                                                  .note = link_note,
                                                  .work = link_work,
                                                  .close = link_close};
    struct ruby_link *link = calloc(1, sizeof *link);
    assert(link);
    link->spectrometer_settings = settings->spectrometer;
    link->ruby_settings = settings->ruby;
    const struct beamline_ruby *ruby = &settings->ruby;
    int code = ruby->temperature_pv[0] ? thermometer_open(&link->thermometer, epics, ruby->temperature_pv, err) : 0;
    if (code) {
        free(link);
        return code;
    }
    link->temperature =
        temperature_begin(ruby->temperature_k, ruby->temperature_k_sigma, ruby->temperature_k_sigma_lost);
    link->now = (struct temperature_use){.temperature_k = ruby->temperature_k,
                                         .temperature_k_sigma = ruby->temperature_k_sigma};
    link->epics = epics;
    link->context = context;
    link->store = store;
    link->exposure_s = settings->spectrometer.exposure_s;
    link->ruler = (struct ruby_ruler){.scale = ruby_scale_by_name(settings->ruby.scale),
                                      .correction = ruby_correction_by_name(settings->ruby.correction),
                                      .lambda0_nm = settings->ruby.lambda0_nm,
                                      .temperature_k_zero = settings->ruby.temperature_k_zero};
    link->lambda0_nm = settings->ruby.lambda0_nm;
    assert(link->ruler.scale && link->ruler.correction); /* checked when the beamline file was read */
    instrument_start(&link->instrument, &class, link, context);
    *ret_link = link;
    return 0;
}

void ruby_link_set_lambda0(struct ruby_link *link, double lambda0_nm, int64_t ruler_number)
{
    link->lambda0_nm = lambda0_nm;
    link->ruler_number = ruler_number;
}

void ruby_link_join(struct ruby_link *link)
{
    instrument_join(link->instrument);
    spectrometer_close(link->spectrometer);
    thermometer_close(link->thermometer);
    free(link);
}
