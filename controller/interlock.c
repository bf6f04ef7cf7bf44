#include "controller/interlock.h"

#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "controller/event.h"

#define BURST_BAR 1.0         /* more than noise, regulation and a step of the leash together */
#define BURST_READINGS 2      /* one reading may be wrong */
#define SUPPLY_BAR_MARGIN 1.0 /* a regulator needs some to regulate */
#define SUPPLY_BAR_LEAVE 2.0

struct reason_text {
    uint32_t bit;
    const char *text;
};

static const struct reason_text reason_texts[] = {
#define X(name, bit, text) {name, text},
    HOLD_LIST(X)
#undef X
};

#define REASON_COUNT (sizeof reason_texts / sizeof reason_texts[0])

void interlock_init(struct interlock *interlock, const struct interlock_settings *settings)
{
    *interlock = (struct interlock){.settings = *settings};
}

/* No two spectra give one pressure to the last bit: a reading that does is the one before, shown again. */
static void observe_ruby(struct interlock *interlock, const struct event *event)
{
    if (event->value[0] == interlock->pressure_gpa) {
        interlock->ruby_rejected++;
        return;
    }
    interlock->ruby_t_ns = event->t_ns;
    interlock->ruby_rejected = 0;
    interlock->pressure_gpa = event->value[0];
}

static void observe_beam(struct interlock *interlock, const struct event *event)
{
    double current_ma = event->value[0];
    interlock->beam_t_ns = event->t_ns;
    if (!(current_ma >= interlock->settings.current_ma_min)) /* NaN trips too */
        interlock->beam_ok = false;
    if (!(current_ma >= interlock->settings.current_ma_resume))
        interlock->beam_good_t_ns = 0;
    else if (interlock->beam_good_t_ns == 0)
        interlock->beam_good_t_ns = event->t_ns;
    if (interlock->beam_good_t_ns != 0 &&
        s_from_ns(event->t_ns - interlock->beam_good_t_ns) >= interlock->settings.beam_settle_s)
        interlock->beam_ok = true;
}

/* A membrane falls faster than it is ever driven when it has burst, or its line. */
static void observe_drop(struct interlock *interlock, const struct event *event)
{
    double bar_per_s_max = interlock->settings.membrane_bar_per_s_max;
    double elapsed_s = s_from_ns(event->t_ns - interlock->membrane_before_t_ns);
    double drop_bar = interlock->membrane_bar_before - event->value[0];
    bool has_before = interlock->membrane_before_t_ns != 0;
    if (bar_per_s_max > 0.0 && has_before && drop_bar > BURST_BAR + 2.0 * bar_per_s_max * elapsed_s) {
        interlock->membrane_burst = interlock->membrane_burst || ++interlock->n_dropped >= BURST_READINGS;
        return;
    }
    interlock->n_dropped = 0;
    interlock->membrane_bar_before = event->value[0];
    interlock->membrane_before_t_ns = event->t_ns;
}

static void observe_membrane(struct interlock *interlock, const struct event *event)
{
    double margin_bar = interlock->supply_low ? SUPPLY_BAR_LEAVE : SUPPLY_BAR_MARGIN;
    double supply_bar = event->value[3]; /* 0: not known */
    interlock->membrane_t_ns = event->t_ns;
    interlock->membrane_astray = (event->integer[0] & MEMBRANE_NOT_FOLLOWING) != 0;
    if (event->integer[0] & (MEMBRANE_SETPOINT_CHANGED | MEMBRANE_SLEW_CHANGED))
        interlock->membrane_foreign = true;
    interlock->supply_low = supply_bar != 0.0 && !(supply_bar >= event->value[1] + margin_bar);
    observe_drop(interlock, event);
}

/* The operator has seen it: what stands now is the new beginning. */
static void resume(struct interlock *interlock)
{
    interlock->journal_failed = interlock->stalled = interlock->at_limit = interlock->scan_exhausted = false;
    interlock_forget_membrane(interlock);
}

void interlock_forget_membrane(struct interlock *interlock)
{
    interlock->membrane_foreign = interlock->membrane_burst = false;
    interlock->n_dropped = 0;
    interlock->membrane_before_t_ns = 0;
}

void interlock_observe(struct interlock *interlock, const struct event *event)
{
    switch ((enum event_kind)event->kind) {
    case EVENT_MEMBRANE:
        observe_membrane(interlock, event);
        break;
    case EVENT_MEMBRANE_LOST:
        interlock->membrane_found = false;
        interlock->membrane_refused = event->integer[0] == ERR_STATE;
        break;
    case EVENT_MEMBRANE_FOUND:
        interlock->membrane_found = true;
        interlock->membrane_refused = false;
        break;
    case EVENT_RUBY:
        observe_ruby(interlock, event);
        break;
    case EVENT_RUBY_REJECTED:
        interlock->ruby_rejected++;
        break;
    case EVENT_SPECTROMETER_LOST:
        interlock->spectrometer_found = false;
        break;
    case EVENT_SPECTROMETER_FOUND:
        interlock->spectrometer_found = true;
        break;
    case EVENT_DETECTOR_LOST:
        interlock->detector_found = false;
        break;
    case EVENT_DETECTOR_FOUND:
        interlock->detector_found = true;
        break;
    case EVENT_BEAM:
        observe_beam(interlock, event);
        break;
    case EVENT_JOURNAL_FAILED:
        interlock->journal_failed = true;
        break;
    case EVENT_DURABLE:
        interlock->journal_failed = false;
        break;
    case EVENT_COMMAND:
        interlock->operator_hold =
            event->integer[0] == COMMAND_HOLD || (interlock->operator_hold && event->integer[0] != COMMAND_RESUME);
        if (event->integer[0] == COMMAND_RESUME)
            resume(interlock);
        break;
    case EVENT_TICK:
    case EVENT_SCAN_STARTED:
    case EVENT_SCAN_PROGRESS:
    case EVENT_SCAN_COMPLETE:
    case EVENT_SCAN_FAILED:
    case EVENT_RESULT:
    case EVENT_ACCESS:
    case EVENT_ACCESS_LOST:
    case EVENT_ACCESS_FOUND:
    case EVENT_FOLLOWER_LOST:
    case EVENT_KIND_COUNT:
        break;
    }
}

static bool is_stale(int64_t t_ns, int64_t now_ns, double age_s_max)
{
    return t_ns == 0 || s_from_ns(now_ns - t_ns) > age_s_max;
}

void interlock_set_ruby_sight(struct interlock *interlock, bool is_in_sight, int64_t now_ns)
{
    if (interlock->ruby_out_of_sight && is_in_sight)
        interlock->ruby_sight_t_ns = now_ns;
    interlock->ruby_out_of_sight = !is_in_sight;
}

static uint32_t ruby_reasons(const struct interlock *interlock, int64_t now_ns)
{
    const struct interlock_settings *settings = &interlock->settings;
    bool was_read = interlock->ruby_t_ns != 0;
    int64_t t_ns = was_read && interlock->ruby_sight_t_ns > interlock->ruby_t_ns ? interlock->ruby_sight_t_ns
                                                                                 : interlock->ruby_t_ns;
    if (!interlock->spectrometer_found)
        return HOLD_RUBY_LINK;
    if (interlock->ruby_out_of_sight)
        return 0;
    if (interlock->ruby_rejected >= settings->ruby_rejected_max)
        return HOLD_RUBY_REJECTED;
    return is_stale(t_ns, now_ns, settings->ruby_stale_s + 2.0 * interlock->ruby_every_s) ? HOLD_RUBY_STALE : 0;
}

uint32_t interlock_reasons(const struct interlock *interlock, int64_t now_ns)
{
    const struct interlock_settings *settings = &interlock->settings;
    uint32_t reasons = 0;
    if (!(interlock->pressure_gpa <= settings->pressure_gpa_max))
        reasons |= HOLD_PRESSURE_LIMIT;
    if (interlock->journal_failed)
        reasons |= HOLD_JOURNAL;
    if (interlock->membrane_burst)
        reasons |= HOLD_MEMBRANE_BURST;
    if (interlock->membrane_foreign || interlock->membrane_astray || interlock->membrane_refused)
        reasons |= HOLD_MEMBRANE_FOREIGN;
    if (interlock->supply_low)
        reasons |= HOLD_MEMBRANE_SUPPLY;
    if (!interlock->membrane_found)
        reasons |= HOLD_MEMBRANE_LINK;
    else if (is_stale(interlock->membrane_t_ns, now_ns, settings->membrane_stale_s))
        reasons |= HOLD_MEMBRANE_STALE;
    if (interlock->stalled)
        reasons |= HOLD_MEMBRANE_STALL;
    if (interlock->at_limit)
        reasons |= HOLD_MEMBRANE_LIMIT;
    reasons |= ruby_reasons(interlock, now_ns);
    if (interlock->access_doubtful)
        reasons |= HOLD_RUBY_ACCESS;
    if (!interlock->detector_found)
        reasons |= HOLD_DETECTOR_LINK;
    if (!interlock->beam_ok || is_stale(interlock->beam_t_ns, now_ns, settings->beam_stale_s))
        reasons |= HOLD_BEAM;
    if (interlock->scan_exhausted)
        reasons |= HOLD_SCAN;
    if (interlock->operator_hold)
        reasons |= HOLD_OPERATOR;
    return reasons;
}

const char *interlock_text(uint32_t reasons)
{
    for (size_t i = 0; i < REASON_COUNT; i++)
        if (reasons & reason_texts[i].bit)
            return reason_texts[i].text;
    return "";
}

void interlock_sentence(uint32_t reasons, char *ret_text, int32_t size)
{
    size_t used = 0, room = (size_t)size;
    ret_text[0] = '\0';
    for (size_t i = 0; i < REASON_COUNT; i++) {
        if (!(reasons & reason_texts[i].bit))
            continue;
        const char *glue = used ? "; " : "";
        size_t n = strlen(glue) + strlen(reason_texts[i].text);
        if (used + n + 1 > room)
            return;
        memcpy(ret_text + used, glue, strlen(glue));
        memcpy(ret_text + used + strlen(glue), reason_texts[i].text, strlen(reason_texts[i].text) + 1);
        used += n;
    }
}
