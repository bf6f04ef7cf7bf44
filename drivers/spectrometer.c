#include "drivers/spectrometer.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/spectrometer_class.h"

#define ANSWER_MS 1000
#define EXPOSURE_S_MIN 0.001
#define EXPOSURE_S_MAX 65.0

struct spectrometer {
    const struct spectrometer_class *class;
    void *device; /* NULL while the link is down */
    struct spectrometer_settings settings;
    struct spectrometer_terms terms;
    struct spectrum fresh, before; /* before: n is 0 until there is one */
};

static const struct spectrometer_class *const classes[] = {&spectrometer_ocean_class, &spectrometer_epics_class};

/* An instrument that failed, or that we do not trust, is left alone. */
static int leave(struct spectrometer *spectrometer, int code)
{
    if (spectrometer->device)
        spectrometer->class->close(spectrometer->device);
    spectrometer->device = NULL;
    return code;
}

int spectrometer_connect(struct spectrometer *spectrometer, struct err *err)
{
    if (spectrometer->device)
        return 0;
    spectrometer->terms = (struct spectrometer_terms){0};
    if (spectrometer->class->open(&spectrometer->device, &spectrometer->settings, &spectrometer->terms, err))
        return err_prefix(err, "spectrometer");
    return 0;
}

int spectrometer_open(struct spectrometer **ret_spectrometer, const struct spectrometer_settings *settings,
                      struct err *err)
{
    const struct spectrometer_class *class = NULL;
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (strcmp(classes[i]->driver, settings->driver) == 0)
            class = classes[i];
    if (!class)
        return err_set(err, ERR_ARG, "spectrometer driver \"%s\" refused: expected ocean-optics or epics-waveforms",
                       settings->driver);
    if (!(settings->wavelength_nm_min > 0 && settings->wavelength_nm_max > settings->wavelength_nm_min))
        return err_set(err, ERR_ARG, "spectrometer window %g to %g nm refused: expected ascending",
                       settings->wavelength_nm_min, settings->wavelength_nm_max);
    struct spectrometer *spectrometer = calloc(1, sizeof *spectrometer);
    assert(spectrometer);
    spectrometer->class = class;
    spectrometer->settings = *settings;
    if (settings->answer_ms == 0)
        spectrometer->settings.answer_ms = ANSWER_MS;
    int code = spectrometer_connect(spectrometer, err);
    if (code)
        free(spectrometer);
    else
        *ret_spectrometer = spectrometer;
    return code;
}

static int check_axis(const struct spectrum *spectrum, struct err *err)
{
    for (int i = 0; i < spectrum->n; i++) {
        double nm = spectrum->wavelength_nm[i];
        if (!isfinite(nm) || (i > 0 && !(nm > spectrum->wavelength_nm[i - 1])))
            return err_set(err, ERR_DATA,
                           "wavelength %d of %d is %g nm after %g nm, expected ascending; spectrum refused; check the "
                           "calibration",
                           i, spectrum->n, nm, i > 0 ? spectrum->wavelength_nm[i - 1] : NAN);
    }
    return 0;
}

/* Light is noise: not even in the dark are two spectra alike. Only a sensor that is blinded gives one number for all.
 */
static bool is_repeated(const struct spectrum *spectrum, const struct spectrum *before)
{
    bool is_flat = true;
    if (spectrum->n != before->n)
        return false;
    for (int i = 0; i < spectrum->n; i++) {
        if (spectrum->counts[i] != before->counts[i])
            return false;
        is_flat = is_flat && spectrum->counts[i] == spectrum->counts[0];
    }
    return !is_flat;
}

static int check_spectrum(const struct spectrometer *spectrometer, struct err *err)
{
    const struct spectrum *spectrum = &spectrometer->fresh;
    int code = check_axis(spectrum, err);
    if (code)
        return code;
    if (spectrum->n < SPECTROMETER_PIXELS_MIN)
        return err_set(err, ERR_DATA,
                       "%d pixels lie within %g to %g nm, expected at least %d; spectrum refused; check the window and "
                       "the calibration",
                       spectrum->n, spectrometer->settings.wavelength_nm_min, spectrometer->settings.wavelength_nm_max,
                       SPECTROMETER_PIXELS_MIN);
    for (int i = 0; i < spectrum->n; i++)
        if (!(fabs(spectrum->counts[i]) <= spectrum->counts_saturation))
            return err_set(err, ERR_DATA,
                           "pixel at %g nm has %g counts, expected at most %g; spectrum refused; check the sensor",
                           spectrum->wavelength_nm[i], spectrum->counts[i], spectrum->counts_saturation);
    if (is_repeated(spectrum, &spectrometer->before))
        return err_set(err, ERR_DATA,
                       "all %d pixels have the counts of the spectrum before; spectrum refused; is the sensor stuck?",
                       spectrum->n);
    return 0;
}

int spectrometer_acquire(struct spectrometer *spectrometer, double exposure_s, struct spectrum *ret_spectrum,
                         struct err *err)
{
    if (!(exposure_s >= EXPOSURE_S_MIN && exposure_s <= EXPOSURE_S_MAX))
        return err_set(err, ERR_ARG, "exposure %g s refused: expected %g to %g", exposure_s, EXPOSURE_S_MIN,
                       EXPOSURE_S_MAX);
    int code = spectrometer_connect(spectrometer, err);
    if (code)
        return code;
    if (spectrometer->class->acquire(spectrometer->device, exposure_s, &spectrometer->fresh, err) ||
        check_spectrum(spectrometer, err))
        return leave(spectrometer, err_prefix(err, "spectrometer"));
    spectrometer->before = spectrometer->fresh;
    *ret_spectrum = spectrometer->fresh;
    return 0;
}

const struct spectrometer_terms *spectrometer_terms(const struct spectrometer *spectrometer)
{
    return &spectrometer->terms;
}

void spectrometer_close(struct spectrometer *spectrometer)
{
    if (!spectrometer)
        return;
    leave(spectrometer, 0);
    free(spectrometer);
}
