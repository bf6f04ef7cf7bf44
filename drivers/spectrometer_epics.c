#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "drivers/epics.h"
#include "drivers/spectrometer_class.h"

#define EXPOSURE_TOLERANCE 0.01 /* of the exposure, and a microsecond: what a device may round to */

/* One spectrum: not busy -> exposure told and read back -> acquire told 1 -> busy rises -> busy falls -> counts that
 * are not older than the rise, by the IOC's own time stamps. All five records must be of one IOC, or of IOCs whose
 * clocks agree better than an exposure lasts. */
enum channel { WAVELENGTH, COUNTS, EXPOSURE, ACQUIRE, BUSY, CHANNEL_COUNT };

struct device {
    const struct spectrometer_settings *settings;
    struct epics_channel *channels[CHANNEL_COUNT];
    uint64_t n_seen;
    uint32_t n_connects; /* of all channels, when it was opened */
    int n;               /* of the axis, before the spectrum */
    double wavelength_nm[EPICS_ARRAY_MAX], wavelength_nm_after[EPICS_ARRAY_MAX], counts[EPICS_ARRAY_MAX];
};

static struct epics_value read_slot(const struct device *device, enum channel channel)
{
    struct epics_value value;
    epics_channel_read(device->channels[channel], &value);
    return value;
}

static const char *name_of(const struct device *device, enum channel channel)
{
    return epics_channel_name(device->channels[channel]);
}

static double answer_s(const struct device *device) { return device->settings->answer_ms * 1e-3; }

/* All channels connected, and never away since the device was opened. Alarms are looked at afterwards: a record that
 * has never been processed is INVALID, and the first spectrum mends that. */
static int check_channels(struct device *device, struct err *err)
{
    uint32_t n_connects = 0;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct epics_value value = read_slot(device, (enum channel)i);
        if (!value.is_known)
            return err_set(err, ERR_LINK, "%s does not answer; is its IOC running?", name_of(device, (enum channel)i));
        n_connects += value.n_connects;
    }
    if (device->n_connects && n_connects != device->n_connects)
        return err_set(err, ERR_LINK, "the IOC of %s was away; spectrum refused", name_of(device, COUNTS));
    device->n_connects = n_connects;
    return 0;
}

static void epics_class_close(void *self) { free(self); } /* channels live as long as their context */

static int epics_class_open(void **ret_device, const struct spectrometer_settings *settings,
                            struct spectrometer_terms *ret_terms, struct err *err)
{
    const char *const names[CHANNEL_COUNT] = {settings->wavelength_pv, settings->counts_pv, settings->exposure_pv,
                                              settings->acquire_pv, settings->busy_pv};
    (void)ret_terms;
    assert(settings->epics);
    if (!(settings->counts_saturation > 0))
        return err_set(err, ERR_ARG, "counts_saturation %g refused: expected more than 0", settings->counts_saturation);
    struct device *device = calloc(1, sizeof *device);
    assert(device);
    device->settings = settings;
    int code = 0;
    for (int i = 0; i < CHANNEL_COUNT && code == 0; i++)
        code = epics_channel_open_number(&device->channels[i], settings->epics, names[i], err);
    if (code == 0) {
        int64_t deadline_ns = clock_wall_ns() + ns_from_s(2 * answer_s(device));
        while ((code = check_channels(device, err)) == ERR_LINK &&
               epics_wait(settings->epics, &device->n_seen, deadline_ns))
            continue;
    }
    if (code)
        epics_class_close(device);
    else
        *ret_device = device;
    return code;
}

/* Somebody else's spectrum, or ours of before a loss, is let come to its end. */
static int wait_idle(struct device *device, double exposure_s, struct err *err)
{
    int64_t deadline_ns = clock_wall_ns() + ns_from_s(exposure_s + 2 * answer_s(device));
    while (read_slot(device, BUSY).real != 0)
        if (!epics_wait(device->settings->epics, &device->n_seen, deadline_ns))
            return err_set(err, ERR_STATE,
                           "%s is still %g after %.3g s: the spectrometer is busy with what was not asked for; is it "
                           "set to take spectra without end?",
                           name_of(device, BUSY), read_slot(device, BUSY).real, exposure_s + 2 * answer_s(device));
    return check_channels(device, err);
}

static int set_exposure(struct device *device, double exposure_s, struct err *err)
{
    double tolerance_s = EXPOSURE_TOLERANCE * exposure_s + 1e-6;
    struct epics_value value = read_slot(device, EXPOSURE);
    if (value.severity < EPICS_INVALID && fabs(value.real - exposure_s) <= tolerance_s)
        return 0;
    int code = epics_channel_put_real(device->channels[EXPOSURE], exposure_s, answer_s(device), err);
    if (code)
        return code;
    int64_t deadline_ns = clock_wall_ns() + ns_from_s(answer_s(device));
    while (!(fabs(read_slot(device, EXPOSURE).real - exposure_s) <= tolerance_s))
        if (!epics_wait(device->settings->epics, &device->n_seen, deadline_ns))
            return err_set(err, ERR_REFUSED, "%s was told %g s and reads %g s; spectrum refused; see its limits",
                           name_of(device, EXPOSURE), exposure_s, read_slot(device, EXPOSURE).real);
    return 0;
}

/* Waits for the end of the spectrum that was asked for when busy had last been other than 0 at `stamp_ns_before`. */
static int wait_spectrum(struct device *device, double exposure_s, int64_t stamp_ns_before, struct err *err)
{
    int64_t deadline_ns = clock_wall_ns() + ns_from_s(exposure_s + 2 * answer_s(device));
    for (;;) {
        struct epics_value busy = read_slot(device, BUSY), counts = read_slot(device, COUNTS);
        bool has_risen = busy.stamp_ns_not_zero > stamp_ns_before, is_busy = busy.real != 0;
        if (has_risen && !is_busy && counts.stamp_ns >= busy.stamp_ns_not_zero)
            return check_channels(device, err);
        int code = check_channels(device, err);
        if (code)
            return code;
        if (!epics_wait(device->settings->epics, &device->n_seen, deadline_ns))
            return err_set(err, ERR_TIMEOUT, "%s was told 1, and %.3g s later %s %s; no spectrum; see to its IOC",
                           name_of(device, ACQUIRE), exposure_s + 2 * answer_s(device),
                           name_of(device, has_risen && !is_busy ? COUNTS : BUSY),
                           !has_risen ? "has not risen"
                           : is_busy  ? "has not fallen"
                                      : "has not been renewed");
    }
}

/* A waveform as it is now; the count of its values. */
static int fetch(struct device *device, enum channel channel, double *ret_values, struct epics_value *ret_value,
                 struct err *err)
{
    return epics_channel_fetch(device->channels[channel], ret_values, EPICS_ARRAY_MAX, ret_value, answer_s(device),
                               err);
}

static int check_alarm(const struct device *device, enum channel channel, const struct epics_value *value,
                       struct err *err)
{
    if (value->severity < EPICS_INVALID)
        return 0;
    return err_set(err, ERR_STATE, "%s has the severity INVALID; spectrum refused; see to its IOC",
                   name_of(device, channel));
}

/* Both waveforms, and that they are of this spectrum: nobody began another, and no grating moved. */
static int fetch_both(struct device *device, struct err *err)
{
    struct epics_value busy = read_slot(device, BUSY), exposure = read_slot(device, EXPOSURE), counts, axis;
    int n = fetch(device, COUNTS, device->counts, &counts, err);
    int n_axis = n < 0 ? n : fetch(device, WAVELENGTH, device->wavelength_nm_after, &axis, err);
    if (n_axis < 0)
        return n_axis;
    int code;
    if ((code = check_alarm(device, COUNTS, &counts, err)) || (code = check_alarm(device, WAVELENGTH, &axis, err)) ||
        (code = check_alarm(device, BUSY, &busy, err)) || (code = check_alarm(device, EXPOSURE, &exposure, err)))
        return code;
    if (n != n_axis)
        return err_set(err, ERR_DATA, "%s has %d values and %s %d, expected as many; spectrum refused",
                       name_of(device, COUNTS), n, name_of(device, WAVELENGTH), n_axis);
    if (n != device->n || memcmp(device->wavelength_nm, device->wavelength_nm_after, (size_t)n * sizeof(double)) != 0)
        return err_set(err, ERR_STATE, "%s changed while a spectrum was taken; spectrum refused; does a grating move?",
                       name_of(device, WAVELENGTH));
    if (counts.stamp_ns < busy.stamp_ns_not_zero || read_slot(device, BUSY).stamp_ns_not_zero != busy.stamp_ns_not_zero)
        return err_set(err, ERR_STATE, "%s: another spectrum was begun meanwhile; spectrum refused; who else uses it?",
                       name_of(device, BUSY));
    return 0;
}

/* The part of the axis that is of interest, once all of it is one. */
static int cut(const struct device *device, struct spectrum *ret_spectrum, struct err *err)
{
    const struct spectrometer_settings *settings = device->settings;
    ret_spectrum->n = 0;
    for (int i = 0; i < device->n; i++) {
        double nm = device->wavelength_nm[i];
        if (!isfinite(nm) || (i > 0 && !(nm > device->wavelength_nm[i - 1])))
            return err_set(err, ERR_DATA, "%s: value %d is %g nm after %g nm, expected ascending; spectrum refused",
                           name_of(device, WAVELENGTH), i, nm, i > 0 ? device->wavelength_nm[i - 1] : NAN);
        if (!isfinite(device->counts[i]))
            return err_set(err, ERR_DATA, "%s: value %d is %g, expected a count; spectrum refused",
                           name_of(device, COUNTS), i, device->counts[i]);
        if (nm < settings->wavelength_nm_min || nm > settings->wavelength_nm_max)
            continue;
        if (ret_spectrum->n == SPECTRUM_MAX)
            return err_set(err, ERR_DATA, "more than %d pixels lie within %g to %g nm; make the window smaller",
                           SPECTRUM_MAX, settings->wavelength_nm_min, settings->wavelength_nm_max);
        ret_spectrum->wavelength_nm[ret_spectrum->n] = nm;
        ret_spectrum->counts[ret_spectrum->n++] = device->counts[i];
    }
    return 0;
}

static int epics_class_acquire(void *self, double exposure_s, struct spectrum *ret_spectrum, struct err *err)
{
    struct device *device = self;
    struct epics_value axis;
    int code;
    if ((code = check_channels(device, err)) || (code = wait_idle(device, exposure_s, err)) ||
        (code = set_exposure(device, exposure_s, err)))
        return code;
    device->n = fetch(device, WAVELENGTH, device->wavelength_nm, &axis, err);
    if (device->n < 0)
        return device->n;
    int64_t stamp_ns_before = read_slot(device, BUSY).stamp_ns_not_zero;
    if ((code = epics_channel_send_real(device->channels[ACQUIRE], 1, err)) ||
        (code = wait_spectrum(device, exposure_s, stamp_ns_before, err)) || (code = fetch_both(device, err)) ||
        (code = cut(device, ret_spectrum, err)))
        return code;
    ret_spectrum->exposure_s = read_slot(device, EXPOSURE).real;
    ret_spectrum->counts_saturation = device->settings->counts_saturation;
    return 0;
}

const struct spectrometer_class spectrometer_epics_class = {
    .driver = "epics-waveforms", .open = epics_class_open, .acquire = epics_class_acquire, .close = epics_class_close};
