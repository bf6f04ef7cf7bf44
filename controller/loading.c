#include "controller/loading.h"

#include <assert.h>
#include <math.h>

#include "base/clock.h"

#define STEP_S_MAX 2.0      /* after a stall of the process the ramp does not catch up */
#define TREND_WINDOW_S 90.0 /* short against the creep time, long enough for a slope of 5e-5 GPa/s */
#define TREND_READINGS_MIN 8
#define SERVO_S 200.0 /* twice the delay of the slope estimate: damped for a compliance wrong by two */
#define DROP_READINGS 4
#define DROP_CONFIRMATIONS 3 /* one slip of the cell is not a drop */
#define SIGNIFICANCE 3.0     /* sigmas */
#define STALL_S 60.0
#define LIMIT_S 1800.0 /* a sample that creeps may still arrive with the membrane at its limit */
#define CORRECTIONS_MAX 3
#define AUTHORISE_S 60.0

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
}

void loading_start(struct loading *loading, const struct loading_settings *settings, int32_t direction,
                   double pressure_gpa_target, double rate_bar_per_s, double isobar_s, double drift_gpa_max,
                   double membrane_bar, int64_t now_ns)
{
    assert(direction == 1 || direction == -1);
    assert(pressure_gpa_target <= settings->pressure_gpa_max && rate_bar_per_s > 0.0);
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
    enter(loading, LOADING_RAMP, now_ns);
}

void loading_add_reading(struct loading *loading, int64_t t_ns, double pressure_gpa, double pressure_gpa_sigma)
{
    trend_add(&loading->trend, t_ns, pressure_gpa, pressure_gpa_sigma);
    if (loading->state != LOADING_BACK_OFF || mirror(loading, loading->command_bar) > loading->near_edge_bar)
        return;
    /* Inside the dead zone the sample stands still: those readings are the plateau that the drop is judged against. */
    double recent_gpa, sigma_gpa;
    bool is_below = false;
    if (loading->plateau_n >= DROP_READINGS && trend_mean(&loading->trend, DROP_READINGS, &recent_gpa, &sigma_gpa)) {
        double plateau_gpa = loading->plateau_sum_gpa / loading->plateau_n;
        double sigma = sigma_gpa * sqrt(1.0 + (double)DROP_READINGS / loading->plateau_n);
        double drop_gpa = plateau_gpa - mirror(loading, recent_gpa);
        is_below = drop_gpa > loading->settings.drop_gpa && drop_gpa > SIGNIFICANCE * sigma;
    }
    loading->n_below = is_below ? loading->n_below + 1 : 0;
    if (!is_below) {
        loading->plateau_sum_gpa += mirror(loading, pressure_gpa);
        loading->plateau_n++;
    }
}

static bool fit_trend(const struct loading *loading, int64_t now_ns, double window_s, struct trend_fit *ret_fit)
{
    return trend_fit(&loading->trend, now_ns, window_s, ret_fit) && ret_fit->n >= TREND_READINGS_MIN;
}

double loading_pressure_gpa_if_frozen(const struct loading *loading, int64_t now_ns)
{
    struct trend_fit fit;
    if (!fit_trend(loading, now_ns, TREND_WINDOW_S, &fit))
        return NAN;
    double rise_gpa = fit.slope_gpa_per_s * loading->settings.creep_s_max;
    return fit.level_gpa + (rise_gpa > 0.0 ? rise_gpa : 0.0);
}

/* Rise during the back-off: the excess compliance x slope is taken out at the back-off rate. */
static double expected_rise_gpa(const struct loading *loading, double slope_gpa_per_s)
{
    return slope_gpa_per_s * slope_gpa_per_s * loading->settings.compliance_bar_s_per_gpa /
           (2.0 * loading->settings.back_off_bar_per_s);
}

/* dP/dt wanted at this distance from the target, in the direction of the change. */
static double wanted_slope(const struct loading *loading, double level_gpa)
{
    double remaining_gpa = mirror(loading, loading->pressure_gpa_target) - level_gpa;
    double slope = remaining_gpa / loading->settings.taper_s;
    if (loading->direction > 0) { /* V11: if the daemon died now, the creep must end below the cell's limit */
        double slope_max = (loading->settings.pressure_gpa_max - level_gpa) / loading->settings.creep_s_max;
        slope = slope < slope_max ? slope : slope_max;
    }
    return slope;
}

/* Returns the rate of the command, in the direction of the change, bar/s. */
static double step_ramp(struct loading *loading, int64_t now_ns)
{
    const struct loading_settings *settings = &loading->settings;
    struct trend_fit fit;
    if (!fit_trend(loading, now_ns, TREND_WINDOW_S, &fit))
        return 0.0;
    double level_gpa = mirror(loading, fit.level_gpa), slope = mirror(loading, fit.slope_gpa_per_s);
    double rise_gpa = slope > 0.0 ? expected_rise_gpa(loading, slope) : 0.0;
    double target_gpa = mirror(loading, loading->pressure_gpa_target);
    if (level_gpa + rise_gpa >= target_gpa - settings->stop_gpa) {
        double excess_bar = slope > 0.0 ? settings->compliance_bar_s_per_gpa * slope : 0.0;
        loading->near_edge_bar = mirror(loading, loading->command_bar) - excess_bar;
        bool has_back_off = settings->back_off != LOADING_BACK_OFF_NONE;
        loading->centre_bar = mirror(loading, loading->command_bar);
        enter(loading, has_back_off ? LOADING_BACK_OFF : LOADING_WATCH, now_ns);
        return 0.0;
    }
    double missing = wanted_slope(loading, level_gpa) - slope;
    double rate = slope * settings->edge_bar_per_gpa + settings->compliance_bar_s_per_gpa * missing / SERVO_S;
    return clamp(rate, -settings->back_off_bar_per_s, loading->rate_bar_per_s);
}

static double step_back_off(struct loading *loading, int64_t now_ns)
{
    const struct loading_settings *settings = &loading->settings;
    struct trend_fit fit;
    if (!fit_trend(loading, now_ns, TREND_WINDOW_S, &fit))
        return 0.0;
    if (loading->n_below < DROP_CONFIRMATIONS) {
        double crossed_bar = loading->near_edge_bar - mirror(loading, loading->command_bar);
        return crossed_bar < settings->half_width_bar ? -settings->back_off_bar_per_s : -settings->probe_bar_per_s;
    }
    /* The drop lags behind the edge: with the edge passed at the probing rate, drop = rate t^2 / (2 compliance). */
    double recent_gpa, sigma_gpa;
    trend_mean(&loading->trend, DROP_READINGS, &recent_gpa, &sigma_gpa);
    double drop_gpa = loading->plateau_sum_gpa / loading->plateau_n - mirror(loading, recent_gpa);
    double beyond_bar = sqrt(2.0 * settings->probe_bar_per_s * settings->compliance_bar_s_per_gpa * drop_gpa);
    loading->far_edge_bar = mirror(loading, loading->command_bar) + beyond_bar;
    if (loading->far_edge_bar > loading->near_edge_bar)
        loading->far_edge_bar = loading->near_edge_bar;
    loading->centre_bar = (loading->near_edge_bar + loading->far_edge_bar) / 2.0;
    loading->settings.half_width_bar = (loading->near_edge_bar - loading->far_edge_bar) / 2.0;
    enter(loading, LOADING_RECENTRE, now_ns);
    return 0.0;
}

/* Moves towards `goal_bar` (x direction) at the back-off rate; true when there. */
static bool rate_towards(const struct loading *loading, double goal_bar, double *ret_rate)
{
    double remaining_bar = goal_bar - mirror(loading, loading->command_bar);
    double rate = loading->settings.back_off_bar_per_s;
    *ret_rate = clamp(remaining_bar, -rate, rate); /* the last second in smaller steps */
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
    if (watched_s < loading->settings.watch_s || !fit_trend(loading, now_ns, loading->settings.watch_s, &fit))
        return 0.0;
    double drift_gpa = mirror(loading, fit.slope_gpa_per_s) * loading->isobar_s;
    bool is_significant = fabs(fit.slope_gpa_per_s) > SIGNIFICANCE * fit.slope_gpa_per_s_sigma;
    bool is_too_much = fabs(drift_gpa) > loading->drift_gpa_max / 2.0;
    if (is_significant && is_too_much && loading->n_corrections < CORRECTIONS_MAX &&
        loading->settings.back_off != LOADING_BACK_OFF_NONE) {
        double step_bar = loading->settings.half_width_bar / 2.0;
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
    if (rate_towards(loading, loading->centre_bar, &rate))
        enter(loading, LOADING_HELD, now_ns);
    return rate < 0.0 ? rate : 0.0;
}

/* A membrane that does not follow for STALL_S is a stall. */
static void watch_stall(struct loading *loading, int64_t now_ns, double membrane_bar)
{
    bool is_asked = fabs(loading->command_bar - membrane_bar) > 0.5 * loading->settings.leash_bar;
    if (!is_asked || fabs(membrane_bar - loading->moved_bar) > 0.02) {
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
    if (rate != 0.0 && !is_limited)
        watch_stall(loading, now_ns, membrane_bar);
    else
        loading->moved_t_ns = now_ns;
    assert(loading->command_bar >= 0.0 && loading->command_bar <= loading->settings.membrane_bar_max); /* L1 */
    assert(state != LOADING_RETREAT || loading->command_bar <= before_bar || rate == 0.0);             /* L4 */
}

void loading_range(const struct loading *loading, double *ret_bar_min, double *ret_bar_max)
{
    double reach_bar = loading->settings.back_off_bar_per_s * AUTHORISE_S;
    *ret_bar_min = clamp(loading->command_bar - reach_bar, 0.0, loading->settings.membrane_bar_max);
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
    double edge_bar = loading->near_edge_bar;
    if (state == LOADING_RAMP) {
        struct trend_fit fit;
        bool is_known = fit_trend(loading, loading->t_ns, 2.0 * TREND_WINDOW_S, &fit);
        double slope = is_known && fit.slope_gpa_per_s > 0.0 ? fit.slope_gpa_per_s : 0.0;
        edge_bar = loading->command_bar - loading->settings.compliance_bar_s_per_gpa * slope;
    }
    loading->centre_bar = edge_bar - loading->settings.half_width_bar;
    if (loading->centre_bar < 0.0)
        loading->centre_bar = 0.0;
    loading->state = loading->centre_bar < loading->command_bar ? LOADING_RETREAT : LOADING_HELD;
}

void loading_resume(struct loading *loading, double membrane_bar, int64_t now_ns)
{
    if (loading->state != LOADING_HELD && loading->state != LOADING_RETREAT)
        return;
    bool was_settled = loading->state_held == LOADING_WATCH || loading->state_held == LOADING_RECENTRE;
    trend_clear(&loading->trend);
    loading->t_ns = now_ns;
    loading->command_bar = clamp(membrane_bar, 0.0, loading->settings.membrane_bar_max);
    enter(loading, was_settled ? loading->state_held : LOADING_RAMP, now_ns);
}
