#include "tests/nights/night.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"

#define DAY_S 86400

static const struct {
    int32_t begin, end;
} fault_events[] = {
#define X(name, begin, end) {begin, end},
    FAULT_LIST(X)
#undef X
};

const char *night_invariant_text(enum invariant invariant)
{
    static const char *const texts[] = {
#define X(name, text) text,
        INVARIANT_LIST(X)
#undef X
    };
    return texts[invariant];
}

/* ---- settings ------------------------------------------------------------------------------------------------ */

void night_default_settings(struct core_settings *ret_settings)
{
    static struct plan plan;
    static struct beamline beamline;
    plan = (struct plan){.cell = {.pressure_gpa_max = 8.0, .membrane_bar_max = 130.0},
                         .n_steps = 1,
                         .steps = {{.kind = PLAN_PRELOADED, .pressure_gpa_target = 0.1}}};
    beamline = (struct beamline){.membrane = {.membrane_bar_max = 150.0, .slew_bar_per_min_max = 8.0},
                                 .ring = {.current_ma_min = 20.0}};
    core_settings_init(ret_settings, &plan, &beamline);
}

void night_add_change(struct core_settings *settings, double target_gpa, double previous_gpa, double isobar_s,
                      int32_t n_scans)
{
    assert(settings->n_steps + 2 <= PLAN_STEPS_MAX);
    settings->steps[settings->n_steps++] =
        (struct plan_step){.kind = target_gpa > previous_gpa ? PLAN_LOAD : PLAN_UNLOAD,
                           .pressure_gpa_target = target_gpa,
                           .rate_bar_per_min = 2.0};
    settings->steps[settings->n_steps++] = (struct plan_step){.kind = PLAN_ISOBAR,
                                                              .pressure_gpa_target = target_gpa,
                                                              .duration_s = isobar_s,
                                                              .n_scans = n_scans,
                                                              .n_frames = 6000,
                                                              .frame_time_s = 0.1,
                                                              .drift_gpa_max = 0.12};
    settings->needs_detector |= n_scans > 0;
}

/* ---- events and actions -------------------------------------------------------------------------------------- */

static struct event make_event(int32_t kind)
{
    struct event event;
    memset(&event, 0, sizeof event);
    event.kind = kind;
    return event;
}

static void violate(struct night *night, enum invariant invariant, bool is_kept)
{
    night->n_violations[invariant] += !is_kept;
}

static void take_setpoint(struct night *night, double setpoint_bar)
{
    bool is_fresh = s_from_ns(night->now_ns - night->core.interlock.ruby_t_ns) < 120.0;
    bool is_lower = setpoint_bar <= night->input.membrane_bar_setpoint;
    violate(night, INVARIANT_V1, setpoint_bar >= 0.0 && setpoint_bar <= night->core.settings.loading.membrane_bar_max);
    violate(night, INVARIANT_V2, is_fresh || is_lower); /* the retreat is the one move without a ruby */
    violate(night, INVARIANT_V5, night->core.phase != CORE_ISOBAR);
    if (!(night->fault == FAULT_MEMBRANE && night->is_fault_now))
        night->input.membrane_bar_setpoint = setpoint_bar;
}

static void execute(struct night *night, const struct action *action)
{
    const unsigned char *bytes = (const unsigned char *)action;
    for (size_t i = 0; i < sizeof *action; i++)
        night->hash = (night->hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    switch ((enum action_kind)action->kind) {
    case ACTION_JOURNAL:
        night->posted = action->integer[0];
        break;
    case ACTION_SETPOINT:
        take_setpoint(night, action->value[0]);
        break;
    case ACTION_SLEW:
        night->input.slew_bar_per_s = action->value[0] / 60.0;
        break;
    case ACTION_CADENCE:
        night->cadence_s = action->value[0];
        break;
    case ACTION_SCAN_START:
        night->scan_number = action->integer[0];
        night->attempt = action->integer[1];
        night->scan_end_ns = night->now_ns + ns_from_s(action->value[0] * action->value[1] + 5.0);
        break;
    case ACTION_SCAN_ABORT:
        night->scan_end_ns = 0;
        break;
    case ACTION_ISOBAR_DONE:
        night->n_isobars++;
        if (night->n_changes > 0)
            night->changes[night->n_changes - 1].is_done = true;
        break;
    case ACTION_HOLD:
        night->n_holds += action->integer[0] != 0;
        night->reasons_seen |= (uint32_t)action->integer[0];
        night->is_refused = night->is_refused || (action->integer[0] & HOLD_MEMBRANE_LIMIT) != 0;
        break;
    case ACTION_FINISHED:
        night->is_finished = true;
        break;
    case ACTION_ANALYSE:
    case ACTION_PHASE:
    case ACTION_PACE:
    case ACTION_ACCESS:
    case ACTION_KIND_COUNT:
        break;
    }
}

static void send(struct night *night, struct event event)
{
    struct core_actions actions;
    event.seq = ++night->seq;
    event.pass = night->pass;
    event.now_ns = event.t_ns = night->now_ns;
    core_step(&night->core, &event, &actions);
    for (int i = 0; i < actions.n; i++)
        execute(night, &actions.list[i]);
    violate(night, INVARIANT_V8, !night->core.is_holding || night->core.reasons_shown || night->core.is_stopping);
}

static void send_value(struct night *night, int32_t kind, double a, double b)
{
    struct event event = make_event(kind);
    event.value[0] = a;
    event.value[1] = b;
    send(night, event);
}

static void send_scan(struct night *night, int32_t kind)
{
    struct event event = make_event(kind);
    event.integer[0] = night->scan_number;
    event.integer[1] = night->attempt;
    night->scan_end_ns = 0;
    night->n_scans_complete += kind == EVENT_SCAN_COMPLETE;
    send(night, event);
}

void night_command(struct night *night, enum event_command command)
{
    struct event event = make_event(EVENT_COMMAND);
    event.integer[0] = command;
    send(night, event);
}

/* ---- instruments and faults ---------------------------------------------------------------------------------- */

static bool is_down(const struct night *night, enum fault fault)
{
    return night->fault == fault && night->is_fault_now;
}

static void drive_fault(struct night *night)
{
    double t_s = s_from_ns(night->now_ns), in_phase_s = s_from_ns(night->now_ns - night->core.phase_t_ns);
    bool is_due = night->core.phase == night->fault_phase && in_phase_s > night->fault_from_s;
    if (night->fault == FAULT_NONE || night->is_fault_over)
        return;
    if (!night->is_fault_now && is_due) {
        night->is_fault_now = true;
        night->fault_to_s = t_s + night->fault_s;
        send(night, make_event(fault_events[night->fault].begin));
        if (night->fault == FAULT_DETECTOR && night->scan_end_ns)
            send_scan(night, EVENT_SCAN_FAILED);
    } else if (night->is_fault_now && t_s > night->fault_to_s) {
        night->is_fault_now = false;
        night->is_fault_over = true;
        send(night, make_event(fault_events[night->fault].end));
    }
}

/* What the ruby says: noise, a shift with temperature, and now and then a wrong reading that looks right. */
static double read_pressure(struct night *night)
{
    const struct night_readings *readings = &night->readings;
    double kelvin = night->plant.temperature_k - 296.0;
    double reading_gpa = plant_pressure_gpa(&night->plant) + readings->temperature_gpa_per_k * kelvin +
                         readings->pressure_gpa_sigma * random_normal(&night->random);
    if (random_uniform(&night->random) < readings->outlier_fraction)
        reading_gpa += readings->outlier_gpa * (2.0 * random_uniform(&night->random) - 1.0);
    return reading_gpa;
}

static void drive_instruments(struct night *night)
{
    double t_s = s_from_ns(night->now_ns);
    if (night->posted > night->durable && !is_down(night, FAULT_DISK)) {
        night->durable = night->posted;
        struct event event = make_event(EVENT_DURABLE);
        event.integer[0] = night->durable;
        send(night, event);
    }
    if (t_s >= night->beam_due_s) {
        night->beam_due_s = t_s + night->cadence_s;
        send_value(night, EVENT_BEAM, is_down(night, FAULT_BEAM) ? 0.0 : 200.0, 0.0);
    }
    if (t_s >= night->ruby_due_s && !is_down(night, FAULT_SPECTROMETER)) {
        night->ruby_due_s = t_s + night->cadence_s;
        send_value(night, EVENT_RUBY, read_pressure(night), night->readings.pressure_gpa_sigma);
    }
    if (t_s >= night->membrane_due_s && !is_down(night, FAULT_MEMBRANE)) {
        night->membrane_due_s = t_s + night->cadence_s / 5.0;
        double noise_bar = night->readings.membrane_bar_sigma * random_normal(&night->random);
        send_value(night, EVENT_MEMBRANE, night->plant.membrane_bar + noise_bar, night->input.membrane_bar_setpoint);
    }
    if (night->scan_end_ns && night->now_ns >= night->scan_end_ns)
        send_scan(night, EVENT_SCAN_COMPLETE);
}

/* ---- the oracle ---------------------------------------------------------------------------------------------- */

static struct night_change *present_change(struct night *night)
{
    return night->n_changes > 0 ? &night->changes[night->n_changes - 1] : NULL;
}

static void begin_change(struct night *night)
{
    const struct plan_step *step = &night->core.settings.steps[night->core.step_index];
    assert(night->n_changes < NIGHT_CHANGES_MAX);
    night->change_ns = night->now_ns;
    night->changes[night->n_changes++] = (struct night_change){.direction = step->kind == PLAN_LOAD ? 1 : -1,
                                                               .target_gpa = step->pressure_gpa_target,
                                                               .overshoot_gpa = -INFINITY};
}

static void begin_isobar(struct night *night, double pressure_gpa)
{
    struct night_change *change = present_change(night);
    night->isobar_start_gpa = pressure_gpa;
    if (!change)
        return;
    change->is_started = true;
    change->change_s = s_from_ns(night->now_ns - night->change_ns);
    change->start_error_gpa = pressure_gpa - change->target_gpa;
    night->oracle = night->plant; /* the same slips and temperatures from here on */
    night->oracle.membrane_bar = night->oracle.load_bar + night->oracle.law.takeup_bar;
}

static void watch_isobar(struct night *night, double pressure_gpa)
{
    struct night_change *change = present_change(night);
    const struct plant_input still = {
        .membrane_bar_setpoint = night->oracle.membrane_bar, .slew_bar_per_s = 1.0, .output_on = true};
    if (!change || !change->is_started)
        return;
    plant_step(&night->oracle, 0.5, &still);
    plant_step(&night->oracle, 0.5, &still);
    double departure_gpa = fabs(pressure_gpa - night->isobar_start_gpa);
    double oracle_gpa = fabs(plant_pressure_gpa(&night->oracle) - night->isobar_start_gpa);
    change->departure_gpa = fmax(change->departure_gpa, departure_gpa);
    change->departure_gpa_oracle = fmax(change->departure_gpa_oracle, oracle_gpa);
}

static void observe_truth(struct night *night)
{
    double pressure_gpa = plant_pressure_gpa(&night->plant);
    struct night_change *change;
    bool is_new_step = night->core.step_index != night->step_index;
    violate(night, INVARIANT_LIMIT, pressure_gpa < night->core.settings.loading.pressure_gpa_max);
    if (night->core.phase == CORE_LOADING && is_new_step)
        begin_change(night);
    if (night->core.phase == CORE_ISOBAR && is_new_step)
        begin_isobar(night, pressure_gpa);
    else if (night->core.phase == CORE_ISOBAR)
        watch_isobar(night, pressure_gpa);
    if (night->core.phase == CORE_LOADING || night->core.phase == CORE_ISOBAR)
        night->step_index = night->core.step_index;
    change = present_change(night);
    if (change && !change->is_started)
        change->overshoot_gpa = fmax(change->overshoot_gpa, change->direction * (pressure_gpa - change->target_gpa));
    if (change && night->is_fault_now)
        night->fault_gpa_max = fmax(night->fault_gpa_max, change->direction * (pressure_gpa - change->target_gpa));
}

double night_pressure_gpa_if_died(const struct night *night)
{
    struct plant plant = night->plant;
    plant.law.slip_gpa_sigma = 0.0; /* slips are events, not consequences */
    double pressure_gpa_max = -INFINITY;
    for (int s = 0; s < DAY_S; s++) {
        plant_step(&plant, 1.0, &night->input);
        pressure_gpa_max = fmax(pressure_gpa_max, plant_pressure_gpa(&plant));
    }
    return pressure_gpa_max;
}

/* ---- a night ------------------------------------------------------------------------------------------------- */

void night_begin(struct night *night, const struct core_settings *settings, const struct plant *plant,
                 const struct night_readings *readings, uint64_t seed)
{
    *night = (struct night){.plant = *plant,
                            .readings = *readings,
                            .random = {.state = seed},
                            .input = {.slew_bar_per_s = 0.1, .output_on = true},
                            .now_ns = NS_PER_S,
                            .cadence_s = 5.0,
                            .step_index = -1,
                            .fault_gpa_max = -INFINITY,
                            .hash = UINT64_C(0xcbf29ce484222325)};
    core_init(&night->core, settings);
    send(night, make_event(EVENT_MEMBRANE_FOUND));
    send(night, make_event(EVENT_SPECTROMETER_FOUND));
    send(night, make_event(EVENT_DETECTOR_FOUND));
}

bool night_step(struct night *night)
{
    if (night->is_finished || night->is_refused || s_from_ns(night->now_ns) > NIGHT_S_MAX)
        return false;
    night->pass++;
    night->now_ns += NS_PER_S;
    plant_step(&night->plant, 0.5, &night->input);
    plant_step(&night->plant, 0.5, &night->input);
    drive_fault(night);
    drive_instruments(night);
    observe_truth(night);
    return true;
}

int64_t night_violations(const struct night *night)
{
    int64_t n = 0;
    for (int i = 0; i < INVARIANT_COUNT; i++)
        n += night->n_violations[i];
    return n;
}
