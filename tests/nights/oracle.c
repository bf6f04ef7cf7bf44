#include "tests/nights/oracle.h"

#include <math.h>
#include <stddef.h>

#include "base/clock.h"

#define EXACT_BAR 1e-9 /* rounding */

static const struct {
    const char *name, *text;
} invariants[] = {
#define X(name, text) {#name, text},
    INVARIANT_LIST(X)
#undef X
};

const char *oracle_invariant_name(enum invariant invariant) { return invariants[invariant].name; }
const char *oracle_invariant_text(enum invariant invariant) { return invariants[invariant].text; }

static void judge(struct oracle *oracle, enum invariant invariant, bool is_kept, double seen, double allowed)
{
    struct oracle_finding *finding = &oracle->findings[invariant];
    if (is_kept)
        return;
    if (oracle->n_violations[invariant]++ == 0)
        *finding = (struct oracle_finding){.t_ns = oracle->now_ns, .seen = seen, .allowed = allowed};
    if (oracle->n_violations[invariant] == 1 || fabs(seen - allowed) > fabs(finding->seen_worst - finding->allowed))
        finding->seen_worst = seen;
}

void oracle_begin(struct oracle *ret_oracle, const struct core_settings *settings)
{
    *ret_oracle = (struct oracle){.settings = *settings,
                                  .hash = UINT64_C(0xcbf29ce484222325),
                                  .setpoint_bar = NAN,
                                  .crossing_bar = NAN,
                                  .furthest_bar = -INFINITY,
                                  .step_index_announced = -1,
                                  .is_new_setpoint = true};
}

static void hash_bytes(struct oracle *oracle, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        oracle->hash = (oracle->hash ^ bytes[i]) * UINT64_C(0x100000001b3);
}

static const struct plan_step *step_of(const struct oracle *oracle)
{
    return &oracle->settings.steps[oracle->step_index];
}

static int direction_of(const struct oracle *oracle) { return step_of(oracle)->kind == PLAN_LOAD ? 1 : -1; }

static double age_s(const struct oracle *oracle, int64_t t_ns) { return s_from_ns(oracle->now_ns - t_ns); }

static bool is_fresh(const struct oracle *oracle)
{
    const struct interlock_settings *limits = &oracle->settings.interlock;
    double age_s_max = limits->ruby_stale_s + ORACLE_FRESH_PER_CADENCE * oracle->cadence_s;
    return oracle->has_ruby && age_s(oracle, oracle->ruby_t_ns) <= age_s_max &&
           oracle->n_rejected < limits->ruby_rejected_max;
}

/* Not held, not being stopped: the change goes on. */
static bool is_held(const struct oracle *oracle)
{
    return (oracle->shown & HOLD_REASONS_PRESSURE) != 0 || oracle->is_stopping;
}

/* ---- events -------------------------------------------------------------------------------------------------- */

static void see_durable(struct oracle *oracle, int64_t number)
{
    oracle->durable = number;
    oracle->pending_t_ns = number >= oracle->posted ? 0 : oracle->now_ns;
    oracle->is_journal_late = false;
}

static void see_complete(struct oracle *oracle, const struct event *event)
{
    bool is_present = oracle->is_scanning && event->integer[0] == oracle->scan && event->integer[1] == oracle->attempt;
    if (!is_present)
        return;
    oracle->is_scanning = false;
    oracle->n_complete += event->kind == EVENT_SCAN_COMPLETE;
}

static void see_ruby(struct oracle *oracle, double pressure_gpa)
{
    bool is_repeated = pressure_gpa == oracle->pressure_gpa; /* by a spectrometer that is stuck */
    oracle->n_rejected = is_repeated ? oracle->n_rejected + 1 : 0;
    oracle->pressure_gpa = pressure_gpa;
    oracle->has_ruby = true;
    if (!is_repeated)
        oracle->ruby_t_ns = oracle->now_ns;
}

static void see_beam(struct oracle *oracle, double current_ma)
{
    bool is_good = current_ma >= oracle->settings.interlock.current_ma_resume;
    oracle->has_beam = true;
    oracle->beam_t_ns = oracle->now_ns;
    oracle->current_ma = current_ma;
    if (!is_good)
        oracle->beam_good_t_ns = 0;
    else if (oracle->beam_good_t_ns == 0)
        oracle->beam_good_t_ns = oracle->now_ns;
}

static void see_command(struct oracle *oracle, int64_t command)
{
    oracle->is_stopping = oracle->is_stopping || command == COMMAND_STOP;
    oracle->is_resuming = command == COMMAND_RESUME;
    if (command == COMMAND_HOLD || command == COMMAND_RESUME)
        oracle->is_held_by_operator = command == COMMAND_HOLD;
}

/* What must be shown, and what may be beside it, at this event; told from the events alone (V8). */
static void expect_reasons(struct oracle *oracle)
{
    const struct interlock_settings *limits = &oracle->settings.interlock;
    uint32_t must = 0, may = HOLD_MEMBRANE_STALL | HOLD_MEMBRANE_LIMIT | HOLD_SCAN;
    bool is_way_back = step_of(oracle)->kind == PLAN_UNLOAD || step_of(oracle)->kind == PLAN_DEFLATE;
    if (!is_way_back && !(oracle->pressure_gpa <= limits->pressure_gpa_max))
        must |= HOLD_PRESSURE_LIMIT;
    if (oracle->is_journal_late)
        must |= HOLD_JOURNAL;
    if (!oracle->has_membrane_link)
        must |= HOLD_MEMBRANE_LINK;
    else if (oracle->membrane_t_ns == 0 || age_s(oracle, oracle->membrane_t_ns) > limits->membrane_stale_s)
        must |= HOLD_MEMBRANE_STALE;
    if (!oracle->has_spectrometer_link)
        must |= HOLD_RUBY_LINK;
    else if (oracle->n_rejected >= limits->ruby_rejected_max)
        must |= HOLD_RUBY_REJECTED;
    else if (!is_fresh(oracle))
        must |= HOLD_RUBY_STALE;
    if (oracle->is_held_by_operator)
        must |= HOLD_OPERATOR;
    if (oracle->settings.needs_detector && !oracle->has_detector_link)
        must |= HOLD_DETECTOR_LINK;
    bool is_beam_known = oracle->has_beam && age_s(oracle, oracle->beam_t_ns) <= limits->beam_stale_s;
    double good_s = s_from_ns(oracle->beam_t_ns - oracle->beam_good_t_ns); /* judged when the current is read */
    bool is_settled = oracle->beam_good_t_ns && good_s >= limits->beam_settle_s;
    if (oracle->settings.needs_detector && !(is_beam_known && oracle->current_ma >= limits->current_ma_min))
        must |= HOLD_BEAM;
    if (oracle->settings.needs_detector && !(is_beam_known && is_settled))
        may |= HOLD_BEAM;
    if (oracle->phase == CORE_DEFLATED)
        may |= HOLD_DEFLATE;
    if (oracle->is_resuming) /* what a person has answered for is gone */
        may &= ~(uint32_t)(HOLD_MEMBRANE_STALL | HOLD_MEMBRANE_LIMIT | HOLD_SCAN);
    oracle->must_show = must;
    oracle->may_show = must | may;
}

void oracle_see_event(struct oracle *oracle, const struct event *event)
{
    hash_bytes(oracle, event, offsetof(struct event, text));
    oracle->now_ns = event->now_ns;
    oracle->is_resuming = false;
    switch ((enum event_kind)event->kind) {
    case EVENT_MEMBRANE:
        oracle->has_membrane = oracle->is_membrane_read = true;
        oracle->membrane_t_ns = oracle->now_ns;
        oracle->membrane_bar = event->value[0];
        break;
    case EVENT_MEMBRANE_LOST:
    case EVENT_MEMBRANE_FOUND:
        oracle->has_membrane_link = event->kind == EVENT_MEMBRANE_FOUND;
        oracle->is_membrane_read = false;
        break;
    case EVENT_RUBY:
        see_ruby(oracle, event->value[0]);
        break;
    case EVENT_RUBY_REJECTED:
        oracle->n_rejected++;
        break;
    case EVENT_SPECTROMETER_LOST:
    case EVENT_SPECTROMETER_FOUND:
        oracle->has_spectrometer_link = event->kind == EVENT_SPECTROMETER_FOUND;
        break;
    case EVENT_DETECTOR_LOST:
    case EVENT_DETECTOR_FOUND:
        oracle->has_detector_link = event->kind == EVENT_DETECTOR_FOUND;
        oracle->has_detector = oracle->has_detector || oracle->has_detector_link;
        break;
    case EVENT_SCAN_COMPLETE:
    case EVENT_SCAN_FAILED:
        see_complete(oracle, event);
        break;
    case EVENT_BEAM:
        see_beam(oracle, event->value[0]);
        break;
    case EVENT_DURABLE:
        see_durable(oracle, event->integer[0]);
        break;
    case EVENT_COMMAND:
        see_command(oracle, event->integer[0]);
        break;
    default: /* no invariant speaks of it */
        break;
    }
    if (oracle->pending_t_ns && age_s(oracle, oracle->pending_t_ns) > 2.0)
        oracle->is_journal_late = true;
    expect_reasons(oracle);
}

/* ---- actions ------------------------------------------------------------------------------------------------- */

static bool has_all_answered(const struct oracle *oracle)
{
    return oracle->has_membrane && oracle->has_ruby &&
           (!oracle->settings.needs_detector || (oracle->has_detector && oracle->has_beam));
}

static double half_width_bar(const struct plant *plant)
{
    return plant->law.dead_zone_bar + plant->law.dead_zone_per_bar * plant->load_bar;
}

/* The first set point of a change says where the membrane stands: that is no move. */
static bool is_where_it_stands(const struct oracle *oracle, double setpoint_bar)
{
    return oracle->is_new_setpoint && fabs(setpoint_bar - oracle->membrane_bar) < ORACLE_STANDS_BAR;
}

/* From the last set point, or from where the membrane was read: a resumed change starts there. */
static void judge_rate(struct oracle *oracle, double setpoint_bar)
{
    double last_bar = isnan(oracle->setpoint_bar) ? oracle->membrane_bar : oracle->setpoint_bar;
    double reach_s = fmin(age_s(oracle, oracle->setpoint_t_ns), ORACLE_CATCH_UP_S);
    if (oracle->is_new_setpoint)
        reach_s = ORACLE_READ_S;
    double spare_bar = oracle->is_new_setpoint ? ORACLE_STANDS_BAR : ORACLE_STEP_BAR;
    double reach_bar = oracle->slew_bar_per_s * reach_s + spare_bar + EXACT_BAR;
    double top_bar = fmax(last_bar, oracle->membrane_bar) + reach_bar;
    double bottom_bar = fmin(last_bar, oracle->membrane_bar) - reach_bar;
    bool is_down_on_a_load = direction_of(oracle) > 0 && setpoint_bar <= last_bar;
    judge(oracle, INVARIANT_V2, setpoint_bar <= top_bar, setpoint_bar, top_bar);
    judge(oracle, INVARIANT_V2, setpoint_bar >= bottom_bar, setpoint_bar, bottom_bar);
    bool is_a_move = setpoint_bar != last_bar && !is_where_it_stands(oracle, setpoint_bar);
    judge(oracle, INVARIANT_V2, is_fresh(oracle) || is_down_on_a_load || !is_a_move, age_s(oracle, oracle->ruby_t_ns),
          oracle->settings.interlock.ruby_stale_s);
}

/* Braking is a move back in the ramp that stays on the sample's side of the dead zone: it takes the excess out, not the
 * load. A move back that stays ahead of the membrane only shortens the leash. */
static void judge_reversal(struct oracle *oracle, double setpoint_bar, const struct plant *plant)
{
    int direction = direction_of(oracle);
    if (oracle->is_new_setpoint || oracle->is_correcting ||
        direction * (setpoint_bar - oracle->setpoint_bar) >= -ORACLE_STEP_BAR)
        return;
    double excess_bar = fmax(0.0, plant->membrane_bar - plant->law.takeup_bar) - plant->load_bar;
    bool is_braking = direction * excess_bar > -half_width_bar(plant);
    bool is_ahead = direction * (setpoint_bar - oracle->membrane_bar) >= 0.0;
    bool is_planned = oracle->state == LOADING_BACK_OFF || oracle->state == LOADING_RECENTRE ||
                      oracle->state == LOADING_RETREAT || (oracle->state == LOADING_RAMP && (is_braking || is_ahead));
    judge(oracle, INVARIANT_V4, is_planned || is_held(oracle), setpoint_bar, oracle->setpoint_bar);
}

static bool is_authorised(const struct oracle *oracle, double setpoint_bar)
{
    for (size_t i = 0; i < sizeof oracle->ranges / sizeof oracle->ranges[0]; i++) {
        const struct oracle_range *range = &oracle->ranges[i];
        if (range->number && range->number <= oracle->durable && setpoint_bar >= range->bar_min - EXACT_BAR &&
            setpoint_bar <= range->bar_max + EXACT_BAR)
            return true;
    }
    return false;
}

static void see_setpoint(struct oracle *oracle, double setpoint_bar, const struct plant *plant)
{
    const struct loading_settings *limits = &oracle->settings.loading;
    bool is_in_range = setpoint_bar >= 0.0 && setpoint_bar <= limits->membrane_bar_max; /* false for NaN */
    double top_bar = oracle->membrane_bar + limits->leash_bar + EXACT_BAR;
    bool is_driven = oracle->phase == CORE_LOADING || (oracle->is_correcting && !oracle->is_scanning);
    bool may_move =
        is_driven && (!is_held(oracle) || (direction_of(oracle) > 0 && setpoint_bar <= oracle->setpoint_bar));
    judge(oracle, INVARIANT_V1, is_in_range, setpoint_bar, limits->membrane_bar_max);
    judge(oracle, INVARIANT_LEASH, !(setpoint_bar > top_bar), setpoint_bar, top_bar);
    bool is_unmoved = setpoint_bar == oracle->setpoint_bar || (is_driven && is_where_it_stands(oracle, setpoint_bar));
    judge(oracle, INVARIANT_V5, may_move || is_unmoved, setpoint_bar, oracle->setpoint_bar);
    judge(oracle, INVARIANT_V7, has_all_answered(oracle) && oracle->is_membrane_read, setpoint_bar, 0.0);
    judge(oracle, INVARIANT_V9, is_authorised(oracle, setpoint_bar), setpoint_bar, oracle->ranges[0].bar_max);
    judge_rate(oracle, setpoint_bar);
    judge_reversal(oracle, setpoint_bar, plant);
    oracle->setpoint_bar = setpoint_bar;
    oracle->setpoint_t_ns = oracle->now_ns;
    oracle->is_new_setpoint = false;
}

static void see_intent(struct oracle *oracle, const struct action *action)
{
    int64_t number = action->integer[0];
    judge(oracle, INVARIANT_V9, number == oracle->posted + 1, (double)number, (double)oracle->posted + 1.0);
    oracle->posted = number;
    if (oracle->pending_t_ns == 0)
        oracle->pending_t_ns = oracle->now_ns;
    switch ((enum intent_kind)action->integer[1]) {
    case INTENT_STEP:
        oracle->step_number = number;
        oracle->step_index_announced = (int64_t)action->value[0];
        break;
    case INTENT_MEMBRANE:
        oracle->ranges[2] = oracle->ranges[1];
        oracle->ranges[1] = oracle->ranges[0];
        oracle->ranges[0] =
            (struct oracle_range){.number = number, .bar_min = action->value[0], .bar_max = action->value[1]};
        break;
    case INTENT_SCAN:
        oracle->scan_number_intent = number;
        oracle->scan_announced = (int64_t)action->value[0];
        oracle->attempt_announced = (int64_t)action->value[1];
        break;
    case INTENT_KIND_COUNT:
        break;
    }
}

static void see_scan_start(struct oracle *oracle, int64_t scan, int64_t attempt)
{
    bool is_again = scan == oracle->scan && attempt == oracle->attempt + 1;
    bool is_next = scan == oracle->scan + 1 && attempt == 1 && oracle->n_complete == oracle->scan;
    bool is_durable = oracle->scan_number_intent && oracle->scan_number_intent <= oracle->durable &&
                      oracle->scan_announced == scan && oracle->attempt_announced == attempt;
    judge(oracle, INVARIANT_V6, (is_again || is_next) && !oracle->is_scanning, (double)scan, (double)oracle->scan);
    judge(oracle, INVARIANT_V7, has_all_answered(oracle), (double)scan, 0.0);
    judge(oracle, INVARIANT_V9, is_durable, (double)oracle->scan_number_intent, (double)oracle->durable);
    oracle->scan = scan;
    oracle->attempt = attempt;
    oracle->is_scanning = true;
}

static void see_analyse(struct oracle *oracle, int64_t scan, int64_t attempt)
{
    oracle->n_analysed++;
    judge(oracle, INVARIANT_V6, scan == oracle->scan && attempt == oracle->attempt, (double)scan, (double)oracle->scan);
}

static void begin_change(struct oracle *oracle)
{
    oracle->is_new_setpoint = true;
    oracle->crossing_bar = NAN;
    oracle->furthest_bar = -INFINITY;
}

static void see_phase(struct oracle *oracle, const struct action *action)
{
    int32_t phase = (int32_t)action->integer[1], step_index = (int32_t)action->integer[0];
    bool is_new = phase != oracle->phase || step_index != oracle->step_index;
    bool is_at_work =
        phase == CORE_PRELOADED || phase == CORE_LOADING || phase == CORE_ISOBAR || phase == CORE_DEFLATED;
    bool is_durable =
        oracle->step_number && oracle->step_number <= oracle->durable && oracle->step_index_announced == step_index;
    if (is_at_work) {
        judge(oracle, INVARIANT_V9, is_durable, (double)oracle->step_number, (double)oracle->durable);
        judge(oracle, INVARIANT_V7, has_all_answered(oracle), phase, 0.0);
    }
    oracle->phase = phase;
    oracle->step_index = step_index;
    oracle->is_correcting = false;
    bool was_held = oracle->state == LOADING_HELD || oracle->state == LOADING_RETREAT;
    oracle->state = phase == CORE_LOADING ? (int32_t)action->value[PHASE_STATE] : LOADING_IDLE;
    if (was_held && oracle->state != LOADING_HELD) /* goes on from where the membrane stands */
        oracle->is_new_setpoint = true;
    if (phase == CORE_LOADING && is_new)
        begin_change(oracle);
}

static void see_hold(struct oracle *oracle, const struct action *action)
{
    bool was_held = is_held(oracle);
    oracle->shown = (uint32_t)action->integer[0];
    oracle->goes_on = action->integer[1] != 0;
    if (was_held && !is_held(oracle))
        oracle->is_new_setpoint = true;
}

/* A correction is declared by its step, and begins between two scans. */
static void see_drift(struct oracle *oracle, const struct action *action)
{
    if (action->integer[1] == 0)
        return;
    bool is_declared = oracle->settings.steps[oracle->step_index].drift_correction == PLAN_CORRECT_BETWEEN_SCANS;
    judge(oracle, INVARIANT_V5, oracle->phase == CORE_ISOBAR && is_declared && !oracle->is_scanning,
          (double)action->integer[1], 0.0);
    oracle->is_correcting = oracle->is_new_setpoint = true;
}

void oracle_see_action(struct oracle *oracle, const struct action *action, const struct plant *plant)
{
    const struct core_settings *settings = &oracle->settings;
    hash_bytes(oracle, action, sizeof *action);
    switch ((enum action_kind)action->kind) {
    case ACTION_JOURNAL:
        see_intent(oracle, action);
        break;
    case ACTION_SETPOINT:
        see_setpoint(oracle, action->value[0], plant);
        break;
    case ACTION_SLEW:
        judge(oracle, INVARIANT_V2, action->value[0] <= settings->slew_bar_per_min_max, action->value[0],
              settings->slew_bar_per_min_max);
        oracle->slew_bar_per_s = action->value[0] / 60.0;
        break;
    case ACTION_CADENCE:
        oracle->cadence_s = action->value[0];
        break;
    case ACTION_SCAN_START:
        see_scan_start(oracle, action->integer[0], action->integer[1]);
        break;
    case ACTION_SCAN_ABORT:
        judge(oracle, INVARIANT_V6, action->integer[0] == oracle->scan && action->integer[1] == oracle->attempt,
              (double)action->integer[1], (double)oracle->attempt);
        oracle->is_scanning = false;
        break;
    case ACTION_ANALYSE:
        see_analyse(oracle, action->integer[0], action->integer[1]);
        break;
    case ACTION_PHASE:
        see_phase(oracle, action);
        break;
    case ACTION_HOLD:
        see_hold(oracle, action);
        break;
    case ACTION_DRIFT:
        see_drift(oracle, action);
        break;
    case ACTION_ACCESS: /* the nights read the ruby at any time */
    case ACTION_ISOBAR_DONE:
    case ACTION_PACE:
    case ACTION_FINISHED:
    case ACTION_VALVES_SHUT:
    case ACTION_CALIBRATION:
    case ACTION_KIND_COUNT:
        break;
    }
}

void oracle_see_answer(struct oracle *oracle)
{
    bool is_holding = oracle->state == LOADING_HELD; /* a retreat is ended even when its reason is gone */
    uint32_t shown = oracle->shown;
    judge(oracle, INVARIANT_V6, oracle->n_analysed == oracle->n_complete, (double)oracle->n_analysed,
          (double)oracle->n_complete);
    if (oracle->phase == CORE_FINISHED)
        return; /* the core answers no more */
    judge(oracle, INVARIANT_V8, !is_holding || is_held(oracle), oracle->state, 0.0);
    judge(oracle, INVARIANT_V8, (oracle->must_show & ~shown) == 0, shown, oracle->must_show);
    judge(oracle, INVARIANT_V8, (shown & ~oracle->may_show) == 0, shown, oracle->may_show);
}

/* ---- the truth ----------------------------------------------------------------------------------------------- */

/* What the load adds once the pressure has come to the target was commanded; what slips and the temperature add was
 * not. */
static void judge_overshoot(struct oracle *oracle, const struct plant *plant, double pressure_gpa)
{
    if (pressure_gpa < step_of(oracle)->pressure_gpa_target)
        oracle->crossing_bar = NAN;
    else if (isnan(oracle->crossing_bar))
        oracle->crossing_bar = plant->load_bar;
    double beyond_gpa = plant->law.gpa_per_bar * (plant->load_bar - oracle->crossing_bar);
    judge(oracle, INVARIANT_V3, !(beyond_gpa > ORACLE_MARGIN_GPA), beyond_gpa, ORACLE_MARGIN_GPA);
}

/* A compression is never undone; on the way down the pressure may come back up by what a slip makes of it. */
static void judge_load(struct oracle *oracle, const struct plant *plant, double pressure_gpa)
{
    oracle->furthest_bar = fmax(oracle->furthest_bar, plant->load_bar);
    double back_gpa = plant->law.gpa_per_bar * (oracle->furthest_bar - plant->load_bar);
    judge(oracle, INVARIANT_V4, back_gpa <= ORACLE_MARGIN_GPA, back_gpa, ORACLE_MARGIN_GPA);
    if (plant->law.form == PLANT_LINEAR)
        judge_overshoot(oracle, plant, pressure_gpa);
}

/* Slips that stand relax; a cell that has slipped down comes back up. */
static double creep_step(struct plant *frozen, const struct plant_input *input)
{
    double missing_bar = input->membrane_bar_setpoint - frozen->membrane_bar;
    bool is_moving = input->output_on && missing_bar != 0.0;
    double rate = plant_load_bar_per_s(frozen);
    double step_s = fmin(is_moving ? 1.0 : 60.0, 0.01 * half_width_bar(frozen) / fmax(fabs(rate), 1e-12));
    double slew_bar = input->slew_bar_per_s * step_s;
    if (is_moving)
        frozen->membrane_bar += fmin(fmax(missing_bar, -slew_bar), slew_bar);
    frozen->load_bar += rate * step_s;
    frozen->slip_gpa -= frozen->slip_gpa * step_s / frozen->law.slip_relaxation_s;
    return step_s;
}

double oracle_pressure_gpa_if_died(const struct plant *plant, const struct plant_input *input)
{
    struct plant frozen = *plant;
    double pressure_gpa_max = plant_pressure_gpa(plant);
    for (double t_s = 0.0; t_s < ORACLE_CREEP_S;) {
        t_s += creep_step(&frozen, input);
        pressure_gpa_max = fmax(pressure_gpa_max, plant_pressure_gpa(&frozen));
    }
    return pressure_gpa_max;
}

/* The load never creeps beyond membrane - take-up: only where that is too much, the creep itself is asked. */
static void judge_death(struct oracle *oracle, const struct plant *plant, const struct plant_input *input)
{
    double limit_gpa = oracle->settings.loading.pressure_gpa_max;
    struct plant crept = *plant;
    double membrane_bar = fmax(plant->membrane_bar, input->membrane_bar_setpoint);
    crept.load_bar = fmax(plant->load_bar, membrane_bar - plant->law.takeup_bar);
    crept.slip_gpa = fmax(plant->slip_gpa, 0.0);
    if (plant_pressure_gpa(&crept) < limit_gpa || oracle->now_ns < oracle->creep_t_ns + ORACLE_CREEP_EVERY_NS)
        return;
    oracle->creep_t_ns = oracle->now_ns;
    double pressure_gpa = oracle_pressure_gpa_if_died(plant, input);
    judge(oracle, INVARIANT_V11, pressure_gpa < limit_gpa, pressure_gpa, limit_gpa);
}

void oracle_see_truth(struct oracle *oracle, const struct plant *plant, const struct plant_input *input)
{
    double pressure_gpa = plant_pressure_gpa(plant), limit_gpa = oracle->settings.loading.pressure_gpa_max;
    judge(oracle, INVARIANT_LIMIT, pressure_gpa < limit_gpa, pressure_gpa, limit_gpa);
    if (oracle->phase == CORE_LOADING && direction_of(oracle) > 0)
        judge_load(oracle, plant, pressure_gpa);
    judge_death(oracle, plant, input);
}

void oracle_compare(struct oracle *oracle, const struct oracle *other)
{
    judge(oracle, INVARIANT_V10, oracle->hash == other->hash, 0.0, 0.0);
}

int64_t oracle_violations(const struct oracle *oracle)
{
    int64_t n = 0;
    for (int i = 0; i < INVARIANT_COUNT; i++)
        n += oracle->n_violations[i];
    return n;
}
