#include "controller/core.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "analysis/ruby_scale.h"
#include "base/clock.h"

#define PRELOADED_READINGS 8
#define DEFLATED_READINGS 8
#define EMPTY_BAR 0.5       /* a membrane below it is empty */
#define EMPTY_BAR_LEAVE 1.0 /* and stays so up to here: a pressure at the limit is not to flicker */
#define BRANCH_READINGS 10  /* averaged for the pressure at a change's end */
#define CORRECTIONS_MAX 3   /* of one isobar's drift: what that does not help, a person should see */
#define ISOBAR_READINGS 10  /* averaged for the pressure at an isobar's start and end */
#define GAP_S_MAX 600.0     /* a ruby that cannot be read does not keep the scans waiting for longer */
#define ACCESS_MOVE_S_MAX 60.0
#define RUBY_EVERY_S_LOADING 3.0
#define RUBY_EVERY_S_ISOBAR 30.0
#define PACE_LOADING 150.0 /* one membrane reading per second of experiment time within 7 ms */
#define PACE_ISOBAR 1500.0
#define PACE_SCAN 1000.0
#define PACE_ACCESS 20.0 /* Channel Access answers in milliseconds of wall time */
#define DURABLE_S_MAX 2.0
#define SETPOINT_BAR_STEP 0.002 /* smaller changes are not worth a write */

static const char *const phase_names[CORE_PHASE_COUNT] = {
    "waiting", "journal", "preloaded", "loading", "isobar", "deflated", "calibration", "finished",
};

const char *core_phase_name(enum core_phase phase)
{
    assert(phase >= 0 && phase < CORE_PHASE_COUNT);
    return phase_names[phase];
}

static struct action *add(struct core_actions *actions, enum action_kind kind)
{
    assert(actions->n < CORE_ACTIONS_MAX);
    struct action *action = &actions->list[actions->n++];
    memset(action, 0, sizeof *action);
    action->kind = (int32_t)kind;
    return action;
}

static void add_value(struct core_actions *actions, enum action_kind kind, double value)
{
    add(actions, kind)->value[0] = value;
}

static int64_t post_intent(struct core *core, struct core_actions *actions, enum intent_kind kind, double a, double b)
{
    struct action *action = add(actions, ACTION_JOURNAL);
    action->integer[0] = ++core->intent_number;
    action->integer[1] = kind;
    action->value[0] = a;
    action->value[1] = b;
    if (core->pending_t_ns == 0)
        core->pending_t_ns = core->now_ns;
    return core->intent_number;
}

static void set_pace(struct core *core, struct core_actions *actions, double pace)
{
    if (core->pace != pace)
        add_value(actions, ACTION_PACE, pace);
    core->pace = pace;
}

static void set_ruby_every(struct core *core, struct core_actions *actions, double seconds)
{
    if (core->ruby_every_s != seconds)
        add_value(actions, ACTION_CADENCE, seconds);
    core->ruby_every_s = core->interlock.ruby_every_s = seconds;
}

static void enter(struct core *core, struct core_actions *actions, enum core_phase phase)
{
    core->phase = phase;
    core->phase_t_ns = core->now_ns;
    core->n_readings = 0;
    struct action *action = add(actions, ACTION_PHASE);
    action->integer[0] = core->step_index;
    action->integer[1] = phase;
}

static struct calibration_settings calibration_settings(const struct beamline_ruby *ruby)
{
    const struct ruby_scale *scale = ruby_scale_by_name(ruby->scale);
    struct calibration_settings settings = {.lambda0_nm = ruby->lambda0_nm,
                                            .lambda0_nm_sigma = ruby->lambda0_nm_sigma,
                                            .temperature_k_zero = ruby->temperature_k_zero};
    static_assert(sizeof settings.correction == sizeof ruby->correction, "the name is copied whole");
    memcpy(settings.correction, ruby->correction, sizeof settings.correction);
    if (scale) /* a beamline file without one is refused before a run */
        settings.gpa_per_nm = ruby_slope_gpa_per_nm(scale, ruby->lambda0_nm, ruby->lambda0_nm);
    return settings;
}

void core_settings_init(struct core_settings *ret_settings, const struct plan *plan, const struct beamline *beamline)
{
    memset(ret_settings, 0, sizeof *ret_settings);
    double membrane_bar_max = fmin(plan->cell.membrane_bar_max, beamline->membrane.membrane_bar_max);
    struct loading_settings *loading = &ret_settings->loading;
    loading->membrane_bar_max = membrane_bar_max;
    loading->pressure_gpa_max = plan->cell.pressure_gpa_max;
    loading->leash_bar = 0.5;
    loading->back_off_bar_per_s = fmin(6.0, beamline->membrane.slew_bar_per_min_max) / 60.0;
    loading->taper_s = 80.0;
    loading->stop_gpa = -0.006;
    loading->short_gpa = 0.03;
    loading->drop_gpa = 0.008;
    loading->watch_s = 100.0;
    struct interlock_settings *interlock = &ret_settings->interlock;
    interlock->membrane_stale_s = 20.0;
    interlock->ruby_stale_s = 25.0;
    interlock->ruby_rejected_max = 5;
    interlock->beam_stale_s = 60.0;
    interlock->current_ma_min = beamline->ring.current_ma_min;
    interlock->current_ma_resume = 1.2 * beamline->ring.current_ma_min;
    interlock->beam_settle_s = 10.0;
    interlock->pressure_gpa_max = plan->cell.pressure_gpa_max;
    interlock->membrane_bar_per_s_max = beamline->membrane.slew_bar_per_min_max / 60.0;
    struct access_settings *access = &ret_settings->access;
    access->is_between_scans = strcmp(beamline->ruby.ruby_access, "between_scans") == 0;
    access->settle_s = beamline->ruby.settle_s;
    access->move_s_max = ACCESS_MOVE_S_MAX;
    ret_settings->calibration = calibration_settings(&beamline->ruby);
    ret_settings->slew_bar_per_min_max = beamline->membrane.slew_bar_per_min_max;
    ret_settings->n_steps = plan->n_steps;
    for (int i = 0; i < plan->n_steps; i++) {
        ret_settings->steps[i] = plan->steps[i];
        ret_settings->needs_detector |= plan->steps[i].n_scans > 0;
    }
}

void core_init(struct core *core, const struct core_settings *settings)
{
    assert(settings->n_steps > 0 && settings->n_steps <= PLAN_STEPS_MAX);
    *core = (struct core){.settings = *settings, .phase = CORE_WAITING, .setpoint_bar = NAN};
    interlock_init(&core->interlock, &settings->interlock);
    access_init(&core->access, &settings->access);
}

/* ---- what holds ---------------------------------------------------------------------------------------------- */

static void show_reasons(struct core *core, struct core_actions *actions, uint32_t reasons, bool goes_on)
{
    if (reasons == core->reasons_shown)
        return;
    core->reasons_shown = reasons;
    struct action *action = add(actions, ACTION_HOLD);
    action->integer[0] = reasons;
    action->integer[1] = goes_on;
}

static const struct plan_step *present_step(const struct core *core) { return &core->settings.steps[core->step_index]; }

/* Reasons that concern this phase at all. */
static uint32_t standing_reasons(const struct core *core)
{
    uint32_t reasons = interlock_reasons(&core->interlock, core->now_ns);
    if (!core->settings.needs_detector)
        reasons &= ~(uint32_t)(HOLD_DETECTOR_LINK | HOLD_BEAM);
    if (present_step(core)->kind == PLAN_UNLOAD || present_step(core)->kind == PLAN_DEFLATE)
        reasons &= ~(uint32_t)HOLD_PRESSURE_LIMIT; /* the ways back below it */
    if (present_step(core)->kind == PLAN_DEFLATE)
        reasons &= ~(uint32_t)(HOLD_MEMBRANE_FOREIGN | HOLD_MEMBRANE_BURST | HOLD_MEMBRANE_SUPPLY); /* by hand */
    return reasons;
}

/* ---- phases -------------------------------------------------------------------------------------------------- */

/* Until a new range is durable the command stands where the membrane stands, and is not sent. */
static void forget_authority(struct core *core)
{
    core->authorised_bar_min = core->authorised_bar_max = core->loading.command_bar;
    core->range_intent_number = 0;
    core->has_authority = false;
}

static void begin_loading(struct core *core, struct core_actions *actions)
{
    const struct plan_step *step = present_step(core);
    const struct plan_step *next = core->step_index + 1 < core->settings.n_steps ? step + 1 : NULL;
    bool has_isobar = next && next->kind == PLAN_ISOBAR;
    struct loading_settings settings = core->settings.loading;
    settings.back_off = (enum plan_back_off)step->back_off;
    double back_off_bar_per_min = core->settings.loading.back_off_bar_per_s * 60.0;
    loading_start(&core->loading, &settings, step->kind == PLAN_LOAD ? 1 : -1, step->pressure_gpa_target,
                  step->rate_bar_per_min / 60.0, has_isobar ? next->duration_s : 3600.0,
                  has_isobar ? next->drift_gpa_max : 0.12, core->membrane_bar, core->now_ns);
    core->loading_state_shown = LOADING_IDLE;
    forget_authority(core);
    core->is_holding = false;
    double slew = step->rate_bar_per_min > back_off_bar_per_min ? step->rate_bar_per_min : back_off_bar_per_min;
    add_value(actions, ACTION_SLEW,
              slew < core->settings.slew_bar_per_min_max ? slew : core->settings.slew_bar_per_min_max);
    set_ruby_every(core, actions, RUBY_EVERY_S_LOADING);
    set_pace(core, actions, PACE_LOADING);
    enter(core, actions, CORE_LOADING);
}

/* From here on the ruby is to be read again before the next scan. */
static void begin_gap(struct core *core)
{
    core->isobar.n_gap_readings = 0;
    core->isobar.gap_t_ns = 0;
}

static void begin_isobar(struct core *core, struct core_actions *actions)
{
    const struct plan_step *step = present_step(core);
    core->isobar = (struct core_isobar){.start_t_ns = core->now_ns};
    drift_begin(&core->isobar.drift);
    scan_begin(&core->scan, core->scan.scan_number, step->n_scans, step->n_frames, step->frame_time_s, core->now_ns);
    set_ruby_every(core, actions, RUBY_EVERY_S_ISOBAR);
    set_pace(core, actions, PACE_ISOBAR);
    enter(core, actions, CORE_ISOBAR);
}

static void begin_calibration(struct core *core, struct core_actions *actions)
{
    calibration_begin(&core->calibration, present_step(core)->n_readings);
    core->is_calibration_refused = false;
    set_ruby_every(core, actions, RUBY_EVERY_S_LOADING);
    set_pace(core, actions, PACE_LOADING);
    enter(core, actions, CORE_CALIBRATION);
}

static void begin_step(struct core *core, struct core_actions *actions)
{
    switch (present_step(core)->kind) {
    case PLAN_CALIBRATE_RUBY:
        begin_calibration(core, actions);
        return;
    case PLAN_PRELOADED:
        core->is_hand_awaited = core->step_index > 0; /* only a calibration goes before it */
        set_ruby_every(core, actions, RUBY_EVERY_S_LOADING);
        set_pace(core, actions, PACE_LOADING);
        enter(core, actions, CORE_PRELOADED);
        return;
    case PLAN_LOAD:
    case PLAN_UNLOAD:
        begin_loading(core, actions);
        return;
    case PLAN_ISOBAR:
        begin_isobar(core, actions);
        return;
    case PLAN_DEFLATE:
        core->is_empty = false;
        trend_clear(&core->deflated);
        set_ruby_every(core, actions, RUBY_EVERY_S_LOADING);
        set_pace(core, actions, PACE_LOADING);
        enter(core, actions, CORE_DEFLATED);
        return;
    case PLAN_KIND_COUNT:
        break;
    }
    assert(!"a plan holds known steps only");
}

static void ask_access(struct core_actions *actions, enum access_move move)
{
    if (move != ACCESS_MOVE_NONE)
        add(actions, ACTION_ACCESS)->integer[0] = move;
}

/* Nobody looks after the laser any more: it is shut off, whatever it was doing. */
static void finish(struct core *core, struct core_actions *actions, bool is_stopped)
{
    if (core->settings.access.is_between_scans)
        ask_access(actions, ACCESS_MOVE_LASER_CLOSE);
    set_pace(core, actions, 1.0);
    enter(core, actions, CORE_FINISHED);
    add(actions, ACTION_FINISHED)->integer[0] = is_stopped;
}

static void announce_step(struct core *core, struct core_actions *actions)
{
    core->step_intent_number = post_intent(core, actions, INTENT_STEP, core->step_index, 0.0);
    enter(core, actions, CORE_JOURNAL);
}

static void next_step(struct core *core, struct core_actions *actions)
{
    if (core->step_index + 1 >= core->settings.n_steps) {
        finish(core, actions, false);
        return;
    }
    core->step_index++;
    announce_step(core, actions);
}

static void advance_waiting(struct core *core, struct core_actions *actions, uint32_t reasons)
{
    set_ruby_every(core, actions, RUBY_EVERY_S_LOADING);
    set_pace(core, actions, access_is_readable(&core->access) ? PACE_LOADING : PACE_ACCESS);
    show_reasons(core, actions, reasons, false);
    if (reasons == 0)
        announce_step(core, actions);
    else if (core->is_stopping)
        finish(core, actions, true);
}

static void advance_journal(struct core *core, struct core_actions *actions, uint32_t reasons)
{
    show_reasons(core, actions, reasons, false);
    if (core->is_stopping)
        finish(core, actions, true);
    else if (core->durable_number >= core->step_intent_number && !(reasons & HOLD_REASONS_PRESSURE))
        begin_step(core, actions);
}

static void show_calibration(struct core *core, struct core_actions *actions, const struct calibration_result *result)
{
    struct action *action = add(actions, ACTION_CALIBRATION);
    action->integer[0] = core->step_index;
    action->integer[1] = result->verdict;
    action->value[CALIBRATION_LAMBDA0_NM] = result->lambda0_nm;
    action->value[CALIBRATION_LAMBDA0_NM_SIGMA] = result->lambda0_nm_sigma;
    action->value[CALIBRATION_R1_NM] = result->r1_nm;
    action->value[CALIBRATION_SCATTER_NM] = result->scatter_nm;
    action->value[CALIBRATION_NOISE_NM] = result->noise_nm;
    action->value[CALIBRATION_DRIFT_NM] = result->drift_nm;
    action->value[CALIBRATION_TOLERANCE_NM] = result->tolerance_nm;
    action->value[CALIBRATION_N_USED] = result->n_used;
    action->value[CALIBRATION_TEMPERATURE_K] = result->temperature_k;
    action->value[CALIBRATION_TEMPERATURE_K_SIGMA] = result->temperature_k_sigma;
}

/* Readings that an instrument's loss has torn apart in time are judged like any others: a drift shows. */
static void advance_calibration(struct core *core, struct core_actions *actions, uint32_t reasons)
{
    struct calibration_result result;
    bool is_full = core->calibration.n == core->calibration.n_wanted;
    if (!core->is_stopping && !core->is_calibration_refused && is_full && !(reasons & HOLD_REASONS_PRESSURE)) {
        calibration_judge(&core->calibration, &core->settings.calibration, &result);
        show_calibration(core, actions, &result);
        if (result.verdict == CALIBRATION_GOOD) {
            core->ruler_number = 1;
            show_reasons(core, actions, reasons, false);
            next_step(core, actions);
            return;
        }
        core->is_calibration_refused = true;
    }
    show_reasons(core, actions, core->is_calibration_refused ? reasons | HOLD_CALIBRATION : reasons, false);
    if (core->is_stopping)
        finish(core, actions, true);
}

static void advance_preloaded(struct core *core, struct core_actions *actions, uint32_t reasons)
{
    if (core->is_hand_awaited) {
        core->n_readings = 0;
        reasons |= HOLD_PRELOAD;
    }
    show_reasons(core, actions, reasons, false);
    if (core->is_stopping)
        finish(core, actions, true);
    else if (core->n_readings >= PRELOADED_READINGS)
        next_step(core, actions);
}

/* Readings count from the moment the membrane is known to be empty. */
static void advance_deflated(struct core *core, struct core_actions *actions, uint32_t reasons)
{
    interlock_forget_membrane(&core->interlock);
    bool is_known = (reasons & (HOLD_MEMBRANE_LINK | HOLD_MEMBRANE_STALE)) == 0;
    core->is_empty = is_known && core->membrane_bar < (core->is_empty ? EMPTY_BAR_LEAVE : EMPTY_BAR);
    if (!core->is_empty) {
        core->n_readings = 0;
        trend_clear(&core->deflated);
        reasons |= HOLD_DEFLATE;
    }
    show_reasons(core, actions, reasons, false);
    double pressure_gpa, sigma_gpa;
    if (core->is_stopping) {
        finish(core, actions, true);
    } else if (core->n_readings >= DEFLATED_READINGS && !(reasons & HOLD_REASONS_PRESSURE) &&
               trend_mean(&core->deflated, DEFLATED_READINGS, &pressure_gpa, &sigma_gpa)) {
        struct action *action = add(actions, ACTION_PHASE);
        action->integer[0] = core->step_index;
        action->integer[1] = CORE_DEFLATED;
        action->value[PHASE_STATE] = 1.0;
        action->value[PHASE_PRESSURE_GPA] = pressure_gpa;
        next_step(core, actions);
    }
}

/* Keeps the journal ahead of the membrane: asks for a new range before the present one is used up. */
static void authorise_range(struct core *core, struct core_actions *actions)
{
    if (core->range_intent_number != 0 && core->durable_number >= core->range_intent_number) {
        double present_bar = core->loading.command_bar; /* may have left the new range while it was pending */
        core->authorised_bar_min = present_bar < core->pending_bar_min ? present_bar : core->pending_bar_min;
        core->authorised_bar_max = present_bar > core->pending_bar_max ? present_bar : core->pending_bar_max;
        core->range_intent_number = 0;
        core->has_authority = true;
    }
    double bar_min, bar_max, command_bar = core->loading.command_bar;
    loading_range(&core->loading, &bar_min, &bar_max);
    bool is_short_below = core->authorised_bar_min - bar_min > 0.5 * (command_bar - bar_min);
    bool is_short_above = bar_max - core->authorised_bar_max > 0.5 * (bar_max - command_bar);
    if (core->range_intent_number == 0 && (is_short_below || is_short_above)) {
        core->pending_bar_min = bar_min;
        core->pending_bar_max = bar_max;
        core->range_intent_number = post_intent(core, actions, INTENT_MEMBRANE, bar_min, bar_max);
    }
}

/* What the change has taught; what it could not teach is NaN. */
static void add_branch(const struct loading *loading, double *value)
{
    double mean_gpa, sigma_gpa, direction = loading->direction;
    bool has_mean = trend_mean(&loading->trend, BRANCH_READINGS, &mean_gpa, &sigma_gpa);
    bool has_taught = loading->response.has_taught;
    bool has_edges = loading->n_approaches > 0 && loading->far_edge_bar != 0.0;
    const struct response_estimate *estimate = &loading->response.estimate;
    value[PHASE_PRESSURE_GPA] = has_mean ? mean_gpa : NAN;
    value[PHASE_NEAR_EDGE_BAR] = loading->n_approaches > 0 ? direction * loading->near_edge_bar : NAN;
    value[PHASE_FAR_EDGE_BAR] = has_edges ? direction * loading->far_edge_bar : NAN;
    value[PHASE_CENTRE_BAR] = loading->n_approaches > 0 ? direction * loading->centre_bar : NAN;
    value[PHASE_COMPLIANCE_BAR_S_PER_GPA] = has_taught ? estimate->compliance_bar_s_per_gpa : NAN;
    value[PHASE_COMPLIANCE_BAR_S_PER_GPA_MAX] = has_taught ? estimate->compliance_bar_s_per_gpa_cautious : NAN;
    value[PHASE_EDGE_BAR_PER_GPA] = has_taught ? estimate->edge_bar_per_gpa : NAN;
    value[PHASE_HALF_WIDTH_BAR] = has_edges ? 0.5 * (loading->near_edge_bar - loading->far_edge_bar) : NAN;
}

static void show_loading_state(struct core *core, struct core_actions *actions)
{
    if (core->loading.state == core->loading_state_shown)
        return;
    core->loading_state_shown = core->loading.state;
    struct action *action = add(actions, ACTION_PHASE);
    action->integer[0] = core->step_index;
    action->integer[1] = CORE_LOADING;
    action->value[PHASE_STATE] = core->loading.state;
    if (core->loading.state == LOADING_DONE)
        add_branch(&core->loading, action->value);
}

static void command_setpoint(struct core *core, struct core_actions *actions)
{
    double command_bar = core->loading.command_bar;
    if (!core->has_authority || fabs(command_bar - core->setpoint_bar) < SETPOINT_BAR_STEP)
        return;
    assert(core->phase == CORE_LOADING || core->isobar.is_correcting);                          /* C3 */
    assert(command_bar <= core->settings.loading.membrane_bar_max);                             /* C2 */
    assert(command_bar >= core->authorised_bar_min && command_bar <= core->authorised_bar_max); /* C1 */
    core->setpoint_bar = command_bar;
    add_value(actions, ACTION_SETPOINT, command_bar);
}

/* A retreat is ended first: holds that come and go would add up to a membrane frozen in mid-ramp. */
static void end_hold(struct core *core, bool must_hold)
{
    if (must_hold || !core->is_holding || core->loading.state == LOADING_RETREAT)
        return;
    loading_resume(&core->loading, core->membrane_bar, core->now_ns);
    forget_authority(core);
    core->is_holding = false;
}

/* One pass of a pressure change, or of a correction. */
static void drive_membrane(struct core *core, struct core_actions *actions, uint32_t reasons, bool has_reading)
{
    struct loading *loading = &core->loading;
    bool must_hold = (reasons & HOLD_REASONS_PRESSURE) != 0 || core->is_stopping;
    if (must_hold && !core->is_holding)
        loading_hold(loading);
    core->is_holding = core->is_holding || must_hold;
    end_hold(core, must_hold);
    authorise_range(core, actions);
    if (has_reading && !(reasons & HOLD_REASONS_HANDS_OFF)) {
        loading_step(loading, core->now_ns, core->membrane_bar, core->authorised_bar_min, core->authorised_bar_max);
        command_setpoint(core, actions);
        end_hold(core, must_hold);
        core->interlock.stalled = core->interlock.stalled || loading->is_stalled;
        core->interlock.at_limit = core->interlock.at_limit || loading->is_at_limit;
    }
}

static void advance_loading(struct core *core, struct core_actions *actions, uint32_t reasons, bool has_reading)
{
    const struct loading *loading = &core->loading;
    bool must_hold = (reasons & HOLD_REASONS_PRESSURE) != 0 || core->is_stopping;
    bool is_hands_off = (reasons & (HOLD_MEMBRANE_FOREIGN | HOLD_MEMBRANE_BURST)) != 0;
    show_reasons(core, actions, reasons, !must_hold);
    drive_membrane(core, actions, reasons, has_reading);
    show_loading_state(core, actions);
    if (loading->state == LOADING_DONE)
        next_step(core, actions);
    else if (core->is_stopping && (loading->state == LOADING_HELD || core->is_stop_urgent || is_hands_off))
        finish(core, actions, true);
}

static void add_isobar_reading(struct core *core, const struct event *event)
{
    struct core_isobar *isobar = &core->isobar;
    isobar->n_readings++;
    isobar->n_gap_readings++;
    drift_add(&isobar->drift, event->t_ns, event->value[0], event->value[1]);
    if (isobar->is_correcting)
        loading_add_reading(&core->loading, event->t_ns, event->value[0], event->value[1]);
}

static void grant_scan_wish(struct core *core, struct core_actions *actions, enum scan_wish wish)
{
    const struct scan *scan = &core->scan;
    struct action *action;
    switch (wish) {
    case SCAN_WISH_NONE:
        return;
    case SCAN_WISH_JOURNAL:
        core->scan.intent_number =
            post_intent(core, actions, INTENT_SCAN, (double)scan->scan_number, (double)scan->attempt);
        return;
    case SCAN_WISH_START:
        assert(access_is_clear(&core->access)); /* C4 */
        action = add(actions, ACTION_SCAN_START);
        action->value[0] = scan->n_frames;
        action->value[1] = scan->frame_time_s;
        action->integer[0] = scan->scan_number;
        action->integer[1] = scan->attempt;
        return;
    case SCAN_WISH_ABORT:
        action = add(actions, ACTION_SCAN_ABORT);
        action->integer[0] = scan->scan_number;
        action->integer[1] = scan->attempt - 1; /* scan_step has already counted the next */
        return;
    case SCAN_WISH_ANALYSE:
        return; /* granted in observe_scan, where the event names the scan */
    }
}

/* The ruby has been read between two scans, or cannot be. */
static bool is_gap_over(const struct core *core)
{
    const struct core_isobar *isobar = &core->isobar;
    bool is_spent = isobar->gap_t_ns != 0 && s_from_ns(core->now_ns - isobar->gap_t_ns) > GAP_S_MAX;
    return !core->settings.access.is_between_scans || isobar->n_gap_readings >= ISOBAR_READINGS || is_spent;
}

/* HOLD_RUBY_ACCESS does not call the ruby back: what is stuck on the way out is to go on out. */
static bool is_ruby_wanted(const struct core *core, uint32_t reasons)
{
    bool is_scan_held = (reasons & HOLD_REASONS_SCAN & ~(uint32_t)HOLD_RUBY_ACCESS) != 0;
    if (core->phase != CORE_ISOBAR)
        return true;
    switch (core->scan.state) {
    case SCAN_JOURNAL:
    case SCAN_RUN:
        return false;
    case SCAN_WAIT:
        return is_scan_held || !is_gap_over(core);
    default:
        return true;
    }
}

/* Optics and laser follow what the phase needs; the interlock hears how they stand. */
static void step_access(struct core *core, struct core_actions *actions)
{
    bool is_wanted = is_ruby_wanted(core, standing_reasons(core));
    ask_access(actions, access_step(&core->access, core->now_ns, is_wanted));
    bool is_readable = access_is_readable(&core->access);
    if (is_readable && core->isobar.gap_t_ns == 0)
        core->isobar.gap_t_ns = core->now_ns;
    core->interlock.access_doubtful = access_is_doubtful(&core->access);
    interlock_set_ruby_sight(&core->interlock, is_readable || core->phase != CORE_ISOBAR, core->now_ns);
}

static void step_scan(struct core *core, struct core_actions *actions, bool is_held)
{
    enum scan_wish wish = scan_step(&core->scan, core->now_ns, is_held, core->durable_number);
    if (wish == SCAN_WISH_ABORT)
        begin_gap(core);
    grant_scan_wish(core, actions, wish);
}

/* The ruby is read often in a gap, which is to be short, and seldom in the rest of an isobar. */
static void set_isobar_pace(struct core *core, struct core_actions *actions)
{
    bool is_gap = !is_gap_over(core), is_still = access_is_readable(&core->access) || access_is_clear(&core->access);
    double pace = core->scan.state == SCAN_DONE ? PACE_ISOBAR : PACE_SCAN;
    set_ruby_every(core, actions, is_gap || !is_still ? RUBY_EVERY_S_LOADING : RUBY_EVERY_S_ISOBAR);
    set_pace(core, actions, !is_still ? PACE_ACCESS : is_gap ? PACE_LOADING : pace);
}

static void show_drift(struct core *core, struct core_actions *actions, const struct drift_projection *projection,
                       int32_t direction)
{
    struct action *action = add(actions, ACTION_DRIFT);
    action->integer[0] = core->step_index;
    action->integer[1] = direction;
    action->value[0] = projection->departure_gpa;
    action->value[1] = projection->departure_gpa_sigma;
    action->value[2] = projection->slope_gpa_per_s;
}

/* Says when the end of the isobar is going to be too far from its start, and corrects it if the step declares it:
 * between two scans only. */
static void watch_drift(struct core *core, struct core_actions *actions, uint32_t reasons)
{
    const struct plan_step *step = present_step(core);
    struct core_isobar *isobar = &core->isobar;
    struct drift_projection projection;
    int64_t end_ns = isobar->start_t_ns + ns_from_s(step->duration_s);
    if (!drift_project(&isobar->drift, core->now_ns, end_ns, &projection))
        return;
    bool is_beyond = projection.is_believed && fabs(projection.departure_gpa) > step->drift_gpa_max;
    bool is_between = core->scan.state == SCAN_WAIT || core->scan.state == SCAN_DONE;
    bool may_correct = step->drift_correction == PLAN_CORRECT_BETWEEN_SCANS && is_between &&
                       isobar->n_corrections < CORRECTIONS_MAX && core->loading.state == LOADING_DONE &&
                       (reasons & HOLD_REASONS_PRESSURE) == 0 && access_is_readable(&core->access) &&
                       core->now_ns < end_ns;
    if (is_beyond && may_correct) {
        int32_t direction = projection.slope_gpa_per_s > 0.0 ? -1 : 1;
        show_drift(core, actions, &projection, direction);
        loading_correct(&core->loading, direction, core->membrane_bar, core->now_ns);
        forget_authority(core);
        isobar->is_correcting = true;
        isobar->n_corrections++;
    } else if (is_beyond != isobar->is_drifting) {
        show_drift(core, actions, &projection, 0);
    }
    isobar->is_drifting = is_beyond;
}

/* The membrane goes to its new place as at the end of a pressure change; no scan begins meanwhile. */
static void advance_correction(struct core *core, struct core_actions *actions, uint32_t reasons, bool has_reading)
{
    show_reasons(core, actions, reasons, false);
    set_ruby_every(core, actions, RUBY_EVERY_S_LOADING);
    set_pace(core, actions, PACE_LOADING);
    drive_membrane(core, actions, reasons, has_reading);
    bool is_done = core->loading.state == LOADING_DONE;
    bool is_stopped = core->is_stopping && core->loading.state == LOADING_HELD;
    if (is_done || is_stopped) {
        core->isobar.is_correcting = core->isobar.is_drifting = false;
        drift_restart(&core->isobar.drift);
    }
}

static void advance_isobar(struct core *core, struct core_actions *actions, uint32_t reasons, bool has_reading)
{
    const struct plan_step *step = present_step(core);
    if (core->isobar.is_correcting) {
        advance_correction(core, actions, reasons, has_reading);
        return;
    }
    bool is_scan_held = (reasons & HOLD_REASONS_SCAN) != 0;
    bool is_in_the_way = !access_is_clear(&core->access); /* C4 */
    show_reasons(core, actions, reasons, !is_scan_held || core->scan.state == SCAN_DONE);
    if (core->is_stopping) {
        if (core->scan.state == SCAN_RUN)
            step_scan(core, actions, true);
        finish(core, actions, true);
        return;
    }
    step_scan(core, actions, is_scan_held || is_in_the_way);
    core->interlock.scan_exhausted = core->scan.state == SCAN_EXHAUSTED;
    set_isobar_pace(core, actions);
    watch_drift(core, actions, reasons);
    bool is_over = s_from_ns(core->now_ns - core->isobar.start_t_ns) >= step->duration_s;
    bool is_read = core->isobar.n_readings >= ISOBAR_READINGS && is_gap_over(core);
    if (!is_over || core->scan.state != SCAN_DONE || !is_read || core->isobar.is_correcting)
        return;
    struct action *action = add(actions, ACTION_ISOBAR_DONE);
    action->integer[0] = core->step_index;
    action->integer[1] = core->isobar.start_t_ns;
    action->value[0] = core->isobar.drift.pressure_gpa_start;
    action->value[1] = core->isobar.drift.pressure_gpa_end;
    action->value[2] = core->isobar.drift.pressure_gpa_departure;
    next_step(core, actions);
}

/* ---- events -------------------------------------------------------------------------------------------------- */

static void observe_reading(struct core *core, const struct event *event)
{
    assert(access_is_readable(&core->access)); /* C5 */
    core->n_readings++;
    if (core->phase == CORE_LOADING)
        loading_add_reading(&core->loading, event->t_ns, event->value[0], event->value[1]);
    if (core->phase == CORE_ISOBAR)
        add_isobar_reading(core, event);
    if (core->phase == CORE_CALIBRATION && !core->is_calibration_refused) {
        const struct calibration_reading reading = {
            .t_ns = event->integer[0],
            .r1_nm = event->value[2],
            .r1_nm_sigma = event->value[3],
            .noise_nm_sigma = event->value[1] / core->settings.calibration.gpa_per_nm,
            .temperature_k = event->value[4],
            .temperature_k_sigma = event->value[5],
        };
        calibration_add(&core->calibration, &reading);
    }
    if (core->phase == CORE_DEFLATED)
        trend_add(&core->deflated, event->t_ns, event->value[0], event->value[1], 0.0);
}

static void observe_scan(struct core *core, struct core_actions *actions, const struct event *event)
{
    bool was_running = core->scan.state == SCAN_RUN;
    enum scan_wish wish = scan_observe(&core->scan, event);
    if (was_running && core->scan.state != SCAN_RUN)
        begin_gap(core);
    if (wish != SCAN_WISH_ANALYSE)
        return;
    struct action *action = add(actions, ACTION_ANALYSE);
    action->integer[0] = event->integer[0];
    action->integer[1] = event->integer[1];
}

static void observe_resume(struct core *core, struct core_actions *actions)
{
    scan_resume(&core->scan, core->now_ns);
    core->is_hand_awaited = false;
    if (core->phase == CORE_CALIBRATION && core->is_calibration_refused)
        begin_calibration(core, actions);
}

static void observe(struct core *core, struct core_actions *actions, const struct event *event)
{
    bool is_ruby = event->kind == EVENT_RUBY || event->kind == EVENT_RUBY_REJECTED;
    if (is_ruby && !access_believes(&core->access, event->integer[0]))
        return;
    if (event->kind == EVENT_RUBY && event->integer[1] != core->ruler_number) /* C6 */
        return;
    access_observe(&core->access, event);
    interlock_observe(&core->interlock, event);
    switch ((enum event_kind)event->kind) {
    case EVENT_MEMBRANE:
        core->membrane_bar = event->value[0];
        if (event->integer[0] != 0)
            core->setpoint_bar = NAN; /* whatever it holds, it is not what it was told */
        break;
    case EVENT_MEMBRANE_FOUND:
        core->setpoint_bar = NAN; /* whatever it was told before is asked for again */
        break;
    case EVENT_RUBY:
        observe_reading(core, event);
        break;
    case EVENT_SCAN_COMPLETE:
    case EVENT_SCAN_FAILED:
        observe_scan(core, actions, event);
        break;
    case EVENT_DURABLE:
        core->durable_number = event->integer[0];
        core->pending_t_ns = core->durable_number >= core->intent_number ? 0 : core->now_ns;
        break;
    case EVENT_COMMAND:
        if (event->integer[0] == COMMAND_STOP) {
            core->is_stop_urgent = core->is_stopping;
            core->is_stopping = true;
        }
        if (event->integer[0] == COMMAND_RESUME)
            observe_resume(core, actions);
        break;
    default: /* the interlock has taken note */
        break;
    }
}

void core_step(struct core *core, const struct event *event, struct core_actions *ret_actions)
{
    assert(event->now_ns >= core->now_ns);
    ret_actions->n = 0;
    core->now_ns = event->now_ns;
    if (core->phase == CORE_FINISHED)
        return;
    observe(core, ret_actions, event);
    if (core->pending_t_ns != 0 && s_from_ns(core->now_ns - core->pending_t_ns) > DURABLE_S_MAX)
        core->interlock.journal_failed = true;
    step_access(core, ret_actions);
    uint32_t reasons = standing_reasons(core);
    bool is_burst = (reasons & HOLD_MEMBRANE_BURST) != 0;
    if (is_burst && !core->is_burst_told)
        add(ret_actions, ACTION_VALVES_SHUT);
    core->is_burst_told = is_burst;
    switch (core->phase) {
    case CORE_WAITING:
        advance_waiting(core, ret_actions, reasons);
        break;
    case CORE_JOURNAL:
        advance_journal(core, ret_actions, reasons);
        break;
    case CORE_PRELOADED:
        advance_preloaded(core, ret_actions, reasons);
        break;
    case CORE_LOADING:
        advance_loading(core, ret_actions, reasons, event->kind == EVENT_MEMBRANE);
        break;
    case CORE_ISOBAR:
        advance_isobar(core, ret_actions, reasons, event->kind == EVENT_MEMBRANE);
        break;
    case CORE_DEFLATED:
        advance_deflated(core, ret_actions, reasons);
        break;
    case CORE_CALIBRATION:
        advance_calibration(core, ret_actions, reasons);
        break;
    case CORE_FINISHED:
    case CORE_PHASE_COUNT:
        break;
    }
}
