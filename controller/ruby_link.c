#include "controller/ruby_link.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "analysis/ruby.h"
#include "drivers/spectrometer.h"

#define WAIT_MS_MAX 50
#define DARK_MS_MAX 5

struct ruby_link {
    struct beamline_spectrometer spectrometer_settings;
    struct beamline_ruby ruby_settings;
    const struct ruby_scale *scale;
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

/* Pressure and its sigma from the fit, the temperature stated in the beamline file taken into account. */
static void derive_pressure(const struct ruby_link *link, double *ret_gpa, double *ret_gpa_sigma)
{
    const struct beamline_ruby *settings = &link->ruby_settings;
    double r1_nm = link->fit.r1_nm - ruby_shift_nm(settings->temperature_k, settings->temperature_k_zero);
    *ret_gpa = ruby_pressure_gpa(link->scale, r1_nm, settings->lambda0_nm);
    *ret_gpa_sigma = link->fit.r1_nm_sigma * ruby_slope_gpa_per_nm(link->scale, r1_nm, settings->lambda0_nm);
}

static void put_row(struct ruby_link *link, int64_t t_ns, double pressure_gpa, double sigma_gpa, const char *reason)
{
    const struct spectrum *spectrum = &link->spectrum;
    const struct beamline_ruby *settings = &link->ruby_settings;
    for (int i = 0; i < spectrum->n; i++)
        link->counts[i] = (float)spectrum->counts[i];
    double step_nm = spectrum->n > 1
                         ? (spectrum->wavelength_nm[spectrum->n - 1] - spectrum->wavelength_nm[0]) / (spectrum->n - 1)
                         : NAN;
    bool is_good = !reason;
    const struct store_value row[] = {
        store_integer(t_ns),
        is_good ? store_real(pressure_gpa) : store_null(),
        is_good ? store_real(sigma_gpa) : store_null(),
        is_good ? store_real(link->fit.r1_nm) : store_null(),
        is_good ? store_real(link->fit.r2_nm) : store_null(),
        is_good ? store_real(link->fit.r1_nm_fwhm) : store_null(),
        store_real(settings->lambda0_nm),
        store_real(settings->temperature_k),
        store_real(settings->temperature_k_zero),
        store_text(settings->scale),
        store_real(spectrum->exposure_s),
        is_good ? store_null() : store_text(reason),
        store_real(spectrum->wavelength_nm[0]),
        store_real(step_nm),
        store_blob(link->counts, (size_t)spectrum->n * sizeof link->counts[0]),
    };
    store_put(link->store, STORE_RUBY, row, sizeof row / sizeof row[0], 0, NULL);
}

static void read_pressure(struct ruby_link *link, int64_t t_ns)
{
    struct err err = {0};
    struct ruby_fit fit;
    const struct spectrum *spectrum = &link->spectrum;
    int code = ruby_fit_spectrum(spectrum->wavelength_nm, spectrum->counts, spectrum->n, spectrum->counts_saturation,
                                 link->has_fit ? &link->fit : NULL, &fit, &err);
    link->has_fit = code == 0;
    if (code) {
        struct event event = inbox_event(EVENT_RUBY_REJECTED, err.message);
        event.integer[0] = link->read_ns;
        inbox_post(link->context->inbox, &event);
        put_row(link, t_ns, NAN, NAN, err.message);
        return;
    }
    link->fit = fit;
    struct event event = inbox_event(EVENT_RUBY, NULL);
    event.integer[0] = link->read_ns;
    derive_pressure(link, &event.value[0], &event.value[1]);
    inbox_post(link->context->inbox, &event);
    put_row(link, t_ns, event.value[0], event.value[1], NULL);
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
    int code = spectrometer_acquire(link->spectrometer, link->spectrometer_settings.exposure_s, &link->spectrum, err);
    if (code == 0)
        read_pressure(link, clock_now_ns(link->context->clock));
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
    link->scale = ruby_scale_by_name(settings->ruby.scale);
    assert(link->scale); /* checked when the beamline file was read */
    instrument_start(&link->instrument, &class, link, context);
    return link;
}

void ruby_link_join(struct ruby_link *link)
{
    instrument_join(link->instrument);
    free(link);
}
