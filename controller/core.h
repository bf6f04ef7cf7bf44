/*
 * The core: decides everything, touches nothing. Pure, fixed size, copyable; the same code runs live, in rehearsal, in
 * simulated nights and in replay.
 *
 * Everything that happens arrives as a numbered event; core_step answers with actions. One pass of the control loop
 * samples the clock once and hands the same `now_ns` to all its events. Arithmetic is + - x / sqrt only.
 *
 *   WAITING --> JOURNAL --> CALIBRATION | PRELOADED | LOADING | ISOBAR | DEFLATED --> JOURNAL (next step) ...
 *                                                                                               --> FINISHED
 *
 * WAITING until every instrument the plan needs has answered; JOURNAL until the step's intent is durable. An operator's
 * stop ends any phase in FINISHED, through loading_hold when the sample is being driven.
 * CALIBRATION reads a free ruby and takes lambda0 from it (controller/calibration); refused, it holds until the
 * operator resumes, and reads anew. PRELOADED after it waits for the hands that close the cell and preload it, until
 * the operator resumes. Both drive nothing. DEFLATED waits for the hands that empty the membrane and lock the cell,
 * then measures; it drives nothing.
 *
 * With ruby_access = "between_scans" (controller/access) the ruby is wanted everywhere but around a scan. An isobar
 * then goes gap, scan, gap, scan, ..., gap: a scan begins when its gap has given ISOBAR_READINGS readings, or fewer in
 * GAP_S_MAX (the reason is shown then), and the isobar's pressures come from the gaps alone. What the spectrometer says
 * while the optics are out is not heard, and its silence is no reason to hold. At the run's end the laser is shut off.
 *
 * Invariants (asserted):
 *   C1  no set point is asked for outside the range whose intent is durable
 *   C2  no set point is asked for above membrane_bar_max
 *   C3  outside LOADING no set point is asked for, but in an ISOBAR whose step declares a correction of its drift, and
 *       then between two scans only
 *   C4  no scan starts, and none goes on, unless the ruby optics are confirmed out and the laser off
 *   C5  no ruby reading is believed unless the optics had been in and settled before its exposure began
 *   C6  no ruby reading is believed that is on another ruler than the one in force
 */
#ifndef CONTROLLER_CORE_H
#define CONTROLLER_CORE_H

#include <stdbool.h>
#include <stdint.h>

#include "controller/access.h"
#include "controller/calibration.h"
#include "controller/drift.h"
#include "controller/event.h"
#include "controller/interlock.h"
#include "controller/loading.h"
#include "controller/scan.h"
#include "sequences/beamline.h"
#include "sequences/plan.h"

#define CORE_ACTIONS_MAX 16

enum core_phase {
    CORE_WAITING,
    CORE_JOURNAL,
    CORE_PRELOADED,
    CORE_LOADING,
    CORE_ISOBAR,
    CORE_DEFLATED,
    CORE_CALIBRATION,
    CORE_FINISHED,
    CORE_PHASE_COUNT
};

/* All the core knows of the outside at its start; recorded with the run as bytes. */
struct core_settings {
    struct loading_settings loading;
    struct interlock_settings interlock;
    struct access_settings access;
    struct calibration_settings calibration;
    double slew_bar_per_min_max;
    int32_t needs_detector;
    int32_t n_steps;
    struct plan_step steps[PLAN_STEPS_MAX];
};

struct core_actions {
    int32_t n;
    struct action list[CORE_ACTIONS_MAX];
};

struct core_isobar {
    int64_t start_t_ns;
    int32_t n_readings;
    int32_t n_gap_readings; /* since the last scan, or since the start */
    int64_t gap_t_ns;       /* since when the ruby could have been read since then; 0: not yet */
    struct drift drift;
    bool is_drifting;   /* beyond the tolerance at its end, as far as can be told now */
    bool is_correcting; /* the membrane moves, by `loading` */
    int32_t n_corrections;
};

struct core {
    struct core_settings settings;
    enum core_phase phase;
    int32_t step_index;
    int64_t now_ns;
    int64_t phase_t_ns;
    struct interlock interlock;
    struct access access;
    struct loading loading;
    struct scan scan;
    struct core_isobar isobar;
    double membrane_bar;
    double setpoint_bar;   /* last asked for; NaN before the first */
    int64_t intent_number; /* last posted */
    int64_t durable_number;
    int64_t step_intent_number;
    int64_t range_intent_number; /* 0: none pending */
    int64_t pending_t_ns;        /* when the oldest pending intent was posted; 0: none */
    double pending_bar_min, pending_bar_max;
    double authorised_bar_min, authorised_bar_max;
    bool has_authority; /* the range above stands in the journal */
    uint32_t reasons_shown;
    bool is_burst_told; /* the valves were told to shut */
    bool is_holding;    /* the pressure change is held */
    bool is_stopping;
    bool is_stop_urgent; /* asked for twice: ends without a retreat */
    int32_t n_readings;  /* accepted ruby readings of this phase */
    bool is_empty;       /* the membrane, in DEFLATED */
    struct calibration calibration;
    bool is_calibration_refused;
    bool is_hand_awaited; /* PRELOADED after a calibration: until the operator resumes */
    int64_t ruler_number; /* in force: 0 as stated, 1 calibrated */
    struct trend deflated;
    double pace;
    double ruby_every_s;
    enum loading_state loading_state_shown;
};

/* The settings for this plan at this beamline, every byte of them defined. */
void core_settings_init(struct core_settings *ret_settings, const struct plan *plan, const struct beamline *beamline);

/* `settings` must come from zeroed memory, so that equal settings are equal bytes. */
void core_init(struct core *core, const struct core_settings *settings);

/* One event in, up to CORE_ACTIONS_MAX actions out. */
void core_step(struct core *core, const struct event *event, struct core_actions *ret_actions);

const char *core_phase_name(enum core_phase phase);

#endif
