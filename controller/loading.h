/*
 * The anti-overshoot loading protocol of one pressure change, up or down: pure, fixed size, copyable.
 *
 * The sample follows the membrane with a dead zone (friction) and a creep time. A ramp stores an excess of membrane
 * pressure beyond the dead zone's edge, and that excess creeps into the sample after the ramp has stopped: excess =
 * compliance x dP/dt. So the ramp slows down as the target comes near, stops early by the rise it still expects, and
 * the membrane then backs off to the middle of the dead zone, both edges of which have been seen. (Cornet et al.,
 * supplement 7; the drift after a load without back-off exceeds 1 GPa per hour.)
 *
 * Everything is written for loading (direction +1); unloading (-1) is its mirror image: pressures and membrane
 * pressures are multiplied by the direction on the way in and on the way out.
 *
 *   IDLE --> RAMP --> BACK_OFF --> RECENTRE --> WATCH --> DONE
 *             |  ^       |                        |  ^
 *             v  |       v                        +--+ a correction: RECENTRE again, once
 *           RETREAT --> HELD (back to RAMP, or to WATCH, on resume)
 *
 * Transitions (function):
 *   IDLE -> RAMP                [loading_start]
 *   RAMP -> BACK_OFF            [step_ramp]      level + expected rise has reached the target
 *   RAMP -> WATCH               [step_ramp]      the same, without back-off
 *   BACK_OFF -> RAMP            [step_back_off]  the plateau is short of the target: once more, at most four times
 *   BACK_OFF -> RECENTRE        [step_back_off]  a drop is confirmed: the far edge of the dead zone is known
 *   RECENTRE -> WATCH           [step_recentre]  the membrane is in the middle
 *   RAMP -> RECENTRE            [step_ramp]      the same, with a width that is known and not probed for
 *   WATCH -> RECENTRE           [step_watch]     a significant drift would exceed the tolerance (once)
 *   WATCH -> RAMP               [step_watch]     the plateau is short of the target after all
 *   WATCH -> DONE               [step_watch]
 *   RAMP, BACK_OFF -> RETREAT   [loading_hold]   loading only: a membrane frozen in mid-ramp lets the sample creep on
 *   RETREAT -> HELD             [step_retreat]
 *   any but IDLE, DONE -> HELD  [loading_hold]   where the membrane stands inside the dead zone, or on unloading
 *   HELD, RETREAT -> RAMP, RECENTRE, WATCH   [loading_resume]
 *   DONE -> RECENTRE            [loading_correct] the isobar drifts, and its step declares a correction
 *   DONE -> RAMP                [loading_start]  the next change; what this one taught is taken over
 *
 * Invariants (asserted at the end of every step):
 *   L1  the command stays within the journal's authorised range and within 0 .. membrane_bar_max
 *   L2  the command is never further from the measured membrane pressure than the leash
 *   L3  without a trend of fresh readings RAMP, BACK_OFF and WATCH do not move the membrane
 *   L4  RETREAT moves the membrane down only
 *   L5  the middle of the dead zone is never sought beyond where the ramp ended
 */
#ifndef CONTROLLER_LOADING_H
#define CONTROLLER_LOADING_H

#include <stdbool.h>
#include <stdint.h>

#include "controller/line.h"
#include "controller/response.h"
#include "controller/slide.h"
#include "controller/trend.h"
#include "sequences/plan.h"

enum loading_state {
    LOADING_IDLE,
    LOADING_RAMP,
    LOADING_BACK_OFF,
    LOADING_RECENTRE,
    LOADING_WATCH,
    LOADING_RETREAT,
    LOADING_HELD,
    LOADING_DONE,
    LOADING_STATE_COUNT
};

/* What is known of the cell before its first change of the run, from earlier nights (its passport); all zero: nothing.
 * The sigmas say how far it may be off by now. */
struct loading_cell {
    int32_t is_known;
    double compliance_bar_s_per_gpa, compliance_bar_s_per_gpa_sigma;
    double takeup_bar, takeup_bar_sigma; /* the middle of the dead zone at no pressure */
    double bar_per_gpa, bar_per_gpa_sigma;
    double half_width_bar, half_width_bar_sigma; /* at no pressure */
    double half_width_bar_per_gpa, half_width_bar_per_gpa_sigma;
};

struct loading_settings {
    enum plan_back_off back_off;
    struct loading_cell cell;
    double membrane_bar_max;
    double pressure_gpa_max;
    double leash_bar; /* at least twice the controller's accuracy */
    double back_off_bar_per_s;
    double short_gpa; /* a plateau further below the target than this is approached again */
    double taper_s;   /* near the target, dP/dt = remaining / taper */
    double stop_gpa;  /* the ramp ends this far before the target, and by the expected rise */
    double drop_gpa;  /* smallest drop believed during the back-off */
    double watch_s;
};

struct loading {
    struct loading_settings settings;
    enum loading_state state;
    enum loading_state state_held; /* where loading_hold interrupted */
    int32_t direction;             /* +1 loading, -1 unloading */
    double pressure_gpa_target;
    double rate_bar_per_s;
    double isobar_s; /* length of the isobar that follows: the drift is projected over it */
    double drift_gpa_max;
    double command_bar; /* the set point wanted now */
    struct response response;
    struct slide slides[SLIDE_LAWS];       /* by either law; V11 */
    double viscous_odds;                   /* chi2 by which all slides have spoken for a gasket that flows */
    bool is_viscous;                       /* it does, by the last slide */
    double yield_share, yield_share_sigma; /* of the half width, by which the excess grows per factor e of speed */
    bool is_first;                         /* change of a cell that nobody knows */
    double acting_bar; /* the membrane pressure as last read, or the take-up, below which it has no hold on unloading */
    double drive_bar_s; /* its integral over the change */
    int32_t n_approaches;
    struct line width;           /* half width of the dead zone against pressure, as far as it is known */
    struct line middle;          /* its middle: take-up + pressure / (GPa per bar) */
    double slope_gpa_per_s_max;  /* fastest slide of this change */
    double slide_bar, slide_gpa; /* x direction: command and level when the sample was first seen to slide */
    double near_edge_bar;        /* x direction: where the excess is zero on the side the ramp came from */
    double far_edge_bar;         /* x direction: the other side */
    double centre_bar;
    double floor_gpa;       /* x direction: level when the ramp ended; the plateau cannot lie lower */
    double plateau_sum_gpa; /* x direction: readings between the edges */
    int32_t plateau_n;
    int32_t n_below; /* successive readings that show the drop */
    int32_t n_corrections;
    int64_t t_ns; /* of the last step */
    int64_t watch_t_ns;
    int64_t moved_t_ns; /* last time the membrane followed */
    int64_t free_t_ns;  /* last time the command did not want to go beyond its limits */
    double moved_bar;
    bool is_stalled;  /* the membrane does not follow the command */
    bool is_at_limit; /* the command has stood at membrane_bar_max, at zero or where V11 ends it for LIMIT_S */
    struct trend trend;
};

const char *loading_state_name(enum loading_state state);

/* Starts a change from the present membrane pressure. What the change before has taught (of the same struct, once it
 * has been started) is taken over: compliance, edge, width of the dead zone; so the struct is zeroed before its first
 * use; settings.cell says what is known before the first change. */
void loading_start(struct loading *loading, const struct loading_settings *settings, int32_t direction,
                   double pressure_gpa_target, double rate_bar_per_s, double isobar_s, double drift_gpa_max,
                   double membrane_bar, int64_t now_ns);

/* An accepted ruby reading. */
void loading_add_reading(struct loading *loading, int64_t t_ns, double pressure_gpa, double pressure_gpa_sigma);

/* One tick: moves command_bar, within [authorised_bar_min, authorised_bar_max], and changes state. */
void loading_step(struct loading *loading, int64_t now_ns, double membrane_bar, double authorised_bar_min,
                  double authorised_bar_max);

/* The range of membrane pressures the next minute may need (for the journal's authorisation). */
void loading_range(const struct loading *loading, double *ret_bar_min, double *ret_bar_max);

/* Doubt: stop, and on loading leave the edge of the dead zone without waiting for the ruby. A slide ends here. */
void loading_hold(struct loading *loading);
void loading_resume(struct loading *loading, double membrane_bar, int64_t now_ns);

/* A small correction of a change that is done: up (+1) or down (-1) by part of the half width, not beyond the edges;
 * then RECENTRE, WATCH and DONE as before. */
void loading_correct(struct loading *loading, int32_t direction, double membrane_bar, int64_t now_ns);

/* Sample pressure expected after a day if the daemon died now and the set point stayed (V11); NaN on unloading,
 * before anything of a slide is seen, and in a hold, which ends the slide. */
double loading_pressure_gpa_if_died(const struct loading *loading);

#endif
