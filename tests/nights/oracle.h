/*
 * The oracle of a night in virtual time: it knows the truth, hears every event and every action, and counts what breaks
 * an invariant of the design. Pure, fixed size, copyable. It keeps its own account of what was told and answered and
 * never reads the core, so that a core that fools itself does not fool it.
 *
 * The order of calls: begin; then for each event oracle_see_event, oracle_see_action for each action,
 * oracle_see_answer; and once a second oracle_see_truth.
 *
 * To add an invariant: a line in INVARIANT_LIST, a check that calls `judge`, and a line in the table of
 * test_night.c that breaks it.
 */
#ifndef TESTS_NIGHTS_ORACLE_H
#define TESTS_NIGHTS_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

#include "controller/core.h"
#include "sim/plant.h"

/* V1 to V11 are the design's, as they can be said of a night without files and restarts. */
#define INVARIANT_LIST(X)                                                                                              \
    X(V1, "a set point is a number from 0 to the membrane's limit")                                                    \
    X(LEASH, "a set point is not above the last membrane reading by more than the leash")                              \
    X(V2, "set points move within the slew told, with fresh accepted readings; without, down on a load only")          \
    X(V3, "on a load the sample is not driven beyond the target by more than the margin (linear creep)")               \
    X(V4, "no reversal but in back-off, recentring, retreat and braking; on a load the sample falls back by the "      \
          "margin at most")                                                                                            \
    X(V5, "outside a pressure change and while it is held no set point moves, but in the retreat of a load")           \
    X(V6, "scans and attempts count up; each completed scan has one analysis")                                         \
    X(V7,                                                                                                              \
      "nothing is driven or taken before all instruments have answered; no set point before a reading on each link")   \
    X(V8, "what holds is shown, and what is shown stands")                                                             \
    X(V9, "nothing is acted on before its intent is durable")                                                          \
    X(V10, "the same seed gives the same night")                                                                       \
    X(V11, "if the daemon died now, the cell would creep to a pressure below its limit")                               \
    X(LIMIT, "the true pressure is below the cell's limit")

enum invariant {
#define X(name, text) INVARIANT_##name,
    INVARIANT_LIST(X)
#undef X
        INVARIANT_COUNT
};

/* How an invariant was broken first, and worst. */
struct oracle_finding {
    int64_t t_ns;
    double seen, allowed, seen_worst;
};

#define ORACLE_MARGIN_GPA 0.10       /* V3, V4 */
#define ORACLE_FRESH_PER_CADENCE 2.0 /* a ruby reading is fresh for ruby_stale_s and so many intervals */
#define ORACLE_STEP_BAR 0.002        /* smaller changes of the command are not sent at once */
#define ORACLE_STANDS_BAR 0.05       /* readings of a membrane that stands, or is about to */
#define ORACLE_READ_S 8.0            /* V2: how old the reading may be that a change begins with, after an isobar */
#define ORACLE_CATCH_UP_S 2.0        /* after a stall the ramp does not catch up by more */
#define ORACLE_CREEP_S 86400.0       /* V11 */
#define ORACLE_CREEP_EVERY_NS 60000000000 /* V11, where the simple bound does not do */

struct oracle_range {
    int64_t number;
    double bar_min, bar_max;
};

struct oracle {
    int64_t n_violations[INVARIANT_COUNT];
    struct oracle_finding findings[INVARIANT_COUNT];
    struct core_settings settings;
    int64_t now_ns;
    uint64_t hash; /* of all events and actions */
    /* instruments, from the events */
    bool has_membrane_link, has_spectrometer_link, has_detector_link;
    bool has_membrane, has_ruby, has_detector, has_beam; /* has answered at all */
    bool is_membrane_read;                               /* since its last link */
    int64_t membrane_t_ns, ruby_t_ns, beam_t_ns, beam_good_t_ns;
    double membrane_bar, pressure_gpa, current_ma, cadence_s;
    int32_t n_rejected;
    /* the operator */
    bool is_held_by_operator, is_stopping, is_resuming;
    /* the journal */
    int64_t posted, durable, pending_t_ns;
    bool is_journal_late;
    int64_t step_number, step_index_announced, scan_number_intent, scan_announced, attempt_announced;
    struct oracle_range ranges[3]; /* posted: newest first */
    /* what the core has said */
    int32_t phase, step_index, state; /* enum core_phase, loading_state */
    uint32_t shown, must_show, may_show;
    bool goes_on;
    double slew_bar_per_s, setpoint_bar; /* NaN before the first */
    int64_t setpoint_t_ns;
    bool is_new_setpoint; /* the first since the present change began or was resumed */
    /* scans */
    int64_t scan, attempt, n_complete, n_analysed;
    bool is_correcting; /* the drift of the isobar */
    bool is_scanning;
    /* the truth */
    double crossing_bar; /* load when the pressure last came to the target; NaN: it is short of it */
    double furthest_bar; /* load, in this change */
    int64_t creep_t_ns;
};

const char *oracle_invariant_name(enum invariant invariant);
const char *oracle_invariant_text(enum invariant invariant);

void oracle_begin(struct oracle *ret_oracle, const struct core_settings *settings);
void oracle_see_event(struct oracle *oracle, const struct event *event);
void oracle_see_action(struct oracle *oracle, const struct action *action, const struct plant *plant);
void oracle_see_answer(struct oracle *oracle);
void oracle_see_truth(struct oracle *oracle, const struct plant *plant, const struct plant_input *input);

/* V10: `other` has heard a second night from the same seed. */
void oracle_compare(struct oracle *oracle, const struct oracle *other);

/* Violations of all invariants. */
int64_t oracle_violations(const struct oracle *oracle);

/* The largest pressure within a day if the set point stayed as it is: no more slips, the temperature as it is now. */
double oracle_pressure_gpa_if_died(const struct plant *plant, const struct plant_input *input);

#endif
