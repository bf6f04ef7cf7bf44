#include "controller/ruby_link.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "analysis/neon.h"
#include "analysis/ruby.h"
#include "drivers/spectrometer.h"

#define WAIT_MS_MAX 50
#define DARK_MS_MAX 5
#define EXPOSURE_S_MIN 0.002

struct ruby_link {
    struct beamline_spectrometer spectrometer_settings;
    struct beamline_ruby ruby_settings;
    struct ruby_ruler ruler;      /* of the reading at hand */
    _Atomic double lambda0_nm;    /* wanted */
    _Atomic int64_t ruler_number; /* set after it, read before it */
    double exposure_s;            /* the stated one, or less after a saturated spectrum */
    unsigned warnings;            /* of the last reading */
    struct instrument_context *context;
    struct store *store;
    struct instrument *instrument;
    struct spectrometer *spectrometer;
    int64_t read_ns; /* when the last exposure began */
    struct spectrum spectrum;
    float counts[SPECTRUM_MAX];
    struct ruby_fit fit;
    bool has_fit; /* seeds the next one */
};

static int link_open(void *self, struct err *err)
{
    struct ruby_link *link = self;
    link->has_fit = false;
    return spectrometer_open(&link->spectrometer, link->spectrometer_settings.address,
                             link->spectrometer_settings.wavelength_nm_min,
                             link->spectrometer_settings.wavelength_nm_max, err);
}

static void link_close(void *self)
{
    struct ruby_link *link = self;
    spectrometer_close(link->spectrometer);
    link->spectrometer = NULL;
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
        store_real(settings->temperature_k),
        store_real(settings->temperature_k_sigma),
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
static void note_warnings(struct ruby_link *link, int64_t t_ns)
{
    char text[300];
    ruby_warning_text(&link->fit, text, sizeof text);
    const struct store_value row[] = {store_integer(t_ns), store_text(link->fit.warnings ? "warning" : "info"),
                                      store_text(text[0] ? text : "ruby: width and splitting are those of free ruby")};
    if (link->fit.warnings != link->warnings)
        store_put(link->store, STORE_LOG, row, 3, 0, NULL);
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

static void read_pressure(struct ruby_link *link, int64_t t_ns)
{
    struct err err = {0};
    struct ruby_fit fit;
    const struct spectrum *spectrum = &link->spectrum;
    int64_t ruler_number = link->ruler_number;
    link->ruler.lambda0_nm = link->lambda0_nm;
    const struct ruby_camera camera = {spectrum->counts_saturation, link->spectrometer_settings.fringe_max};
    int code = ruby_fit_spectrum(spectrum->wavelength_nm, spectrum->counts, spectrum->n, &camera,
                                 link->has_fit ? &link->fit : NULL, &fit, &err);
    link->has_fit = code == 0;
    adapt_exposure(link, code == ERR_LIMIT);
    if (code) {
        struct event event = inbox_event(EVENT_RUBY_REJECTED, err.message);
        event.integer[0] = link->read_ns;
        inbox_post(link->context->inbox, &event);
        put_row(link, t_ns, NULL, err.message);
        return;
    }
    link->fit = fit;
    note_warnings(link, t_ns);
    /* The control is told of the noise only: what the line model and the temperature are uncertain by is common to
     * neighbouring readings, and would hide a drop of the pressure that is plain to see. */
    const struct beamline_ruby *settings = &link->ruby_settings;
    struct ruby_pressure pressure = ruby_ruler_derive(&link->ruler, fit.r1_nm, fit.r1_nm_sigma_noise,
                                                      settings->temperature_k, settings->temperature_k_sigma);
    struct event event = inbox_event(EVENT_RUBY, NULL);
    event.integer[0] = link->read_ns;
    event.integer[1] = ruler_number;
    event.value[0] = pressure.gpa;
    event.value[1] = pressure.gpa_sigma_fit;
    event.value[2] = fit.r1_nm;
    event.value[3] = fit.r1_nm_sigma;
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
    return code;
}

struct ruby_link *ruby_link_start(const struct beamline *settings, struct instrument_context *context,
                                  struct store *store)
{
    static const struct instrument_class class = {.lost = EVENT_SPECTROMETER_LOST,
                                                  .found = EVENT_SPECTROMETER_FOUND,
                                                  .open = link_open,
                                                  .work = link_work,
                                                  .close = link_close};
    struct ruby_link *link = calloc(1, sizeof *link);
    assert(link);
    link->spectrometer_settings = settings->spectrometer;
    link->ruby_settings = settings->ruby;
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
    return link;
}

void ruby_link_set_lambda0(struct ruby_link *link, double lambda0_nm, int64_t ruler_number)
{
    link->lambda0_nm = lambda0_nm;
    link->ruler_number = ruler_number;
}

void ruby_link_join(struct ruby_link *link)
{
    instrument_join(link->instrument);
    free(link);
}
