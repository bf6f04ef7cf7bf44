/*
 * Whole nights in virtual time: the shipping core, the plant and plain models of the instruments in one thread, with an
 * oracle that knows the truth and checks the invariants at every second. No socket, no thread, no wall clock: the same
 * seed gives the same night, bit for bit.
 *
 * To add a fault: a line in FAULT_LIST and what it does in night.c (drive_fault). To add an invariant: a line in
 * INVARIANT_LIST and its function.
 */
#ifndef TESTS_NIGHTS_NIGHT_H
#define TESTS_NIGHTS_NIGHT_H

#include <stdbool.h>
#include <stdint.h>

#include "controller/core.h"
#include "sim/plant.h"

/* X(name, event when it begins, event when it ends) */
#define FAULT_LIST(X)                                                                                                  \
    X(FAULT_NONE, EVENT_TICK, EVENT_TICK)                                                                              \
    X(FAULT_MEMBRANE, EVENT_MEMBRANE_LOST, EVENT_MEMBRANE_FOUND)                                                       \
    X(FAULT_SPECTROMETER, EVENT_SPECTROMETER_LOST, EVENT_SPECTROMETER_FOUND)                                           \
    X(FAULT_DETECTOR, EVENT_DETECTOR_LOST, EVENT_DETECTOR_FOUND)                                                       \
    X(FAULT_BEAM, EVENT_TICK, EVENT_TICK)                                                                              \
    X(FAULT_DISK, EVENT_TICK, EVENT_TICK)

enum fault {
#define X(name, begin, end) name,
    FAULT_LIST(X)
#undef X
};

/* Numbers of the design; the others concern files and restarts and are tested where those are. */
#define INVARIANT_LIST(X)                                                                                              \
    X(V1, "the set point is within 0 and the membrane's limit")                                                        \
    X(V2, "a step away from the present pressure comes from fresh readings only")                                      \
    X(V5, "in an isobar the set point does not change")                                                                \
    X(V8, "every hold has a reason")                                                                                   \
    X(LIMIT, "the true pressure is below the cell's limit")

enum invariant {
#define X(name, text) INVARIANT_##name,
    INVARIANT_LIST(X)
#undef X
        INVARIANT_COUNT
};

/* How good the instruments are. */
struct night_readings {
    double pressure_gpa_sigma;
    double outlier_fraction;      /* wrong readings that look right */
    double outlier_gpa;           /* their largest error */
    double temperature_gpa_per_k; /* ruby shift with temperature that nobody corrects for */
    double membrane_bar_sigma;
};

/* One pressure change and the isobar after it. */
struct night_change {
    int32_t direction;
    double target_gpa;
    bool is_started, is_done;    /* the isobar */
    double change_s;             /* from leaving one isobar to the start of the next */
    double overshoot_gpa;        /* largest true pressure beyond the target before the start, signed */
    double start_error_gpa;      /* true pressure at the start - target */
    double departure_gpa;        /* largest absolute departure of the true pressure from the start */
    double departure_gpa_oracle; /* the same with the membrane placed in the exact middle of the dead zone */
};

#define NIGHT_CHANGES_MAX 32
#define NIGHT_S_MAX 400000

struct night {
    struct core core;
    struct plant plant;
    struct plant_input input;
    struct night_readings readings;
    struct random random;
    int64_t now_ns, seq, pass, posted, durable, started_ns;
    double ruby_due_s, membrane_due_s, beam_due_s, cadence_s;
    /* one fault a night */
    enum fault fault;
    enum core_phase fault_phase; /* begins fault_from_s after this phase, the first of its kind, and lasts fault_s */
    double fault_from_s, fault_s, fault_to_s;
    bool is_fault_now, is_fault_over;
    double fault_gpa_max; /* largest true pressure beyond the target meanwhile */
    int64_t scan_number, attempt, scan_end_ns;
    int n_scans_complete, n_holds, n_isobars;
    uint32_t reasons_seen;
    bool is_finished, is_refused; /* refused: the membrane's limit stands between the sample and the target */
    int64_t n_violations[INVARIANT_COUNT];
    int32_t n_changes;
    struct night_change changes[NIGHT_CHANGES_MAX];
    int32_t step_index;
    int64_t change_ns;
    double isobar_start_gpa, setpoint_bar_isobar;
    struct plant oracle;
    uint64_t hash; /* of all actions */
};

const char *night_invariant_text(enum invariant invariant);

/* The settings of the core that the daemon would use, with this plan. */
void night_default_settings(struct core_settings *ret_settings);
void night_add_change(struct core_settings *settings, double target_gpa, double previous_gpa, double isobar_s,
                      int32_t n_scans);

/* A night on the plant given (already initialised). */
void night_begin(struct night *night, const struct core_settings *settings, const struct plant *plant,
                 const struct night_readings *readings, uint64_t seed);

/* One second; false when the night is over. */
bool night_step(struct night *night);

/* Sends the operator's command. */
void night_command(struct night *night, enum event_command command);

/* The true pressure in the end if the daemon died now: the set point stays, the cell creeps for a day. */
double night_pressure_gpa_if_died(const struct night *night);

/* Violations of all invariants. */
int64_t night_violations(const struct night *night);

#endif
