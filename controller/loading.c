#include "controller/loading.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

#include "base/clock.h"

/* Time. After a stall of the process the ramp does not catch up; a journalled range lasts a minute of fastest move. */
#define STEP_S_MAX 2.0
#define AUTHORISE_S 60.0

/* The trend. The shortest window is taken that gives the slope to this uncertainty (GPa/s, or a share of the slope). A
 * newest reading may be older than the interlock tolerates, so that a hold still knows the slope. */
#define TREND_READINGS_MIN 8
#define READING_AGE_S_MAX 80.0
#define SLOPE_SIGMA 4e-5
#define SLOPE_SIGMA_RELATIVE 0.15

/* The servo, slower than the delay of the slope, which is half a window: damped for a compliance wrong by two. It looks
 * ahead by the time it needs to answer. */
#define SERVO_PER_WINDOW 2.0
#define LEAD_PER_WINDOW 1.3
#define SLIDE_SIGMAS 4.0 /* the sample is believed to slide */
#define BRAKE_SHARE 0.7  /* of the back-off rate is planned for braking, the rest kept */
#define YIELD_BAR 1.0    /* excess of a yielding gasket per factor e of speed: a fifth of a narrow dead zone */
#define YIELD_SLOPE_MIN 1.25e-4
#define UNLOADING_SHARE 0.5 /* of the load on the gasket: below the take-up the membrane has no hold */
#define LIMIT_GPA 2.0       /* this near the cell's limit the ramp is slower than linear creep asks for */

/* The drop that shows the far edge. The mean that it is judged by is known to DROP_MEAN_GPA; before half the dead zone
 * is crossed, a smaller drop than EARLY_DROP_GPA is a slip of the cell. */
#define DROP_READINGS_MIN 5
#define DROP_MEAN_GPA 0.004
#define EARLY_DROP_GPA 0.04
#define DROP_CONFIRMATIONS 2
#define SIGNIFICANCE 2.5          /* sigmas */
#define PROBE_PER_COMPLIANCE 3e-6 /* GPa/s^2: beyond the edge the sample drops by 0.015 GPa within 100 s */
#define PROBE_BAR_PER_S_MIN 0.015
#define BEYOND_SHARE 0.5 /* the edge is soft: the drop begins before it */

/* Widths that are believed, as shares of what was seen before, or of what is expected: a slip is not an edge. */
#define NARROWEST_SHARE 0.75
#define NARROWEST_SHARE_UNKNOWN 0.5

/* Approaches and corrections. FAR_SHORT times short_gpa is more than a drop explains. */
#define APPROACHES_MAX 4
#define FAR_SHORT 3.0
#define CORRECTIONS_MAX 1
#define CORRECTION_SHARE 0.4 /* of the half width */

/* A stall. MOVED_BAR is above the noise of the sensor; a sample that creeps may still arrive with the membrane at its
 * limit, within LIMIT_S. */
#define STALL_S 60.0
#define MOVED_BAR 0.1
#define LIMIT_S 1800.0

static const double windows_s[] = {90.0, 150.0, 240.0, 360.0};

#define N_WINDOWS ((int)(sizeof windows_s / sizeof windows_s[0]))

static const char *const state_names[LOADING_STATE_COUNT] = {
    "idle", "ramp", "back-off", "recentre", "watch", "retreat", "held", "done",
};

const char *loading_state_name(enum loading_state state)
{
    assert(state >= 0 && state < LOADING_STATE_COUNT);
    return state_names[state];
}

static double clamp(double value, double low, double high) { return value < low ? low : value > high ? high : value; }

/* The mirror: for unloading, up is down. */
static double mirror(const struct loading *loading, double value) { return loading->direction * value; }

static void enter(struct loading *loading, enum loading_state state, int64_t now_ns)
{
    loading->state = state;
    loading->plateau_sum_gpa = 0.0;
    loading->plateau_n = 0;
    loading->n_below = 0;
    loading->watch_t_ns = now_ns;
    loading->moved_t_ns = loading->free_t_ns = now_ns;
    loading->is_stalled = loading->is_at_limit = false;
}

void loading_start(struct loading *loading, const struct loading_settings *settings, int32_t direction,
                   double pressure_gpa_target, double rate_bar_per_s, double isobar_s, double drift_gpa_max,
                   double membrane_bar, int64_t now_ns)
{
    assert(direction == 1 || direction == -1);
    assert(pressure_gpa_target <= settings->pressure_gpa_max && rate_bar_per_s > 0.0);
    const struct loading before = *loading;
    bool has_taught = before.state != LOADING_IDLE && before.response.has_taught;
    *loading = (struct loading){
        .settings = *settings,
        .direction = direction,
        .pressure_gpa_target = pressure_gpa_target,
        .rate_bar_per_s = rate_bar_per_s,
        .isobar_s = isobar_s,
        .drift_gpa_max = drift_gpa_max,
        .command_bar = clamp(membrane_bar, 0.0, settings->membrane_bar_max), /* an empty membrane may read -0.01 bar */
        .t_ns = now_ns,
        .moved_bar = membrane_bar,
    };
    loading->membrane_bar = membrane_bar;
    response_init(&loading->response, direction, has_taught ? &before.response : NULL);
    loading->knows_width = has_taught && before.settings.half_width_bar != settings->half_width_bar;
    if (loading->knows_width)
        loading->settings.half_width_bar = before.settings.half_width_bar;
    enter(loading, LOADING_RAMP, now_ns);
}

/* The line through the last readings, over the shortest window that tells the slope well enough. */
static bool fit_trend(const struct loading *loading, int64_t now_ns, struct trend_fit *ret_fit, double *ret_window_s)
{
    bool is_known = false;
    if (trend_age_s(&loading->trend, now_ns) > READING_AGE_S_MAX)
        return false;
    for (int i = 0; i < N_WINDOWS; i++) {
        struct trend_fit fit;
        if (!trend_fit(&loading->trend, now_ns, windows_s[i], &fit) || fit.n < TREND_READINGS_MIN)
            continue;
        is_known = true;
        *ret_fit = fit;
        *ret_window_s = windows_s[i];
        if (fit.slope_gpa_per_s_sigma < SLOPE_SIGMA + SLOPE_SIGMA_RELATIVE * fabs(fit.slope_gpa_per_s))
            break;
    }
    return is_known;
}

/* Readings to average, so that their mean is known to DROP_MEAN_GPA. */
static int32_t drop_readings(const struct loading *loading)
{
    double ratio = trend_sigma_gpa(&loading->trend) / DROP_MEAN_GPA;
    return (int32_t)clamp(ratio * ratio, DROP_READINGS_MIN, TREND_MEAN_MAX);
}

/* While the sample slides, every reading teaches; inside the dead zone it stands still and teaches nothing. */
static void learn(struct loading *loading, int64_t t_ns, double pressure_gpa, double pressure_gpa_sigma)
{
    struct trend_fit fit;
    double window_s;
    bool is_known = fit_trend(loading, t_ns, &fit, &window_s);
    double slope = is_known ? mirror(loading, fit.slope_gpa_per_s) : 0.0;
    bool is_sliding = is_known && slope > SLIDE_SIGMAS * fit.slope_gpa_per_s_sigma;
    bool is_wrong =
        is_known && fabs(pressure_gpa - fit.level_gpa) > 5.0 * pressure_gpa_sigma + 5.0 * fit.level_gpa_sigma;
    if (!is_sliding)
        response_pause(&loading->response);
    else if (!is_wrong)
        response_add(&loading->response, t_ns, mirror(loading, loading->membrane_bar), mirror(loading, pressure_gpa),
                     pressure_gpa_sigma);
}

/* Inside the dead zone the sample stands still: those readings are the plateau that the drop is judged against. */
static void watch_plateau(struct loading *loading)
{
    double recent_gpa, sigma_gpa;
    int32_t n = drop_readings(loading);
    if (!trend_mean(&loading->trend, n, &recent_gpa, &sigma_gpa))
        return;
    recent_gpa = mirror(loading, recent_gpa);
    bool has_plateau = loading->plateau_n >= n;
    double reference_gpa = has_plateau ? loading->plateau_sum_gpa / loading->plateau_n : loading->floor_gpa;
    double sigma = sigma_gpa * sqrt(1.0 + (has_plateau ? (double)n / loading->plateau_n : 1.0));
    double drop_gpa = reference_gpa - recent_gpa;
    double crossed_bar = loading->near_edge_bar - mirror(loading, loading->command_bar);
    bool is_inside = crossed_bar >= 0.5 * loading->settings.half_width_bar;
    double drop_gpa_min = is_inside ? loading->settings.drop_gpa : EARLY_DROP_GPA;
    bool is_below = drop_gpa > drop_gpa_min && drop_gpa > SIGNIFICANCE * sigma;
    bool is_between = mirror(loading, loading->command_bar) <= loading->near_edge_bar;
    loading->n_below = is_below ? loading->n_below + 1 : 0;
    if (!is_below &&
        is_between) { /* each mean stands for one reading: they overlap, but so does what they are compared with */
        loading->plateau_sum_gpa += recent_gpa;
        loading->plateau_n++;
    }
}

void loading_add_reading(struct loading *loading, int64_t t_ns, double pressure_gpa, double pressure_gpa_sigma)
{
    if (!isfinite(pressure_gpa) || !(pressure_gpa_sigma > 0.0))
        return; /* no reading at all; the interlock knows it as stale */
    trend_add(&loading->trend, t_ns, pressure_gpa, pressure_gpa_sigma);
    if (loading->state == LOADING_RAMP)
        learn(loading, t_ns, pressure_gpa, pressure_gpa_sigma);
    if (loading->state == LOADING_BACK_OFF)
        watch_plateau(loading);
}

double loading_pressure_gpa_if_frozen(const struct loading *loading, int64_t now_ns)
{
    struct trend_fit fit;
    double window_s;
    if (!fit_trend(loading, now_ns, &fit, &window_s))
        return NAN;
    double rise_gpa = fit.slope_gpa_per_s * loading->settings.creep_s_max;
    return fit.level_gpa + (rise_gpa > 0.0 ? rise_gpa : 0.0);
}

static double cautious_compliance(const struct loading *loading)
{
    return loading->response.estimate.compliance_bar_s_per_gpa_cautious;
}

/* Rise during the back-off: the excess compliance x slope is taken out at the back-off rate. */
static double expected_rise_gpa(const struct loading *loading, double slope_gpa_per_s)
{
    if (!(slope_gpa_per_s > 0.0))
        return 0.0;
    return slope_gpa_per_s * slope_gpa_per_s * cautious_compliance(loading) /
           (2.0 * loading->settings.back_off_bar_per_s);
}

/* dP/dt wanted at this distance from the target, in the direction of the change: what can still be braked, and a taper
 * at the end. */
static double wanted_slope(const struct loading *loading, double level_gpa)
{
    const struct loading_settings *settings = &loading->settings;
    double remaining_gpa = mirror(loading, loading->pressure_gpa_target) - level_gpa;
    if (!(remaining_gpa > 0.0))
        return 0.0;
    double slope = remaining_gpa / settings->taper_s;
    double braked =
        sqrt(2.0 * BRAKE_SHARE * settings->back_off_bar_per_s * remaining_gpa / cautious_compliance(loading));
    slope = slope < braked ? slope : braked;
    if (loading->direction > 0) { /* V11: if the daemon died now, the creep must end below the cell's limit */
        double margin_gpa = settings->pressure_gpa_max - level_gpa;
        double share = margin_gpa / LIMIT_GPA; /* a gasket that creeps with the logarithm of time goes on for hours */
        double slope_max = margin_gpa / settings->creep_s_max * (share < 1.0 ? share : 1.0);
        slope = slope < slope_max ? slope : slope_max;
    } else { /* below the take-up the membrane has no hold on the sample any more: stay well above */
        double excess_bar = UNLOADING_SHARE * loading->response.estimate.edge_bar_per_gpa * -level_gpa;
        double slope_max = excess_bar / cautious_compliance(loading);
        slope = slope < slope_max ? slope : slope_max;
    }
    return slope;
}

static void end_ramp(struct loading *loading, int64_t now_ns, double level_gpa, double slope)
{
    double compliance = loading->response.estimate.compliance_bar_s_per_gpa;
    bool has_back_off = loading->settings.back_off != LOADING_BACK_OFF_NONE;
    loading->near_edge_bar = mirror(loading, loading->command_bar) - (slope > 0.0 ? compliance * slope : 0.0);
    loading->centre_bar = mirror(loading, loading->command_bar);
    double mean_gpa, sigma_gpa; /* as late as the means that will be compared with it */
    bool is_known = trend_mean(&loading->trend, drop_readings(loading), &mean_gpa, &sigma_gpa);
    loading->floor_gpa = is_known ? mirror(loading, mean_gpa) : level_gpa;
    loading->n_approaches++;
    response_pause(&loading->response);
    enter(loading, has_back_off ? LOADING_BACK_OFF : LOADING_WATCH, now_ns);
}

/* A gasket that yields like an activated solid grows stiffer as it slows down: its excess falls with the logarithm of
 * the speed, and what was learned at speed is too little to brake with. */
static double servo_compliance(const struct loading *loading, double slope)
{
    double compliance = loading->response.estimate.compliance_bar_s_per_gpa;
    double slow = YIELD_BAR / (slope > YIELD_SLOPE_MIN ? slope : YIELD_SLOPE_MIN);
    return compliance > slow ? compliance : slow;
}

/* Returns the rate of the command, in the direction of the change, bar/s. */
static double step_ramp(struct loading *loading, int64_t now_ns)
{
    const struct loading_settings *settings = &loading->settings;
    const struct response_estimate *estimate = &loading->response.estimate;
    struct trend_fit fit;
    double window_s;
    if (!fit_trend(loading, now_ns, &fit, &window_s))
        return 0.0;
    double level_gpa = mirror(loading, fit.level_gpa), slope = mirror(loading, fit.slope_gpa_per_s);
    double target_gpa = mirror(loading, loading->pressure_gpa_target);
    bool is_sliding = slope > SLIDE_SIGMAS * fit.slope_gpa_per_s_sigma;
    double believed = is_sliding ? slope : 0.0;
    if (level_gpa + fit.level_gpa_sigma + expected_rise_gpa(loading, believed) >= target_gpa - settings->stop_gpa) {
        end_ramp(loading, now_ns, level_gpa, believed);
        return 0.0;
    }
    if (loading->n_approaches > 0 && mirror(loading, loading->command_bar) < loading->near_edge_bar)
        return loading->rate_bar_per_s; /* back through a dead zone that is known: nothing slides here */
    double lead_gpa = slope > 0.0 ? LEAD_PER_WINDOW * window_s * slope : 0.0; /* until the servo has answered */
    double missing = wanted_slope(loading, level_gpa + lead_gpa) - slope;
    double rate =
        slope * estimate->edge_bar_per_gpa + servo_compliance(loading, slope) * missing / (SERVO_PER_WINDOW * window_s);
    return clamp(rate, -settings->back_off_bar_per_s, loading->rate_bar_per_s);
}

static double probe_rate(const struct loading *loading)
{
    double rate = PROBE_PER_COMPLIANCE * loading->response.estimate.compliance_bar_s_per_gpa;
    return clamp(rate, PROBE_BAR_PER_S_MIN, loading->settings.back_off_bar_per_s);
}

/* The drop lags behind the edge: with the edge passed at the probing rate, drop = rate t^2 / (2 compliance), and the
 * mean that shows it lies half its span in the past. */
static void find_far_edge(struct loading *loading)
{
    double recent_gpa = 0.0, sigma_gpa, rate = probe_rate(loading);
    int32_t n = drop_readings(loading);
    trend_mean(&loading->trend, n, &recent_gpa, &sigma_gpa);
    double plateau_gpa = loading->plateau_n >= n ? loading->plateau_sum_gpa / loading->plateau_n : loading->floor_gpa;
    double drop_gpa = plateau_gpa - mirror(loading, recent_gpa);
    drop_gpa = drop_gpa > 0.0 ? drop_gpa : 0.0;
    double beyond_bar = sqrt(2.0 * rate * loading->response.estimate.compliance_bar_s_per_gpa * drop_gpa) +
                        0.5 * rate * trend_span_s(&loading->trend, n);
    loading->far_edge_bar = mirror(loading, loading->command_bar) + BEYOND_SHARE * beyond_bar;
    double narrowest_bar =
        (loading->knows_width ? NARROWEST_SHARE : NARROWEST_SHARE_UNKNOWN) * loading->settings.half_width_bar;
    double end_bar = loading->centre_bar;               /* of the ramp: the sample slid there, no edge lies beyond it */
    if (loading->far_edge_bar > loading->near_edge_bar) /* the drop was seen, the near edge only computed */
        loading->near_edge_bar = fmin(loading->far_edge_bar + 2.0 * loading->settings.half_width_bar, end_bar);
    if (loading->near_edge_bar - loading->far_edge_bar < 2.0 * narrowest_bar)
        loading->far_edge_bar = loading->near_edge_bar - 2.0 * narrowest_bar;
    loading->centre_bar = (loading->near_edge_bar + loading->far_edge_bar) / 2.0;
    loading->settings.half_width_bar = (loading->near_edge_bar - loading->far_edge_bar) / 2.0;
    assert(loading->centre_bar <= end_bar); /* L5 */
}

/* The plateau is known and lies short of the target: the ramp stopped too early, which costs minutes, not the sample.
 */
static bool is_short(const struct loading *loading)
{
    if (loading->plateau_n < 2 * drop_readings(loading) || loading->n_approaches >= APPROACHES_MAX)
        return false;
    double plateau_gpa = loading->plateau_sum_gpa / loading->plateau_n;
    return mirror(loading, loading->pressure_gpa_target) - plateau_gpa > loading->settings.short_gpa;
}

/* The sample falls, and far from the target: the ramp had stopped for a wrong reason. */
static bool is_far_short(const struct loading *loading, const struct trend_fit *fit)
{
    double short_gpa = mirror(loading, loading->pressure_gpa_target - fit->level_gpa);
    return loading->n_approaches < APPROACHES_MAX && short_gpa > FAR_SHORT * loading->settings.short_gpa;
}

static double step_back_off(struct loading *loading, int64_t now_ns)
{
    const struct loading_settings *settings = &loading->settings;
    struct trend_fit fit;
    double window_s;
    if (!fit_trend(loading, now_ns, &fit, &window_s))
        return 0.0;
    if (is_short(loading)) {
        enter(loading, LOADING_RAMP, now_ns);
        return 0.0;
    }
    if (loading->n_below >= DROP_CONFIRMATIONS && is_far_short(loading, &fit)) {
        enter(loading, LOADING_RAMP, now_ns);
        return 0.0;
    }
    if (loading->n_below >= DROP_CONFIRMATIONS) {
        find_far_edge(loading);
        enter(loading, LOADING_RECENTRE, now_ns);
        return 0.0;
    }
    double crossed_bar = loading->near_edge_bar - mirror(loading, loading->command_bar);
    if (crossed_bar < 0.5 * settings->half_width_bar)
        return -settings->back_off_bar_per_s;
    /* Wait here until the plateau is known; then on, slowly where the far edge is expected. */
    if (loading->plateau_n < 2 * drop_readings(loading))
        return 0.0;
    return crossed_bar < settings->half_width_bar ? -settings->back_off_bar_per_s : -probe_rate(loading);
}

/* Moves towards `goal_bar` (x direction) at the back-off rate; true when there. */
static bool rate_towards(const struct loading *loading, double goal_bar, double *ret_rate)
{
    double remaining_bar = goal_bar - mirror(loading, loading->command_bar);
    double rate = loading->settings.back_off_bar_per_s;
    *ret_rate = clamp(remaining_bar / STEP_S_MAX, -rate, rate); /* the longest step does not go beyond the goal */
    return fabs(remaining_bar) < 0.02;
}

static double step_recentre(struct loading *loading, int64_t now_ns)
{
    double rate;
    if (rate_towards(loading, loading->centre_bar, &rate)) {
        trend_clear(&loading->trend);
        enter(loading, LOADING_WATCH, now_ns);
    }
    return rate;
}

static double step_watch(struct loading *loading, int64_t now_ns)
{
    struct trend_fit fit;
    double watched_s = s_from_ns(now_ns - loading->watch_t_ns);
    if (watched_s < loading->settings.watch_s || !trend_fit(&loading->trend, now_ns, loading->settings.watch_s, &fit) ||
        fit.n < TREND_READINGS_MIN)
        return 0.0;
    double drift_gpa = mirror(loading, fit.slope_gpa_per_s) * loading->isobar_s;
    bool is_significant = fabs(fit.slope_gpa_per_s) > SIGNIFICANCE * fit.slope_gpa_per_s_sigma;
    bool is_too_much = fabs(drift_gpa) > loading->drift_gpa_max / 2.0;
    if (is_significant && is_too_much && loading->n_corrections < CORRECTIONS_MAX &&
        loading->settings.back_off != LOADING_BACK_OFF_NONE) {
        double step_bar = CORRECTION_SHARE * loading->settings.half_width_bar;
        loading->n_corrections++;
        loading->centre_bar += drift_gpa > 0.0 ? -step_bar : step_bar;
        enter(loading, LOADING_RECENTRE, now_ns);
    } else {
        enter(loading, LOADING_DONE, now_ns);
    }
    return 0.0;
}

static double step_retreat(struct loading *loading, int64_t now_ns)
{
    double rate;
    bool is_there = rate_towards(loading, loading->centre_bar, &rate);
    if (!is_there && rate < 0.0)
        return rate;
    enter(loading, LOADING_HELD, now_ns); /* at the goal, or below it: a membrane that leaks pulls the leash down */
    return 0.0;
}

/* A membrane that does not follow for STALL_S is a stall. */
static void watch_stall(struct loading *loading, int64_t now_ns, double membrane_bar)
{
    bool is_asked = fabs(loading->command_bar - membrane_bar) > 0.5 * loading->settings.leash_bar;
    if (!is_asked || fabs(membrane_bar - loading->moved_bar) > MOVED_BAR) {
        loading->moved_bar = membrane_bar;
        loading->moved_t_ns = now_ns;
    }
    loading->is_stalled = s_from_ns(now_ns - loading->moved_t_ns) > STALL_S;
}

void loading_step(struct loading *loading, int64_t now_ns, double membrane_bar, double authorised_bar_min,
                  double authorised_bar_max)
{
    double dt_s = clamp(s_from_ns(now_ns - loading->t_ns), 0.0, STEP_S_MAX);
    double rate = 0.0, before_bar = loading->command_bar;
    enum loading_state state = loading->state;
    loading->t_ns = now_ns;
    loading->membrane_bar = membrane_bar;
    switch (state) {
    case LOADING_RAMP:
        rate = step_ramp(loading, now_ns);
        break;
    case LOADING_BACK_OFF:
        rate = step_back_off(loading, now_ns);
        break;
    case LOADING_RECENTRE:
        rate = step_recentre(loading, now_ns);
        break;
    case LOADING_WATCH:
        rate = step_watch(loading, now_ns);
        break;
    case LOADING_RETREAT:
        rate = step_retreat(loading, now_ns);
        break;
    case LOADING_IDLE:
    case LOADING_HELD:
    case LOADING_DONE:
    case LOADING_STATE_COUNT:
        return;
    }
    double wanted_bar = before_bar + mirror(loading, rate) * dt_s;
    wanted_bar =
        clamp(wanted_bar, membrane_bar - loading->settings.leash_bar, membrane_bar + loading->settings.leash_bar);
    double limited_bar = clamp(wanted_bar, 0.0, loading->settings.membrane_bar_max);
    bool is_limited = limited_bar != wanted_bar;
    if (!is_limited)
        loading->free_t_ns = now_ns;
    loading->is_at_limit = s_from_ns(now_ns - loading->free_t_ns) > LIMIT_S;
    if (rate != 0.0)
        loading->command_bar = clamp(limited_bar, authorised_bar_min, authorised_bar_max);
    if (state == LOADING_RETREAT && loading->command_bar > before_bar)
        loading->command_bar = before_bar; /* the membrane lags behind: wait for it */
    if (loading->command_bar != before_bar)
        loading->watch_t_ns = state == LOADING_RETREAT ? now_ns : loading->watch_t_ns;
    else if (loading->state == LOADING_RETREAT && !loading->is_stalled &&
             s_from_ns(now_ns - loading->watch_t_ns) > 2.0 * STALL_S)
        enter(loading, LOADING_HELD, now_ns); /* as far as the journal allows */
    if (rate != 0.0 && !is_limited)
        watch_stall(loading, now_ns, membrane_bar);
    else
        loading->moved_t_ns = now_ns;
    assert(loading->command_bar >= 0.0 && loading->command_bar <= loading->settings.membrane_bar_max); /* L1 */
    assert(state != LOADING_RETREAT || loading->command_bar <= before_bar);                            /* L4 */
}

/* The near edge of the dead zone as far as it is known, loading only. */
static double retreat_edge_bar(const struct loading *loading)
{
    if (loading->state != LOADING_RAMP || loading->command_bar < loading->near_edge_bar)
        return loading->near_edge_bar; /* inside the dead zone that an earlier hold or back-off has found */
    struct trend_fit fit;
    double window_s;
    bool is_known = fit_trend(loading, loading->t_ns, &fit, &window_s);
    bool is_sliding = is_known && fit.slope_gpa_per_s > SLIDE_SIGMAS * fit.slope_gpa_per_s_sigma;
    return loading->command_bar - (is_sliding ? cautious_compliance(loading) * fit.slope_gpa_per_s : 0.0);
}

void loading_range(const struct loading *loading, double *ret_bar_min, double *ret_bar_max)
{
    double reach_bar = loading->settings.back_off_bar_per_s * AUTHORISE_S;
    *ret_bar_min = clamp(loading->command_bar - reach_bar, 0.0, loading->settings.membrane_bar_max);
    bool may_retreat = loading->direction > 0 && (loading->state == LOADING_RAMP || loading->state == LOADING_BACK_OFF);
    double retreat_bar =
        may_retreat ? retreat_edge_bar(loading) - 2.0 * loading->settings.half_width_bar : *ret_bar_min;
    if (retreat_bar < *ret_bar_min) /* a hold because of the journal must find its way authorised */
        *ret_bar_min = clamp(retreat_bar, 0.0, loading->settings.membrane_bar_max);
    *ret_bar_max = clamp(loading->command_bar + reach_bar, 0.0, loading->settings.membrane_bar_max);
}

void loading_hold(struct loading *loading)
{
    enum loading_state state = loading->state;
    if (state == LOADING_IDLE || state == LOADING_DONE || state == LOADING_HELD || state == LOADING_RETREAT)
        return;
    loading->state_held = state;
    bool is_moving_sample = state == LOADING_RAMP || state == LOADING_BACK_OFF;
    if (loading->direction < 0 || !is_moving_sample) {
        loading->state = LOADING_HELD;
        return;
    }
    loading->near_edge_bar = retreat_edge_bar(loading);
    loading->centre_bar = loading->near_edge_bar - loading->settings.half_width_bar;
    if (loading->centre_bar < 0.0)
        loading->centre_bar = 0.0;
    enter(loading, loading->centre_bar < loading->command_bar ? LOADING_RETREAT : LOADING_HELD, loading->t_ns);
}

void loading_resume(struct loading *loading, double membrane_bar, int64_t now_ns)
{
    if (loading->state != LOADING_HELD && loading->state != LOADING_RETREAT)
        return;
    bool was_settled = loading->state_held == LOADING_WATCH || loading->state_held == LOADING_RECENTRE;
    trend_clear(&loading->trend);
    response_pause(&loading->response);
    loading->t_ns = now_ns;
    double top_bar = loading->command_bar + loading->settings.leash_bar; /* one wrong reading is no reason to rise */
    loading->command_bar = clamp(membrane_bar, 0.0, fmin(top_bar, loading->settings.membrane_bar_max));
    enter(loading, was_settled ? loading->state_held : LOADING_RAMP, now_ns);
}
