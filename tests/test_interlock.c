/*
 * Goal: every reason for holding sets and clears by the events it is meant for and by no other; the sentence names the
 * most serious first.
 * Method: from an interlock in which nothing stands, one disturbance and its end per row of a table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "controller/event.h"
#include "controller/interlock.h"

static const struct interlock_settings settings = {.membrane_stale_s = 20.0,
                                                   .ruby_stale_s = 60.0,
                                                   .ruby_rejected_max = 3,
                                                   .beam_stale_s = 60.0,
                                                   .current_ma_min = 20.0,
                                                   .current_ma_resume = 24.0,
                                                   .beam_settle_s = 10.0,
                                                   .pressure_gpa_max = 8.0};

static void send(struct interlock *interlock, enum event_kind kind, double t_s, double value)
{
    struct event event;
    memset(&event, 0, sizeof event);
    event.kind = (int32_t)kind;
    event.t_ns = event.now_ns = ns_from_s(t_s);
    event.value[0] = value;
    if (kind == EVENT_COMMAND)
        event.integer[0] = (int64_t)value;
    interlock_observe(interlock, &event);
}

static uint32_t reasons_at(const struct interlock *interlock, double t_s)
{
    return interlock_reasons(interlock, ns_from_s(t_s));
}

/* All instruments there and fresh at `t_s`. */
static void refresh(struct interlock *interlock, double t_s)
{
    send(interlock, EVENT_MEMBRANE, t_s, 10.0);
    send(interlock, EVENT_RUBY, t_s, 1.0 + 1e-6 * t_s); /* never the same twice */
    send(interlock, EVENT_BEAM, t_s, 200.0);
}

static struct interlock quiet(double t_s)
{
    struct interlock interlock;
    interlock_init(&interlock, &settings);
    interlock.ruby_every_s = 5.0;
    send(&interlock, EVENT_MEMBRANE_FOUND, t_s, 0.0);
    send(&interlock, EVENT_SPECTROMETER_FOUND, t_s, 0.0);
    send(&interlock, EVENT_DETECTOR_FOUND, t_s, 0.0);
    send(&interlock, EVENT_BEAM, t_s - 11.0, 200.0);
    refresh(&interlock, t_s);
    assert_int_equal(reasons_at(&interlock, t_s), 0);
    return interlock;
}

static void at_first_nothing_is_known(void **state)
{
    (void)state;
    struct interlock interlock;
    interlock_init(&interlock, &settings);
    assert_int_equal(reasons_at(&interlock, 1.0), HOLD_MEMBRANE_LINK | HOLD_RUBY_LINK | HOLD_DETECTOR_LINK | HOLD_BEAM);
    send(&interlock, EVENT_MEMBRANE_FOUND, 1.0, 0.0); /* found, but not yet read */
    send(&interlock, EVENT_SPECTROMETER_FOUND, 1.0, 0.0);
    assert_int_equal(reasons_at(&interlock, 1.0),
                     HOLD_MEMBRANE_STALE | HOLD_RUBY_STALE | HOLD_DETECTOR_LINK | HOLD_BEAM);
}

static void every_reason_sets_and_clears_by_its_events(void **state)
{
    (void)state;
    static const struct {
        uint32_t reason;
        enum event_kind sets;
        double set_value;
        int n_times;
        enum event_kind clears;
        double clear_value;
    } cases[] = {
        {HOLD_PRESSURE_LIMIT, EVENT_RUBY, 8.01, 1, EVENT_RUBY, 7.99},
        {HOLD_PRESSURE_LIMIT, EVENT_RUBY, NAN, 1, EVENT_RUBY, 1.0},
        {HOLD_JOURNAL, EVENT_JOURNAL_FAILED, 0.0, 1, EVENT_DURABLE, 0.0},
        {HOLD_MEMBRANE_LINK, EVENT_MEMBRANE_LOST, 0.0, 1, EVENT_MEMBRANE_FOUND, 0.0},
        {HOLD_RUBY_LINK, EVENT_SPECTROMETER_LOST, 0.0, 1, EVENT_SPECTROMETER_FOUND, 0.0},
        {HOLD_RUBY_REJECTED, EVENT_RUBY_REJECTED, 0.0, 3, EVENT_RUBY, 1.1},
        {HOLD_DETECTOR_LINK, EVENT_DETECTOR_LOST, 0.0, 1, EVENT_DETECTOR_FOUND, 0.0},
        {HOLD_OPERATOR, EVENT_COMMAND, COMMAND_HOLD, 1, EVENT_COMMAND, COMMAND_RESUME},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct interlock interlock = quiet(100.0);
        for (int n = 0; n < cases[i].n_times; n++) {
            assert_int_equal(reasons_at(&interlock, 101.0), 0);
            send(&interlock, cases[i].sets, 101.0, cases[i].set_value);
        }
        assert_int_equal(reasons_at(&interlock, 101.0), cases[i].reason);
        for (int kind = 0; kind < EVENT_KIND_COUNT; kind++) /* nothing else clears it, and nothing else is set */
            if (kind == EVENT_TICK || (kind >= EVENT_SCAN_STARTED && kind <= EVENT_SCAN_FAILED) ||
                kind == EVENT_RESULT || kind == EVENT_FOLLOWER_LOST)
                send(&interlock, (enum event_kind)kind, 102.0, 0.0);
        assert_int_equal(reasons_at(&interlock, 102.0), cases[i].reason);
        send(&interlock, cases[i].clears, 103.0, cases[i].clear_value);
        assert_int_equal(reasons_at(&interlock, 103.0), 0);
    }
}

static void what_is_not_renewed_is_stale(void **state)
{
    (void)state;
    static const struct {
        uint32_t reason;
        enum event_kind renews;
        double age_s_max, value;
    } cases[] = {
        {HOLD_MEMBRANE_STALE, EVENT_MEMBRANE, 20.0, 10.0},
        {HOLD_RUBY_STALE, EVENT_RUBY, 70.0, 1.1}, /* 60 s and two intervals of 5 s */
        {HOLD_BEAM, EVENT_BEAM, 60.0, 200.0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct interlock interlock = quiet(100.0);
        double last_s = 100.0 + cases[i].age_s_max;
        assert_int_equal(reasons_at(&interlock, last_s - 0.1) & cases[i].reason, 0);
        assert_int_equal(reasons_at(&interlock, last_s + 0.1) & cases[i].reason, cases[i].reason);
        send(&interlock, cases[i].renews, last_s + 1.0, cases[i].value);
        assert_int_equal(reasons_at(&interlock, last_s + 1.0) & cases[i].reason, 0);
    }
    struct interlock interlock = quiet(100.0); /* rejected spectra are fresh, but no readings */
    send(&interlock, EVENT_RUBY_REJECTED, 170.0, 0.0);
    assert_true(reasons_at(&interlock, 171.0) & HOLD_RUBY_STALE);
}

static void a_ruby_that_repeats_itself_is_no_reading(void **state)
{
    (void)state;
    struct interlock interlock = quiet(100.0);
    send(&interlock, EVENT_RUBY, 101.0, 2.0);
    for (int i = 0; i < settings.ruby_rejected_max; i++) {
        assert_int_equal(reasons_at(&interlock, 102.0), 0);
        send(&interlock, EVENT_RUBY, 102.0, 2.0);
    }
    assert_int_equal(reasons_at(&interlock, 102.0), HOLD_RUBY_REJECTED);
    send(&interlock, EVENT_RUBY, 103.0, nextafter(2.0, 3.0));
    assert_int_equal(reasons_at(&interlock, 103.0), 0);
}

static void a_ruby_out_of_sight_is_neither_stale_nor_rejected(void **state)
{
    (void)state;
    struct interlock interlock = quiet(100.0);
    interlock_set_ruby_sight(&interlock, true, ns_from_s(100.0));
    assert_int_equal(reasons_at(&interlock, 171.0) & HOLD_RUBY_STALE, HOLD_RUBY_STALE);
    interlock_set_ruby_sight(&interlock, false, ns_from_s(101.0));
    for (int i = 0; i < 9; i++)
        send(&interlock, EVENT_RUBY_REJECTED, 102.0, 0.0);
    assert_int_equal(reasons_at(&interlock, 900.0) & (HOLD_RUBY_STALE | HOLD_RUBY_REJECTED | HOLD_RUBY_LINK), 0);
    send(&interlock, EVENT_SPECTROMETER_LOST, 900.0, 0.0);
    assert_int_equal(reasons_at(&interlock, 900.0) & HOLD_RUBY_LINK, HOLD_RUBY_LINK); /* a link is a link */
    send(&interlock, EVENT_SPECTROMETER_FOUND, 900.0, 0.0);
    interlock_set_ruby_sight(&interlock, true, ns_from_s(1000.0));
    assert_int_equal(reasons_at(&interlock, 1000.0) & HOLD_RUBY_REJECTED, HOLD_RUBY_REJECTED);
    send(&interlock, EVENT_RUBY, 1000.0, 1.0);
    interlock_set_ruby_sight(&interlock, false, ns_from_s(1010.0));
    interlock_set_ruby_sight(&interlock, true, ns_from_s(2000.0));
    interlock_set_ruby_sight(&interlock, true, ns_from_s(2060.0)); /* again is nothing new */
    assert_int_equal(reasons_at(&interlock, 2069.9) & HOLD_RUBY_STALE, 0);
    assert_int_equal(reasons_at(&interlock, 2070.1) & HOLD_RUBY_STALE, HOLD_RUBY_STALE);
}

static void before_the_first_reading_sight_is_no_help(void **state)
{
    (void)state;
    struct interlock interlock;
    interlock_init(&interlock, &settings);
    send(&interlock, EVENT_SPECTROMETER_FOUND, 100.0, 0.0);
    interlock_set_ruby_sight(&interlock, false, ns_from_s(100.0));
    interlock_set_ruby_sight(&interlock, true, ns_from_s(101.0));
    assert_int_equal(reasons_at(&interlock, 101.0) & HOLD_RUBY_STALE, HOLD_RUBY_STALE);
}

static void doubtful_access_is_a_reason(void **state)
{
    (void)state;
    struct interlock interlock = quiet(100.0);
    interlock.access_doubtful = true;
    assert_int_equal(reasons_at(&interlock, 101.0), HOLD_RUBY_ACCESS);
    assert_true((HOLD_REASONS_SCAN & HOLD_RUBY_ACCESS) && (HOLD_REASONS_PRESSURE & HOLD_RUBY_ACCESS));
    assert_string_equal(interlock_text(HOLD_RUBY_ACCESS | HOLD_DETECTOR_LINK), interlock_text(HOLD_RUBY_ACCESS));
    assert_string_equal(interlock_text(HOLD_RUBY_ACCESS | HOLD_RUBY_STALE), interlock_text(HOLD_RUBY_STALE));
}

static void the_beam_has_to_settle(void **state)
{
    (void)state;
    struct interlock interlock = quiet(100.0);
    send(&interlock, EVENT_BEAM, 101.0, 22.0); /* between the two limits: as it was */
    assert_int_equal(reasons_at(&interlock, 101.0), 0);
    send(&interlock, EVENT_BEAM, 102.0, 19.9);
    assert_int_equal(reasons_at(&interlock, 102.0), HOLD_BEAM);
    send(&interlock, EVENT_BEAM, 103.0, 30.0);
    send(&interlock, EVENT_BEAM, 112.0, 30.0);
    assert_int_equal(reasons_at(&interlock, 112.0), HOLD_BEAM);
    send(&interlock, EVENT_BEAM, 112.5, 22.0); /* too low to settle: begins anew */
    send(&interlock, EVENT_BEAM, 113.0, 30.0);
    send(&interlock, EVENT_BEAM, 114.0, 30.0);
    assert_int_equal(reasons_at(&interlock, 114.0), HOLD_BEAM);
    send(&interlock, EVENT_BEAM, 123.0, 30.0);
    assert_true(!(reasons_at(&interlock, 123.0) & HOLD_BEAM));
    send(&interlock, EVENT_BEAM, 124.0, NAN); /* not known is no beam */
    assert_true(reasons_at(&interlock, 124.0) & HOLD_BEAM);
}

static void only_a_resume_clears_what_a_person_has_to_look_at(void **state)
{
    (void)state;
    struct interlock interlock = quiet(100.0);
    interlock.stalled = interlock.at_limit = interlock.scan_exhausted = true;
    uint32_t expected = HOLD_MEMBRANE_STALL | HOLD_MEMBRANE_LIMIT | HOLD_SCAN;
    refresh(&interlock, 101.0);
    send(&interlock, EVENT_DURABLE, 101.0, 0.0);
    send(&interlock, EVENT_COMMAND, 101.0, COMMAND_STOP);
    assert_int_equal(reasons_at(&interlock, 101.0), expected);
    send(&interlock, EVENT_COMMAND, 101.0, COMMAND_HOLD);
    send(&interlock, EVENT_COMMAND, 101.0, COMMAND_STOP); /* does not end a hold */
    assert_int_equal(reasons_at(&interlock, 101.0), expected | HOLD_OPERATOR);
    send(&interlock, EVENT_COMMAND, 102.0, COMMAND_RESUME);
    assert_int_equal(reasons_at(&interlock, 102.0), 0);
}

static struct event membrane_event(double t_s, double membrane_bar, int64_t bits, double supply_bar)
{
    struct event event;
    memset(&event, 0, sizeof event);
    event.kind = EVENT_MEMBRANE;
    event.t_ns = event.now_ns = ns_from_s(t_s);
    event.integer[0] = bits;
    event.value[0] = event.value[1] = membrane_bar;
    event.value[3] = supply_bar;
    return event;
}

static uint32_t after(struct interlock *interlock, struct event event)
{
    interlock_observe(interlock, &event);
    return interlock_reasons(interlock, event.t_ns);
}

static void a_change_at_the_controller_stands_until_resumed(void **state)
{
    (void)state;
    static const int64_t changes[] = {MEMBRANE_SETPOINT_CHANGED, MEMBRANE_SLEW_CHANGED};
    for (size_t i = 0; i < 2; i++) {
        struct interlock interlock = quiet(100.0);
        assert_int_equal(after(&interlock, membrane_event(101.0, 10.0, changes[i], 0.0)), HOLD_MEMBRANE_FOREIGN);
        assert_int_equal(after(&interlock, membrane_event(102.0, 10.0, 0, 0.0)), HOLD_MEMBRANE_FOREIGN);
        send(&interlock, EVENT_COMMAND, 103.0, COMMAND_RESUME);
        assert_int_equal(reasons_at(&interlock, 103.0), 0);
    }
    struct interlock interlock = quiet(100.0); /* the controller's own word: as long as it says so */
    assert_int_equal(after(&interlock, membrane_event(101.0, 10.0, MEMBRANE_NOT_FOLLOWING, 0.0)),
                     HOLD_MEMBRANE_FOREIGN);
    send(&interlock, EVENT_COMMAND, 102.0, COMMAND_RESUME);
    assert_int_equal(reasons_at(&interlock, 102.0), HOLD_MEMBRANE_FOREIGN);
    assert_int_equal(after(&interlock, membrane_event(103.0, 10.0, 0, 0.0)), 0);
    struct event lost = membrane_event(104.0, 0.0, ERR_STATE, 0.0); /* a unit changed at the panel: not driven */
    lost.kind = EVENT_MEMBRANE_LOST;
    assert_int_equal(after(&interlock, lost), HOLD_MEMBRANE_FOREIGN | HOLD_MEMBRANE_LINK);
    send(&interlock, EVENT_MEMBRANE_FOUND, 105.0, 0.0);
    assert_int_equal(reasons_at(&interlock, 105.0), 0);
}

static void a_low_supply_is_a_reason_with_a_margin(void **state)
{
    (void)state;
    struct interlock interlock = quiet(100.0);
    assert_int_equal(after(&interlock, membrane_event(101.0, 50.0, 0, 51.1)), 0);
    assert_int_equal(after(&interlock, membrane_event(102.0, 50.0, 0, 50.9)), HOLD_MEMBRANE_SUPPLY);
    assert_int_equal(after(&interlock, membrane_event(103.0, 50.0, 0, 51.5)), HOLD_MEMBRANE_SUPPLY); /* no flicker */
    assert_int_equal(after(&interlock, membrane_event(104.0, 50.0, 0, 52.1)), 0);
    assert_int_equal(after(&interlock, membrane_event(105.0, 50.0, 0, NAN)), HOLD_MEMBRANE_SUPPLY);
    assert_int_equal(after(&interlock, membrane_event(106.0, 50.0, 0, 0.0)), 0); /* no gauge */
}

static uint32_t burst(struct interlock *interlock, struct event event)
{
    return after(interlock, event) & HOLD_MEMBRANE_BURST;
}

static void a_sudden_drop_is_a_burst(void **state)
{
    (void)state;
    struct interlock_settings driven = settings;
    driven.membrane_bar_per_s_max = 0.1;
    struct interlock interlock = quiet(100.0);
    interlock.settings = driven;
    /* As fast as it is driven, or one reading that is wrong, is none. */
    for (int i = 0; i < 100; i++)
        assert_int_equal(burst(&interlock, membrane_event(101.0 + i, 60.0 - 0.15 * i, 0, 0.0)), 0);
    assert_int_equal(burst(&interlock, membrane_event(201.0, 0.0, 0, 0.0)), 0);
    assert_int_equal(burst(&interlock, membrane_event(202.0, 45.0, 0, 0.0)), 0);
    assert_int_equal(burst(&interlock, membrane_event(203.0, 40.0, 0, 0.0)), 0);
    assert_int_equal(burst(&interlock, membrane_event(204.0, 35.0, 0, 0.0)), HOLD_MEMBRANE_BURST);
    assert_int_equal(burst(&interlock, membrane_event(205.0, 35.0, 0, 0.0)), HOLD_MEMBRANE_BURST);
    send(&interlock, EVENT_COMMAND, 206.0, COMMAND_RESUME);
    assert_int_equal(reasons_at(&interlock, 206.0) & HOLD_MEMBRANE_BURST, 0);
    assert_int_equal(burst(&interlock, membrane_event(207.0, 35.0, 0, 0.0)), 0); /* where it stands now */
}

static void one_instrument_gives_one_reason_at_a_time(void **state)
{
    (void)state;
    struct interlock interlock = quiet(100.0); /* a link that is lost is not also stale, nor are its spectra rejected */
    for (int i = 0; i < settings.ruby_rejected_max + 2; i++)
        send(&interlock, EVENT_RUBY_REJECTED, 101.0, 0.0);
    assert_int_equal(reasons_at(&interlock, 900.0), HOLD_MEMBRANE_STALE | HOLD_RUBY_REJECTED | HOLD_BEAM);
    send(&interlock, EVENT_SPECTROMETER_LOST, 900.0, 0.0);
    send(&interlock, EVENT_MEMBRANE_LOST, 900.0, 0.0);
    assert_int_equal(reasons_at(&interlock, 900.0), HOLD_MEMBRANE_LINK | HOLD_RUBY_LINK | HOLD_BEAM);
    send(&interlock, EVENT_SPECTROMETER_FOUND, 901.0, 0.0); /* found again, but its last words stand */
    send(&interlock, EVENT_MEMBRANE_FOUND, 901.0, 0.0);
    assert_int_equal(reasons_at(&interlock, 901.0), HOLD_MEMBRANE_STALE | HOLD_RUBY_REJECTED | HOLD_BEAM);
    refresh(&interlock, 902.0);
    assert_int_equal(reasons_at(&interlock, 902.0), 0);
}

static void the_limits_themselves_are_allowed(void **state)
{
    (void)state;
    struct interlock interlock = quiet(100.0);
    send(&interlock, EVENT_RUBY, 101.0, settings.pressure_gpa_max);
    send(&interlock, EVENT_BEAM, 101.0, settings.current_ma_min);
    assert_int_equal(reasons_at(&interlock, 101.0), 0);
    send(&interlock, EVENT_RUBY, 102.0, -INFINITY); /* low is no danger */
    assert_int_equal(reasons_at(&interlock, 102.0), 0);
    send(&interlock, EVENT_RUBY, 103.0, INFINITY);
    assert_int_equal(reasons_at(&interlock, 103.0), HOLD_PRESSURE_LIMIT);
}

/* Slower readings are not staler: two intervals may pass beside what is always allowed. */
static void a_slow_cadence_is_waited_for(void **state)
{
    (void)state;
    for (double every_s = 0.0; every_s <= 60.0; every_s += 15.0) {
        struct interlock interlock = quiet(100.0);
        interlock.ruby_every_s = every_s;
        double last_s = 100.0 + settings.ruby_stale_s + 2.0 * every_s;
        assert_false(reasons_at(&interlock, last_s - 0.1) & HOLD_RUBY_STALE);
        assert_true(reasons_at(&interlock, last_s + 0.1) & HOLD_RUBY_STALE);
    }
}

/* What a step does not need does not stop it. */
static void every_reason_stops_something_and_only_that(void **state)
{
    (void)state;
    const uint32_t scan_only = HOLD_DETECTOR_LINK | HOLD_BEAM | HOLD_SCAN, both = HOLD_JOURNAL | HOLD_OPERATOR;
    for (int bit = 0; bit < 13; bit++) {
        uint32_t reason = UINT32_C(1) << bit;
        assert_int_equal((HOLD_REASONS_SCAN & reason) != 0, ((scan_only | both) & reason) != 0);
        assert_int_equal((HOLD_REASONS_PRESSURE & reason) != 0, (scan_only & reason) == 0);
    }
}

static void the_sentence_names_the_most_serious_first(void **state)
{
    (void)state;
    char text[2000], before[2000];
    assert_string_equal(interlock_text(0), "");
    interlock_sentence(0, text, sizeof text);
    assert_string_equal(text, "");
    uint32_t all = 0;
    for (int bit = 0; bit < 13; bit++) {
        uint32_t reason = UINT32_C(1) << bit;
        assert_true(strlen(interlock_text(reason)) > 0);
        assert_ptr_equal(interlock_text(reason | reason << 1), interlock_text(reason));
        all |= reason;
    }
    interlock_sentence(all, text, sizeof text);
    const char *place = text;
    for (int bit = 0; bit < 13; bit++) {
        const char *found = strstr(place, interlock_text(UINT32_C(1) << bit));
        assert_non_null(found);
        place = found + 1;
    }
    for (int32_t size = 1; size < 200; size++) { /* cut between reasons, always ended, never beyond */
        memset(before, '#', sizeof before);
        interlock_sentence(all, before, size);
        assert_true(strlen(before) < (size_t)size);
        assert_memory_equal(before, text, strlen(before));
        assert_int_equal(before[size], '#');
    }
    interlock_sentence(HOLD_BEAM | HOLD_JOURNAL, text, sizeof text);
    assert_string_equal(text, "the journal cannot be written: nothing moves that is not written down; "
                              "no beam, or the ring current is not known");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_first_nothing_is_known),
        cmocka_unit_test(every_reason_sets_and_clears_by_its_events),
        cmocka_unit_test(what_is_not_renewed_is_stale),
        cmocka_unit_test(a_ruby_that_repeats_itself_is_no_reading),
        cmocka_unit_test(a_ruby_out_of_sight_is_neither_stale_nor_rejected),
        cmocka_unit_test(before_the_first_reading_sight_is_no_help),
        cmocka_unit_test(doubtful_access_is_a_reason),
        cmocka_unit_test(the_beam_has_to_settle),
        cmocka_unit_test(only_a_resume_clears_what_a_person_has_to_look_at),
        cmocka_unit_test(a_change_at_the_controller_stands_until_resumed),
        cmocka_unit_test(a_low_supply_is_a_reason_with_a_margin),
        cmocka_unit_test(a_sudden_drop_is_a_burst),
        cmocka_unit_test(one_instrument_gives_one_reason_at_a_time),
        cmocka_unit_test(the_limits_themselves_are_allowed),
        cmocka_unit_test(a_slow_cadence_is_waited_for),
        cmocka_unit_test(every_reason_stops_something_and_only_that),
        cmocka_unit_test(the_sentence_names_the_most_serious_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
