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

/* The servo. The slope is that of this instant (trend_drive), so it may answer fast; it looks ahead by the time it
 * takes to answer. Of the back-off rate BRAKE_SHARE is planned for braking, the rest kept. */
#define SERVO_S 40.0
#define SLIDE_SIGMAS 4.0 /* the sample is believed to slide */
#define SLIDE_BAR 6.0    /* of excess, at most, when it is */
#define BRAKE_SHARE 0.8
#define UNLOADING_SHARE 0.6 /* of the load on the gasket may be excess, at least */

/* What one slide says of a cell that nobody knows may be a slip of the cell: more is expected to follow. */
#define FIRST_DOUBT 1.3

/* A gasket that yields like an activated solid: its excess falls by YIELD_BAR, a fifth of a narrow dead zone, per
 * factor e of speed; it goes on by YIELDING_GPA while the excess is taken out, beyond what is expected. */
#define YIELD_BAR 1.0
#define YIELD_SLOPE_MIN 1.25e-4
#define YIELDING_GPA 0.017

/* V11. The slide is followed from where it is significant, as far off as FOLLOW says. Of a gasket that yields, the part
 * of the half width per factor e of speed; the width as it is seen, between points of slow speed, tells it too small,
 * so the first slide begins with YIELD_SHARE_SEEN. Of one that flows, the softness of its edge, and how well its stored
 * excess is known at least. It flows when the readings speak for it by FLOWS_CHI2: slips alone can speak by half as
 * much. The room kept below the limit is for slips and temperature, and LIMIT_SHARE of the rise for what is wrong with
 * it. A target that would take longer than REACH_S is not waited for. */
#define FOLLOW_SIGMAS 4.0
#define FOLLOW_GPA 0.01
#define FOLLOW_SHARE 0.5
#define YIELD_SHARE 0.2
#define YIELD_SHARE_SEEN 0.24
#define YIELD_SHARE_SIGMA 0.06
#define YIELD_SHARE_SIGMA_MIN 0.02
#define SOFT_SHARE 0.1
#define STORED_SHARE 0.3
#define FLOWS_CHI2 100.0
#define ODDS_MAX 400.0
#define LIMIT_MARGIN_GPA 0.03
#define LIMIT_SHARE 0.10
#define REACHED_GPA 0.02
#define REACH_S 7200.0
#define DAY_S 86400.0

/* The drop that shows the far edge. The mean that it is judged by is known to DROP_MEAN_GPA; before half the dead zone
 * is crossed, a smaller drop than EARLY_DROP_GPA is a slip of the cell. */
#define DROP_READINGS_MIN 5
#define DROP_MEAN_GPA 0.004
#define EARLY_DROP_GPA 0.04
#define DROP_CONFIRMATIONS 2
#define DROP_SLOPE 1e-4           /* GPa/s: of the sample, when the drop is confirmed */
#define SIGNIFICANCE 2.5          /* sigmas */
#define PROBE_PER_COMPLIANCE 3e-6 /* GPa/s^2: beyond the edge the sample drops by 0.015 GPa within 100 s */
#define PROBE_BAR_PER_S_MIN 0.015
#define BEYOND_SHARE 0.5 /* the edge is soft: the drop begins before it */

/* The dead zone. A width much below what is expected is not believed: a slip is not an edge. Probing begins where the
 * far edge may be; a width that is known to KNOWN_SHARE need not be probed for; a known one is crossed fast up to
 * CROSSING_SHARE of the half width before the edge. */
#define HALF_WIDTH_BAR_MIN 1.0
#define NARROWEST_SHARE 0.5
#define NARROWEST_SIGMAS 2.0
#define PROBE_SIGMAS 1.0
#define KNOWN_SHARE 0.12
#define CROSSING_SHARE 0.2
#define CROSSING_SIGMAS 1.0

/* How well an edge is seen, sigma: a share of the half width, and what the ramp itself blurs. The far edge shows by a
 * small drop only. */
#define EDGE_BAR 0.3
#define NEAR_SHARE 0.15
#define FAR_SHARE 0.25
#define MIDDLE_SHARE 0.05 /* of the half width: the middle on another line than that of the changes before */

/* Approaches and corrections. FAR_SHORT times short_gpa is more than a drop explains. */
#define APPROACHES_MAX 4
#define FAR_SHORT 2.5
#define FAR_READINGS 8
#define FAR_CROSSED_SHARE 0.3 /* of the half width, in which the readings come that tell */
#define CORRECTIONS_MAX 1
#define CORRECTION_SHARE 0.4 /* of the half width */

/* A stall. MOVED_BAR is above the noise of the sensor; a sample that creeps may still arrive with the membrane at its
 * limit, within LIMIT_S. */
#define STALL_S 60.0
#define UNWATCHED_S                                                                                                    \
    10.0 /* a membrane that nobody drove for so long, with its valves in other hands, has not stalled                  \
          */
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

/* Half width of the dead zone at this pressure (x direction). */
static double half_width_bar(const struct loading *loading, double level_gpa)
{
    return fmax(line_at(&loading->width, mirror(loading, level_gpa)), HALF_WIDTH_BAR_MIN);
}

/* On unloading: below the take-up the membrane has no hold on the sample, and lets it go no faster. */
static double acting_bar(const struct loading *loading, double membrane_bar)
{
    return loading->direction < 0 ? fmax(membrane_bar, loading->middle.offset_bar) : membrane_bar;
}

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

/* What most cells have: the calibrated assumption of sim/plant.h, with sigmas that cover all that are thinkable. */
static void assume_cell(struct loading *loading)
{
    line_init(&loading->width, 4.4, 3.0, 1.2, 0.8);
    line_init(&loading->middle, 10.6, 6.0, 10.0, 2.5);
}

/* What the changes before have taught, or what is known of the cell from earlier nights. */
static void take_over(struct loading *loading, const struct loading *before)
{
    const struct loading_cell *cell = &loading->settings.cell;
    bool is_first = before->state == LOADING_IDLE;
    loading->is_first = is_first && !cell->is_known;
    if (!is_first) {
        loading->width = before->width;
        loading->middle = before->middle;
        loading->is_viscous = before->is_viscous;
        loading->yield_share = before->yield_share;
        loading->yield_share_sigma = before->yield_share_sigma;
        loading->viscous_odds = before->viscous_odds;
    } else if (cell->is_known) {
        line_init(&loading->width, cell->half_width_bar, cell->half_width_bar_sigma, cell->half_width_bar_per_gpa,
                  cell->half_width_bar_per_gpa_sigma);
        line_init(&loading->middle, cell->takeup_bar, cell->takeup_bar_sigma, cell->bar_per_gpa,
                  cell->bar_per_gpa_sigma);
    } else {
        assume_cell(loading);
    }
    const struct line *middle = &loading->middle, *width = &loading->width;
    double edge_bar_per_gpa = middle->slope_bar_per_gpa + loading->direction * width->slope_bar_per_gpa;
    double edge_sigma = sqrt(middle->variance[2] + width->variance[2]);
    response_init(&loading->response, edge_bar_per_gpa, edge_sigma);
    if (!is_first && before->response.has_taught)
        response_take_over(&loading->response, &before->response);
    else if (is_first && cell->is_known)
        response_know(&loading->response, cell->compliance_bar_s_per_gpa, cell->compliance_bar_s_per_gpa_sigma);
}

void loading_start(struct loading *loading, const struct loading_settings *settings, int32_t direction,
                   double pressure_gpa_target, double rate_bar_per_s, double isobar_s, double drift_gpa_max,
                   double membrane_bar, int64_t now_ns)
{
    assert(direction == 1 || direction == -1);
    assert(pressure_gpa_target <= settings->pressure_gpa_max && rate_bar_per_s > 0.0);
    const struct loading before = *loading;
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
        .yield_share = YIELD_SHARE_SEEN,
        .yield_share_sigma = YIELD_SHARE_SIGMA,
    };
    take_over(loading, &before);
    loading->acting_bar = acting_bar(loading, membrane_bar);
    enter(loading, LOADING_RAMP, now_ns);
}

/* The line through the last readings, over the shortest window that tells the slope well enough. */
static bool fit_window(const struct loading *loading, int64_t now_ns, const struct trend_drive *drive,
                       struct trend_fit *ret_fit)
{
    bool is_known = false;
    if (trend_age_s(&loading->trend, now_ns) > READING_AGE_S_MAX)
        return false;
    for (int i = 0; i < N_WINDOWS; i++) {
        struct trend_fit fit;
        if (!trend_fit(&loading->trend, now_ns, windows_s[i], drive, &fit) || fit.n < TREND_READINGS_MIN)
            continue;
        is_known = true;
        *ret_fit = fit;
        if (fit.slope_gpa_per_s_sigma < SLOPE_SIGMA + SLOPE_SIGMA_RELATIVE * fabs(fit.slope_gpa_per_s))
            break;
    }
    return is_known;
}

static bool fit_trend(const struct loading *loading, int64_t now_ns, struct trend_fit *ret_fit)
{
    return fit_window(loading, now_ns, NULL, ret_fit);
}

/* The same while the sample slides: what the membrane has done within the window is known, and with it what the line
 * would say too late. */
static bool fit_slide(const struct loading *loading, int64_t now_ns, struct trend_fit *ret_fit)
{
    const struct trend_drive drive = {
        .membrane_bar = loading->acting_bar,
        .drive_bar_s = loading->drive_bar_s,
        .compliance_bar_s_per_gpa = loading->response.estimate.compliance_bar_s_per_gpa,
        .edge_bar_per_gpa = loading->response.estimate.edge_bar_per_gpa,
    };
    return fit_window(loading, now_ns, &drive, ret_fit);
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
    bool is_known = fit_trend(loading, t_ns, &fit);
    double slope = is_known ? mirror(loading, fit.slope_gpa_per_s) : 0.0;
    bool is_sliding = is_known && slope > SLIDE_SIGMAS * fit.slope_gpa_per_s_sigma;
    bool is_wrong =
        is_known && fabs(pressure_gpa - fit.level_gpa) > 5.0 * pressure_gpa_sigma + 5.0 * fit.level_gpa_sigma;
    if (!is_sliding)
        response_pause(&loading->response);
    else if (!is_wrong)
        response_add(&loading->response, t_ns, mirror(loading, loading->acting_bar), mirror(loading, pressure_gpa),
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
    bool is_inside = crossed_bar >= 0.5 * half_width_bar(loading, recent_gpa);
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
    double since_s = clamp(s_from_ns(t_ns - loading->t_ns), 0.0, STEP_S_MAX);
    trend_add(&loading->trend, t_ns, pressure_gpa, pressure_gpa_sigma,
              loading->drive_bar_s + loading->acting_bar * since_s);
    for (int law = 0; law < SLIDE_LAWS; law++)
        slide_read(&loading->slides[law], mirror(loading, pressure_gpa), pressure_gpa_sigma);
    if (loading->state == LOADING_RAMP)
        learn(loading, t_ns, pressure_gpa, pressure_gpa_sigma);
    if (loading->state == LOADING_BACK_OFF)
        watch_plateau(loading);
}

static double cautious_compliance(const struct loading *loading)
{
    return loading->response.estimate.compliance_bar_s_per_gpa_cautious;
}

/* More excess than the membrane has gone ahead of the edge since the slide began cannot be stored, whatever a
 * compliance says that is not known yet. */
static double excess_bar_max(const struct loading *loading, double level_gpa)
{
    double edge_bar = loading->response.estimate.edge_bar_per_gpa * (level_gpa - loading->slide_gpa);
    double ahead_bar = mirror(loading, loading->command_bar) - loading->slide_bar - edge_bar;
    return SLIDE_BAR + fmax(ahead_bar, 0.0);
}

/* Rise during the back-off: the excess is taken out at the back-off rate, and the slope with it. */
static double expected_rise_gpa(const struct loading *loading, double level_gpa, double slope_gpa_per_s)
{
    if (!(slope_gpa_per_s > 0.0))
        return 0.0;
    double excess_bar = fmin(cautious_compliance(loading) * slope_gpa_per_s, excess_bar_max(loading, level_gpa));
    double doubt = loading->is_first ? FIRST_DOUBT : 1.0;
    return doubt * slope_gpa_per_s * excess_bar / (2.0 * loading->settings.back_off_bar_per_s);
}

/* ln(1 + x), x >= 0, by square roots: the same on every processor. */
static double log_of_one_and(double x)
{
    double root = 1.0 + x;
    for (int i = 0; i < 10; i++)
        root = sqrt(root);
    double z = root - 1.0;
    return 1024.0 * (z - z * z / 2.0 + z * z * z / 3.0);
}

/* What the sample would still rise within a day if the membrane stayed where it is: a gasket that yields like an
 * activated solid creeps with the logarithm of time, and grows harder on the way; one that flows lets out its stored
 * excess, and only its edge is soft. */
static double rise_gpa_in_a_day(const struct loading *loading, const struct slide *slide)
{
    double edge_bar_per_gpa = loading->response.estimate.edge_bar_per_gpa;
    double level_gpa = slide->state[SLIDE_LEVEL], speed = slide->state[SLIDE_SPEED], flow = slide->state[SLIDE_FLOW];
    double width_gpa = half_width_bar(loading, level_gpa) / edge_bar_per_gpa;
    double yield_gpa = slide->is_viscous ? SOFT_SHARE * width_gpa : flow * width_gpa;
    double rise_gpa = yield_gpa * log_of_one_and(speed * DAY_S / yield_gpa);
    if (slide->is_viscous)
        return rise_gpa + flow * speed;
    double harder = half_width_bar(loading, level_gpa + 0.5 * rise_gpa) / half_width_bar(loading, level_gpa);
    return harder * yield_gpa * log_of_one_and(speed * DAY_S / (harder * yield_gpa));
}

/* A slide is seen: from here on it is followed, by either law. */
static void begin_slide(struct loading *loading, const struct trend_fit *fit)
{
    const struct response_estimate *estimate = &loading->response.estimate;
    double slope_sigma = fit->slope_gpa_per_s_sigma, slope = fmax(mirror(loading, fit->slope_gpa_per_s), slope_sigma);
    double stored_s = estimate->compliance_bar_s_per_gpa / estimate->edge_bar_per_gpa;
    double stored_s_sigma =
        fmax(cautious_compliance(loading) / estimate->edge_bar_per_gpa - stored_s, STORED_SHARE * stored_s);
    const double flow[SLIDE_LAWS] = {loading->yield_share, stored_s};
    const double flow_sigma[SLIDE_LAWS] = {loading->yield_share_sigma, stored_s_sigma};
    for (int law = 0; law < SLIDE_LAWS; law++) {
        const double state[SLIDE_STATES] = {mirror(loading, fit->level_gpa), slope, flow[law]};
        const double sigma[SLIDE_STATES] = {fit->level_gpa_sigma + FOLLOW_GPA, slope_sigma + FOLLOW_SHARE * slope,
                                            flow_sigma[law]};
        slide_begin(&loading->slides[law], law == SLIDE_FLOWS, state, sigma, mirror(loading, loading->command_bar));
    }
}

/* By how much this slide speaks for a gasket that flows. */
static double odds_of(const struct slide slides[SLIDE_LAWS])
{
    return slides[SLIDE_YIELDS].chi2 - slides[SLIDE_FLOWS].chi2;
}

/* What a slide has taught, for the next one. */
static void end_slide(struct loading *loading)
{
    if (!loading->slides[SLIDE_YIELDS].is_begun)
        return;
    loading->viscous_odds = clamp(loading->viscous_odds + odds_of(loading->slides), -ODDS_MAX, ODDS_MAX);
    loading->is_viscous = loading->viscous_odds > FLOWS_CHI2;
    const struct slide *yields = &loading->slides[SLIDE_YIELDS];
    if (!loading->is_viscous) {
        loading->yield_share = yields->state[SLIDE_FLOW];
        double sigma = sqrt(yields->covariance[SLIDE_FLOW][SLIDE_FLOW]);
        loading->yield_share_sigma = clamp(sigma, YIELD_SHARE_SIGMA_MIN, YIELD_SHARE_SIGMA);
    }
    loading->slides[SLIDE_YIELDS].is_begun = loading->slides[SLIDE_FLOWS].is_begun = false;
}

/* Where the sample would be after a day, with the rise taken larger by `share` and what it has slipped down come back.
 * Which law holds is what all slides have said, with this one; until one has ended, whatever is higher. */
static double rest_gpa(const struct loading *loading, double share)
{
    double rest_gpa[SLIDE_LAWS];
    for (int law = 0; law < SLIDE_LAWS; law++) {
        const struct slide *slide = &loading->slides[law];
        double level_gpa = slide->state[SLIDE_LEVEL] - fmin(slide->slipped_gpa, 0.0);
        rest_gpa[law] = level_gpa + (1.0 + share) * rise_gpa_in_a_day(loading, slide);
    }
    if (loading->viscous_odds + odds_of(loading->slides) > FLOWS_CHI2)
        return rest_gpa[SLIDE_FLOWS];
    bool is_first = loading->viscous_odds == 0.0;
    return is_first ? fmax(rest_gpa[SLIDE_YIELDS], rest_gpa[SLIDE_FLOWS]) : rest_gpa[SLIDE_YIELDS];
}

double loading_pressure_gpa_if_died(const struct loading *loading)
{
    bool is_known = loading->slides[SLIDE_YIELDS].is_begun && loading->direction > 0;
    return is_known ? rest_gpa(loading, 0.0) : NAN;
}

/* V11: by how much further the sample may come to rest; infinite where nothing limits it. */
static double limit_margin_gpa(const struct loading *loading)
{
    if (!loading->slides[SLIDE_YIELDS].is_begun || loading->direction < 0)
        return INFINITY;
    return loading->settings.pressure_gpa_max - LIMIT_MARGIN_GPA - rest_gpa(loading, LIMIT_SHARE);
}

/* The sample slides on to the target within this time, even if the membrane goes no further. */
static bool is_getting_there(const struct loading *loading, double within_s)
{
    const struct slide *slide = &loading->slides[loading->is_viscous ? SLIDE_FLOWS : SLIDE_YIELDS];
    double way_gpa = mirror(loading, loading->pressure_gpa_target) - slide->state[SLIDE_LEVEL];
    return slide->is_begun && slide->state[SLIDE_SPEED] * within_s > way_gpa;
}

/* The excess an unloading may have: below the take-up the membrane has no hold on the sample any more. */
static double unloading_bar(const struct loading *loading, double pressure_gpa)
{
    double edge_bar = line_at(&loading->middle, pressure_gpa) - line_at(&loading->width, pressure_gpa);
    double doubt_bar = line_sigma_at(&loading->middle, 0.0) + line_sigma_at(&loading->width, pressure_gpa);
    double above_bar = edge_bar - loading->middle.offset_bar - doubt_bar;
    return fmax(above_bar, UNLOADING_SHARE * loading->response.estimate.edge_bar_per_gpa * pressure_gpa);
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
    if (loading->direction > 0)
        return slope;
    return fmin(slope, unloading_bar(loading, -level_gpa) / cautious_compliance(loading));
}

/* A known width is not probed for, if the plan wants it so. */
static bool is_applied(const struct loading *loading)
{
    double pressure_gpa = loading->pressure_gpa_target;
    bool is_known = line_sigma_at(&loading->width, pressure_gpa) < KNOWN_SHARE * line_at(&loading->width, pressure_gpa);
    return loading->settings.back_off == PLAN_BACK_OFF_APPLY && is_known;
}

/* The membrane stands beyond the near edge by this much. Where the gasket is activated the edge is a matter of speed,
 * and is taken at the speed by which the far edge shows: the middle between two points of equal speed is the middle. */
static double excess_bar(const struct loading *loading, double level_gpa, double slope)
{
    if (!(slope > 0.0))
        return 0.0;
    double stored_bar =
        fmin(loading->response.estimate.compliance_bar_s_per_gpa * slope, excess_bar_max(loading, level_gpa));
    if (loading->is_viscous || slope < DROP_SLOPE)
        return stored_bar;
    double yield_bar = YIELD_SHARE * half_width_bar(loading, level_gpa) * log_of_one_and(slope / DROP_SLOPE - 1.0);
    return fmax(stored_bar, yield_bar);
}

static void end_ramp(struct loading *loading, int64_t now_ns, double level_gpa, double slope)
{
    double end_bar = mirror(loading, acting_bar(loading, loading->command_bar));
    loading->near_edge_bar = end_bar - excess_bar(loading, level_gpa, slope);
    loading->centre_bar = end_bar;
    double mean_gpa, sigma_gpa; /* as late as the means that will be compared with it */
    bool is_known = trend_mean(&loading->trend, drop_readings(loading), &mean_gpa, &sigma_gpa);
    loading->floor_gpa = is_known ? mirror(loading, mean_gpa) : level_gpa;
    loading->n_approaches++;
    end_slide(loading);
    response_pause(&loading->response);
    if (loading->settings.back_off == PLAN_BACK_OFF_NONE) {
        enter(loading, LOADING_WATCH, now_ns);
    } else if (is_applied(loading)) {
        double width_bar = half_width_bar(loading, level_gpa);
        loading->far_edge_bar = loading->near_edge_bar - 2.0 * width_bar;
        loading->centre_bar = loading->near_edge_bar - width_bar;
        enter(loading, LOADING_RECENTRE, now_ns);
    } else {
        enter(loading, LOADING_BACK_OFF, now_ns);
    }
}

/* A gasket that yields like an activated solid grows stiffer as it slows down: its excess falls with the logarithm of
 * the speed, and what was learned at speed is too little to brake with. */
static double servo_compliance(const struct loading *loading, double slope)
{
    double compliance = loading->response.estimate.compliance_bar_s_per_gpa;
    double slow = YIELD_BAR / (slope > YIELD_SLOPE_MIN ? slope : YIELD_SLOPE_MIN);
    return compliance > slow ? compliance : slow;
}

/* Through a dead zone that is known nothing slides: fast, and at the rate of the ramp where its edge may be. 0: beyond
 * it, or nothing known. */
static double cross(const struct loading *loading, double level_gpa, bool is_sliding)
{
    double pressure_gpa = mirror(loading, level_gpa), width_bar = half_width_bar(loading, level_gpa);
    double doubt_bar = line_sigma_at(&loading->middle, pressure_gpa) + line_sigma_at(&loading->width, pressure_gpa);
    double edge_bar = mirror(loading, line_at(&loading->middle, pressure_gpa)) + width_bar;
    if (loading->n_approaches > 0) {
        edge_bar = loading->near_edge_bar;
        doubt_bar = 0.0;
    }
    double remaining_bar = edge_bar - mirror(loading, loading->command_bar);
    bool has_slid = is_sliding || loading->slope_gpa_per_s_max > 0.0;
    if (has_slid && loading->n_approaches == 0)
        return 0.0;
    if (remaining_bar > CROSSING_SHARE * width_bar + CROSSING_SIGMAS * doubt_bar)
        return fmax(loading->rate_bar_per_s, loading->settings.back_off_bar_per_s);
    return remaining_bar > 0.0 ? loading->rate_bar_per_s : 0.0;
}

/* Returns the rate of the command, in the direction of the change, bar/s. */
static double step_ramp(struct loading *loading, int64_t now_ns)
{
    const struct loading_settings *settings = &loading->settings;
    const struct response_estimate *estimate = &loading->response.estimate;
    struct trend_fit plain, fit;
    if (!fit_trend(loading, now_ns, &plain) || !fit_slide(loading, now_ns, &fit))
        return 0.0;
    bool is_sliding = mirror(loading, plain.slope_gpa_per_s) > SLIDE_SIGMAS * plain.slope_gpa_per_s_sigma;
    if (is_sliding && loading->slope_gpa_per_s_max == 0.0) {
        loading->slide_bar = mirror(loading, loading->command_bar);
        loading->slide_gpa = mirror(loading, plain.level_gpa);
    }
    if (is_sliding)
        loading->slope_gpa_per_s_max = fmax(loading->slope_gpa_per_s_max, mirror(loading, plain.slope_gpa_per_s));
    else
        fit = plain;
    double level_gpa = mirror(loading, fit.level_gpa), slope = mirror(loading, fit.slope_gpa_per_s);
    double target_gpa = mirror(loading, loading->pressure_gpa_target);
    double believed = is_sliding ? slope : 0.0;
    double stop_gpa = loading->is_viscous ? settings->stop_gpa : settings->stop_gpa + YIELDING_GPA;
    if (level_gpa + fit.level_gpa_sigma + expected_rise_gpa(loading, level_gpa, believed) >= target_gpa - stop_gpa) {
        end_ramp(loading, now_ns, level_gpa, believed);
        return 0.0;
    }
    double crossing_rate = cross(loading, level_gpa, is_sliding);
    if (crossing_rate > 0.0)
        return crossing_rate;
    bool is_seen = slope > FOLLOW_SIGMAS * fit.slope_gpa_per_s_sigma;
    if (!loading->slides[SLIDE_YIELDS].is_begun && (is_seen || loading->n_approaches > 0))
        begin_slide(loading, &fit);
    double lead_gpa = slope > 0.0 ? SERVO_S * slope : 0.0; /* until the servo has answered */
    double missing = wanted_slope(loading, level_gpa + lead_gpa) - slope;
    double rate = slope * estimate->edge_bar_per_gpa + servo_compliance(loading, slope) * missing / SERVO_S;
    bool is_let_go = is_sliding && loading->command_bar < acting_bar(loading, loading->command_bar);
    double limit_rate = limit_margin_gpa(loading) * estimate->edge_bar_per_gpa / SERVO_S;
    rate = fmin(fmin(rate, limit_rate), is_let_go ? 0.0 : loading->rate_bar_per_s);
    return fmax(rate, -settings->back_off_bar_per_s);
}

static double probe_rate(const struct loading *loading)
{
    double rate = PROBE_PER_COMPLIANCE * loading->response.estimate.compliance_bar_s_per_gpa;
    return clamp(rate, PROBE_BAR_PER_S_MIN, loading->settings.back_off_bar_per_s);
}

/* The middle, and the width, that agree best with both edges as they were seen and with the width as it is known. */
static void place_centre(struct loading *loading, double plateau_gpa, double end_bar)
{
    double near_bar = loading->near_edge_bar, far_bar = loading->far_edge_bar;
    double known_bar = half_width_bar(loading, plateau_gpa), seen_bar = 0.5 * (near_bar - far_bar);
    double known_sigma = line_sigma_at(&loading->width, mirror(loading, plateau_gpa));
    double near_sigma = EDGE_BAR + NEAR_SHARE * seen_bar, far_sigma = EDGE_BAR + FAR_SHARE * seen_bar;
    double near = 1.0 / (near_sigma * near_sigma), far = 1.0 / (far_sigma * far_sigma);
    double known = 1.0 / (known_sigma * known_sigma);
    /* (near_bar - c - w)^2 near + (far_bar - c + w)^2 far + (w - known_bar)^2 known is least */
    double right_c = near * near_bar + far * far_bar, right_w = near * near_bar - far * far_bar + known * known_bar;
    double cc = near + far, cw = near - far, ww = near + far + known;
    double determinant = cc * ww - cw * cw, seen = determinant / ww;
    double centre_bar = (ww * right_c - cw * right_w) / determinant;
    /* and the middle as the changes before have seen it, at other pressures */
    double pressure_gpa = mirror(loading, plateau_gpa),
           middle_bar = mirror(loading, line_at(&loading->middle, pressure_gpa));
    double middle_sigma = line_sigma_at(&loading->middle, pressure_gpa) + MIDDLE_SHARE * known_bar;
    double before = 1.0 / (middle_sigma * middle_sigma);
    loading->centre_bar = fmin((seen * centre_bar + before * middle_bar) / (seen + before), end_bar);
    double both_sigma = 0.5 * sqrt(near_sigma * near_sigma + far_sigma * far_sigma);
    line_measure(&loading->width, pressure_gpa, seen_bar, both_sigma);
    line_measure(&loading->middle, pressure_gpa, mirror(loading, centre_bar), both_sigma);
    assert(loading->centre_bar <= end_bar); /* L5 */
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
    double width_bar = half_width_bar(loading, plateau_gpa);
    double width_sigma = line_sigma_at(&loading->width, mirror(loading, plateau_gpa));
    double narrowest_bar = fmax(width_bar - NARROWEST_SIGMAS * width_sigma, NARROWEST_SHARE * width_bar);
    double end_bar = loading->centre_bar;               /* of the ramp: the sample slid there, no edge lies beyond it */
    if (loading->far_edge_bar > loading->near_edge_bar) /* the drop was seen, the near edge only computed */
        loading->near_edge_bar = fmin(loading->far_edge_bar + 2.0 * width_bar, end_bar);
    if (loading->near_edge_bar - loading->far_edge_bar < 2.0 * narrowest_bar)
        loading->far_edge_bar = loading->near_edge_bar - 2.0 * narrowest_bar;
    place_centre(loading, plateau_gpa, end_bar);
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

/* The excess is out, and the sample far from the target: the ramp has stopped too early by much. That needs no plateau,
 * and the far edge is not to be met on the way there. */
static bool is_far_short(const struct loading *loading)
{
    double mean_gpa, sigma_gpa;
    if (loading->n_approaches >= APPROACHES_MAX || !trend_mean(&loading->trend, FAR_READINGS, &mean_gpa, &sigma_gpa))
        return false;
    double short_gpa = mirror(loading, loading->pressure_gpa_target - mean_gpa) - SIGNIFICANCE * sigma_gpa;
    return short_gpa > FAR_SHORT * loading->settings.short_gpa;
}

static double step_back_off(struct loading *loading, int64_t now_ns)
{
    const struct loading_settings *settings = &loading->settings;
    struct trend_fit fit;
    if (!fit_trend(loading, now_ns, &fit))
        return 0.0;
    double crossed_bar = loading->near_edge_bar - mirror(loading, loading->command_bar);
    double width_bar = half_width_bar(loading, mirror(loading, fit.level_gpa));
    bool has_dropped = loading->n_below >= DROP_CONFIRMATIONS;
    bool is_out = has_dropped || crossed_bar > FAR_CROSSED_SHARE * width_bar;
    if (is_short(loading) || (is_out && is_far_short(loading))) {
        enter(loading, LOADING_RAMP, now_ns);
        return 0.0;
    }
    if (has_dropped) {
        find_far_edge(loading);
        enter(loading, LOADING_RECENTRE, now_ns);
        return 0.0;
    }
    double width_sigma = line_sigma_at(&loading->width, fit.level_gpa);
    if (crossed_bar < fmax(width_bar, 2.0 * (width_bar - PROBE_SIGMAS * width_sigma)))
        return -settings->back_off_bar_per_s;
    /* The plateau must be known before the far edge can show; from here on it is expected. */
    return loading->plateau_n < 2 * drop_readings(loading) ? 0.0 : -probe_rate(loading);
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
    if (watched_s < loading->settings.watch_s ||
        !trend_fit(&loading->trend, now_ns, loading->settings.watch_s, NULL, &fit) || fit.n < TREND_READINGS_MIN)
        return 0.0;
    double short_gpa = mirror(loading, loading->pressure_gpa_target - fit.mean_gpa);
    if (is_applied(loading) && loading->n_approaches < APPROACHES_MAX && short_gpa > loading->settings.short_gpa) {
        enter(loading, LOADING_RAMP, now_ns);
        return 0.0;
    }
    double drift_gpa = mirror(loading, fit.slope_gpa_per_s) * loading->isobar_s;
    bool is_significant = fabs(fit.slope_gpa_per_s) > SIGNIFICANCE * fit.slope_gpa_per_s_sigma;
    bool is_too_much = fabs(drift_gpa) > loading->drift_gpa_max / 2.0;
    if (is_significant && is_too_much && loading->n_corrections < CORRECTIONS_MAX &&
        loading->settings.back_off != PLAN_BACK_OFF_NONE) {
        double step_bar = CORRECTION_SHARE * half_width_bar(loading, mirror(loading, fit.level_gpa));
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
    double rate = 0.0, before_bar = loading->command_bar, acted_bar = loading->acting_bar;
    enum loading_state state = loading->state;
    if (s_from_ns(now_ns - loading->t_ns) > UNWATCHED_S) {
        loading->moved_bar = membrane_bar;
        loading->moved_t_ns = now_ns;
        loading->watch_t_ns = state == LOADING_RETREAT ? now_ns : loading->watch_t_ns;
    }
    loading->acting_bar = acting_bar(loading, membrane_bar);
    loading->drive_bar_s += 0.5 * (acted_bar + loading->acting_bar) * s_from_ns(now_ns - loading->t_ns);
    loading->t_ns = now_ns;
    for (int law = 0; law < SLIDE_LAWS; law++) {
        double width_bar = half_width_bar(loading, loading->slides[law].state[SLIDE_LEVEL]);
        const struct slide_cell cell = {loading->response.estimate.edge_bar_per_gpa, width_bar};
        slide_move(&loading->slides[law], &cell, mirror(loading, before_bar), dt_s);
    }
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
    bool is_ended = is_limited || (state == LOADING_RAMP && limit_margin_gpa(loading) < REACHED_GPA);
    if (!is_ended || is_getting_there(loading, is_limited ? LIMIT_S : REACH_S))
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

void loading_correct(struct loading *loading, int32_t direction, double membrane_bar, int64_t now_ns)
{
    assert(loading->state == LOADING_DONE && (direction == 1 || direction == -1));
    double width_bar = half_width_bar(loading, mirror(loading, loading->pressure_gpa_target));
    double step_bar = mirror(loading, direction) * CORRECTION_SHARE * width_bar;
    double from_edge_bar = (1.0 - CORRECTION_SHARE) * 0.5 * width_bar;
    double low_bar = loading->near_edge_bar - 2.0 * width_bar + from_edge_bar;
    loading->centre_bar = clamp(loading->centre_bar + step_bar, low_bar, loading->near_edge_bar - from_edge_bar);
    loading->command_bar = clamp(membrane_bar, 0.0, loading->settings.membrane_bar_max);
    loading->n_corrections = CORRECTIONS_MAX;
    loading->t_ns = now_ns;
    trend_clear(&loading->trend);
    enter(loading, LOADING_RECENTRE, now_ns);
}

/* The near edge of the dead zone as far as it is known, loading only. */
static double retreat_edge_bar(const struct loading *loading)
{
    if (loading->state != LOADING_RAMP || loading->command_bar < loading->near_edge_bar)
        return loading->near_edge_bar; /* inside the dead zone that an earlier hold or back-off has found */
    struct trend_fit fit;
    bool is_known = fit_trend(loading, loading->t_ns, &fit);
    bool is_sliding = is_known && fit.slope_gpa_per_s > SLIDE_SIGMAS * fit.slope_gpa_per_s_sigma;
    return loading->command_bar - (is_sliding ? cautious_compliance(loading) * fit.slope_gpa_per_s : 0.0);
}

/* Half width at the pressure of the last reading, which may be old, or at the target. */
static double retreat_width_bar(const struct loading *loading)
{
    double mean_gpa = loading->pressure_gpa_target, sigma_gpa;
    trend_mean(&loading->trend, DROP_READINGS_MIN, &mean_gpa, &sigma_gpa);
    return half_width_bar(loading, mirror(loading, mean_gpa));
}

void loading_range(const struct loading *loading, double *ret_bar_min, double *ret_bar_max)
{
    double reach_bar = loading->settings.back_off_bar_per_s * AUTHORISE_S;
    *ret_bar_min = clamp(loading->command_bar - reach_bar, 0.0, loading->settings.membrane_bar_max);
    bool may_retreat = loading->direction > 0 && (loading->state == LOADING_RAMP || loading->state == LOADING_BACK_OFF);
    double retreat_bar = may_retreat ? retreat_edge_bar(loading) - 2.0 * retreat_width_bar(loading) : *ret_bar_min;
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
    end_slide(loading); /* held, the sample slips as it likes, for hours: that says nothing of how its gasket yields */
    bool is_moving_sample = state == LOADING_RAMP || state == LOADING_BACK_OFF;
    if (loading->direction < 0 || !is_moving_sample) {
        loading->state = LOADING_HELD;
        return;
    }
    loading->near_edge_bar = retreat_edge_bar(loading);
    loading->centre_bar = loading->near_edge_bar - retreat_width_bar(loading);
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
