#include "tests/nights/night.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"

#define DAY_S 86400

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

void night_add_deflate(struct core_settings *settings)
{
    assert(settings->n_steps < PLAN_STEPS_MAX);
    settings->steps[settings->n_steps++] = (struct plan_step){.kind = PLAN_DEFLATE};
}

/* ---- events and actions -------------------------------------------------------------------------------------- */

static struct event make_event(int32_t kind)
{
    struct event event;
    memset(&event, 0, sizeof event);
    event.kind = kind;
    return event;
}

/* Of the faults that last, or have lasted a minute ago. */
static void note_reasons(struct night *night, uint32_t reasons)
{
    for (int i = 0; i < night->n_faults; i++) {
        struct night_fault *fault = &night->faults[i];
        if (fault->is_now || (fault->is_over && s_from_ns(night->now_ns) < fault->to_s + 60.0))
            fault->reasons |= reasons;
    }
}

static void execute(struct night *night, const struct action *action)
{
    switch ((enum action_kind)action->kind) {
    case ACTION_JOURNAL:
        if (night->posted == night->durable)
            night->posted_ns = night->now_ns;
        night->posted = action->integer[0];
        break;
    case ACTION_VALVES_SHUT:
        night->is_shut = true;
        break;
    case ACTION_SETPOINT:
        if (!night_has_fault(night, FAULT_MEMBRANE_OFF) && !night->is_link_out)
            night->setpoint_bar = action->value[0];
        break;
    case ACTION_SLEW:
        night->slew_bar_per_s = action->value[0] / 60.0;
        break;
    case ACTION_CADENCE:
        night->cadence_s = action->value[0];
        break;
    case ACTION_SCAN_START:
        night->n_scans_started++;
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
        note_reasons(night, (uint32_t)action->integer[0]);
        night->is_refused = night->is_refused || (action->integer[0] & HOLD_MEMBRANE_LIMIT) != 0;
        break;
    case ACTION_FINISHED:
        night->is_finished = true;
        break;
    case ACTION_ANALYSE:
    case ACTION_PHASE:
    case ACTION_PACE:
    case ACTION_DRIFT:
    case ACTION_ACCESS:
    case ACTION_CALIBRATION:
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
    oracle_see_event(&night->oracle, &event);
    core_step(&night->core, &event, &actions);
    for (int i = 0; i < actions.n; i++) {
        oracle_see_action(&night->oracle, &actions.list[i], &night->plant);
        execute(night, &actions.list[i]);
    }
    oracle_see_answer(&night->oracle);
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

/* ---- faults -------------------------------------------------------------------------------------------------- */

void night_add_fault(struct night *night, enum fault fault, enum moment moment, double from_s, double lasts_s)
{
    assert(night->n_faults < NIGHT_FAULTS_MAX);
    night->faults[night->n_faults++] =
        (struct night_fault){.fault = fault, .moment = moment, .from_s = from_s, .lasts_s = lasts_s};
}

bool night_has_fault(const struct night *night, enum fault fault)
{
    for (int i = 0; i < night->n_faults; i++)
        if (night->faults[i].is_now && night->faults[i].fault == fault)
            return true;
    return false;
}

static bool is_moment(const struct night *night, enum moment moment)
{
    const struct moment_kind *kind = moment_kind(moment);
    const struct loading *loading = &night->core.loading;
    return night->core.phase == kind->phase &&
           (kind->state == LOADING_IDLE || (loading->state == kind->state && loading->direction == kind->direction)) &&
           (!kind->is_scanning || night->scan_end_ns != 0);
}

/* Lost when a link goes, found when it comes; an intermittent one goes and comes every 20 s. */
static void tell(struct night *night, const struct fault_kind *kind, bool is_out)
{
    if (kind->begin != EVENT_TICK)
        send(night, make_event(is_out ? kind->begin : kind->end));
}

static void begin_fault(struct night *night, const struct night_fault *fault)
{
    const struct fault_kind *kind = fault_kind(fault->fault);
    night->is_link_out = fault->fault == FAULT_MEMBRANE_INTERMITTENT;
    tell(night, kind, true);
    if (fault->fault == FAULT_DETECTOR_OFF && night->scan_end_ns)
        send_scan(night, EVENT_SCAN_FAILED);
    if (fault->fault == FAULT_CELL_SLIP)
        night->plant.slip_gpa += 0.3;
    if (fault->fault == FAULT_CELL_WARM)
        night->plant.temperature_noise_k += 2.0;
    if (fault->fault == FAULT_CELL_BLOWOUT)
        night->plant.load_bar = night->plant.slip_gpa = night->plant.law.gpa_per_bar = 0.0;
    if (fault->fault == FAULT_VALVE_LEAK)
        night->plant.law.leak_bar_per_s *= 100.0;
}

static void end_fault(struct night *night, const struct night_fault *fault)
{
    if (fault->fault == FAULT_VALVE_LEAK)
        night->plant.law.leak_bar_per_s /= 100.0;
    night->is_link_out = false;
    tell(night, fault_kind(fault->fault), false);
}

static void drive_fault(struct night *night, struct night_fault *fault)
{
    double t_s = s_from_ns(night->now_ns);
    if (fault->is_over || fault->fault == FAULT_NONE)
        return;
    if (fault->is_now && t_s > fault->to_s) {
        end_fault(night, fault);
        fault->is_now = false;
        fault->is_over = true;
    } else if (fault->is_now && fault->fault == FAULT_MEMBRANE_INTERMITTENT &&
               ((int64_t)t_s / 20 % 2 == 0) != night->is_link_out) {
        night->is_link_out = !night->is_link_out;
        tell(night, fault_kind(fault->fault), night->is_link_out);
    } else if (!fault->is_now && !is_moment(night, fault->moment)) {
        fault->moment_ns = 0;
    } else if (!fault->is_now) {
        fault->moment_ns = fault->moment_ns ? fault->moment_ns : night->now_ns;
        fault->is_now = s_from_ns(night->now_ns - fault->moment_ns) >= fault->from_s;
        fault->to_s = t_s + fault->lasts_s;
        if (fault->is_now)
            begin_fault(night, fault);
    }
}

static void drive_faults(struct night *night)
{
    for (int i = 0; i < night->n_faults; i++)
        drive_fault(night, &night->faults[i]);
}

/* ---- instruments --------------------------------------------------------------------------------------------- */

/* What the controller makes of what it was told. */
static void drive_membrane(struct night *night)
{
    struct plant_input *input = &night->input;
    double present_bar = night->plant.membrane_bar;
    bool is_by_hand = night->core.phase == CORE_DEFLATED; /* hands empty the membrane */
    input->membrane_bar_setpoint = is_by_hand ? 0.0 : night->setpoint_bar;
    input->slew_bar_per_s = night->slew_bar_per_s;
    input->output_on = !night_has_fault(night, FAULT_VALVE_LEAK) && !night->is_shut;
    if (night_has_fault(night, FAULT_MEMBRANE_STUCK))
        input->membrane_bar_setpoint = present_bar;
    if (night_has_fault(night, FAULT_SUPPLY_OFF))
        input->membrane_bar_setpoint = fmin(input->membrane_bar_setpoint, present_bar);
    if (night_has_fault(night, FAULT_MEMBRANE_SLOW))
        input->slew_bar_per_s *= 0.1;
}

static double past(const struct night *night, const double *values, int32_t delay_s)
{
    int64_t second = night->pass - delay_s;
    return values[(second > 0 ? second : 0) % NIGHT_DELAY_S_MAX];
}

static void remember(struct night *night)
{
    int64_t k = night->pass % NIGHT_DELAY_S_MAX;
    night->pressure_gpa_past[k] = plant_pressure_gpa(&night->plant);
    night->membrane_bar_past[k] = night->plant.membrane_bar;
}

/* What the ruby says: noise, a shift with temperature, and now and then a wrong reading that looks right. */
static double read_pressure(struct night *night)
{
    const struct night_readings *readings = &night->readings;
    double kelvin = night->plant.temperature_k - 296.0;
    double reading_gpa = past(night, night->pressure_gpa_past, night_has_fault(night, FAULT_RUBY_DELAYED) ? 20 : 0) +
                         readings->temperature_gpa_per_k * kelvin +
                         readings->pressure_gpa_sigma * random_normal(&night->random);
    if (random_uniform(&night->random) < readings->outlier_fraction)
        reading_gpa += readings->outlier_gpa * (2.0 * random_uniform(&night->random) - 1.0);
    if (night_has_fault(night, FAULT_RUBY_WRONG))
        reading_gpa += 0.3;
    return reading_gpa;
}

static void drive_spectrometer(struct night *night)
{
    double t_s = s_from_ns(night->now_ns);
    if (t_s < night->ruby_due_s || night_has_fault(night, FAULT_RUBY_OFF))
        return;
    night->ruby_due_s = t_s + (night_has_fault(night, FAULT_RUBY_SLOW) ? 60.0 : night->cadence_s);
    bool is_rejected = night_has_fault(night, FAULT_RUBY_GARBAGE) ||
                       (night_has_fault(night, FAULT_RUBY_INTERMITTENT) && random_uniform(&night->random) < 0.75);
    if (is_rejected) {
        send(night, make_event(EVENT_RUBY_REJECTED));
        return;
    }
    if (!night_has_fault(night, FAULT_RUBY_STUCK))
        night->pressure_gpa_read = read_pressure(night);
    send_value(night, EVENT_RUBY, night->pressure_gpa_read, night->readings.pressure_gpa_sigma);
}

static void read_membrane(struct night *night)
{
    double t_s = s_from_ns(night->now_ns);
    if (t_s < night->membrane_due_s || night_has_fault(night, FAULT_MEMBRANE_OFF) || night->is_link_out ||
        night_has_fault(night, FAULT_MEMBRANE_GARBAGE))
        return;
    night->membrane_due_s = t_s + night->cadence_s / 5.0;
    double noise_bar = night->readings.membrane_bar_sigma * random_normal(&night->random);
    int32_t delay_s = night_has_fault(night, FAULT_MEMBRANE_DELAYED) ? 10 : 0;
    send_value(night, EVENT_MEMBRANE, past(night, night->membrane_bar_past, delay_s) + noise_bar, night->setpoint_bar);
}

static void read_beam(struct night *night)
{
    double t_s = s_from_ns(night->now_ns), current_ma = 200.0;
    if (t_s < night->beam_due_s || night_has_fault(night, FAULT_BEAM_DELAYED))
        return;
    night->beam_due_s = t_s + night->cadence_s;
    if (night_has_fault(night, FAULT_BEAM_OFF))
        current_ma = 0.0;
    if (night_has_fault(night, FAULT_BEAM_GARBAGE))
        current_ma = NAN;
    send_value(night, EVENT_BEAM, current_ma, 0.0);
}

static void drive_detector(struct night *night)
{
    if (!night->scan_end_ns || night->now_ns < night->scan_end_ns || night_has_fault(night, FAULT_DETECTOR_STUCK))
        return;
    bool is_failing = night_has_fault(night, FAULT_DETECTOR_GARBAGE) ||
                      (night_has_fault(night, FAULT_DETECTOR_INTERMITTENT) && night->n_scans_started % 2 != 0);
    send_scan(night, is_failing ? EVENT_SCAN_FAILED : EVENT_SCAN_COMPLETE);
}

static void drive_disk(struct night *night)
{
    bool is_late = night_has_fault(night, FAULT_DISK_SLOW) && s_from_ns(night->now_ns - night->posted_ns) < 3.0;
    if (night->posted == night->durable || is_late || night_has_fault(night, FAULT_DISK_OFF))
        return;
    night->durable = night->posted;
    struct event event = make_event(EVENT_DURABLE);
    event.integer[0] = night->durable;
    send(night, event);
}

static void drive_instruments(struct night *night)
{
    read_beam(night);
    drive_spectrometer(night);
    read_membrane(night);
    drive_detector(night);
    drive_disk(night);
}

/* ---- what came of it ----------------------------------------------------------------------------------------------
 */

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
    night->middle = night->plant; /* the same slips and temperatures from here on */
    night->middle.membrane_bar = night->middle.load_bar + night->middle.law.takeup_bar;
}

static void watch_isobar(struct night *night, double pressure_gpa)
{
    struct night_change *change = present_change(night);
    const struct plant_input still = {
        .membrane_bar_setpoint = night->middle.membrane_bar, .slew_bar_per_s = 1.0, .output_on = true};
    if (!change || !change->is_started)
        return;
    plant_step(&night->middle, 0.5, &still);
    plant_step(&night->middle, 0.5, &still);
    double departure_gpa = fabs(pressure_gpa - night->isobar_start_gpa);
    double oracle_gpa = fabs(plant_pressure_gpa(&night->middle) - night->isobar_start_gpa);
    change->departure_gpa = fmax(change->departure_gpa, departure_gpa);
    change->departure_gpa_oracle = fmax(change->departure_gpa_oracle, oracle_gpa);
}

static bool is_any_fault(const struct night *night)
{
    for (int i = 0; i < night->n_faults; i++)
        if (night->faults[i].is_now)
            return true;
    return false;
}

static void observe_truth(struct night *night)
{
    double pressure_gpa = plant_pressure_gpa(&night->plant);
    struct night_change *change;
    bool is_new_step = night->core.step_index != night->step_index;
    oracle_see_truth(&night->oracle, &night->plant, &night->input);
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
    if (change && is_any_fault(night))
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
                            .slew_bar_per_s = 0.1,
                            .now_ns = NS_PER_S,
                            .cadence_s = 5.0,
                            .step_index = -1,
                            .fault_gpa_max = -INFINITY};
    core_init(&night->core, settings);
    oracle_begin(&night->oracle, settings);
    remember(night);
    send(night, make_event(EVENT_MEMBRANE_FOUND));
    send(night, make_event(EVENT_SPECTROMETER_FOUND));
    send(night, make_event(EVENT_DETECTOR_FOUND));
}

bool night_step(struct night *night)
{
    if (night->is_finished || (night->is_refused && !night->has_operator) || s_from_ns(night->now_ns) > NIGHT_S_MAX)
        return false;
    night->pass++;
    night->now_ns += NS_PER_S;
    drive_membrane(night);
    plant_step(&night->plant, 0.5, &night->input);
    plant_step(&night->plant, 0.5, &night->input);
    remember(night);
    drive_faults(night);
    drive_instruments(night);
    observe_truth(night);
    return true;
}
