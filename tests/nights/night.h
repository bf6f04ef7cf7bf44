/*
 * Whole nights in virtual time: the shipping core, the plant and plain models of the instruments in one thread, with an
 * oracle (oracle.h) that knows the truth and checks the invariants at every event and every second, and with faults
 * (fault.h) at any moment. No socket, no thread, no wall clock: the same seed gives the same night, bit for bit.
 */
#ifndef TESTS_NIGHTS_NIGHT_H
#define TESTS_NIGHTS_NIGHT_H

#include <stdbool.h>
#include <stdint.h>

#include "controller/core.h"
#include "sim/plant.h"
#include "tests/nights/fault.h"
#include "tests/nights/oracle.h"

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
#define NIGHT_FAULTS_MAX 4
#define NIGHT_DELAY_S_MAX 32

/* Begins `from_s` after the moment has come and lasts `lasts_s`, once. */
struct night_fault {
    enum fault fault;
    enum moment moment;
    double from_s, lasts_s, to_s;
    int64_t moment_ns; /* since when the moment stands; 0: it does not */
    bool is_now, is_over;
    uint32_t reasons; /* shown while it lasted and for a minute after */
};

struct night {
    struct core core;
    struct oracle oracle;
    struct plant plant;
    struct plant_input input;
    struct night_readings readings;
    struct random random;
    int64_t now_ns, seq, pass, posted, durable, posted_ns;
    double ruby_due_s, membrane_due_s, beam_due_s, cadence_s;
    double setpoint_bar, slew_bar_per_s; /* as the membrane controller was told */
    double pressure_gpa_read;            /* the last, for a spectrometer that repeats itself */
    /* the true pressure and the membrane of the last seconds, for readings that come late */
    double pressure_gpa_past[NIGHT_DELAY_S_MAX], membrane_bar_past[NIGHT_DELAY_S_MAX];
    int32_t n_faults;
    struct night_fault faults[NIGHT_FAULTS_MAX];
    bool is_link_out;     /* of an intermittent link */
    double fault_gpa_max; /* largest true pressure beyond the target while a fault lasted */
    int64_t scan_number, attempt, scan_end_ns;
    int n_scans_started, n_scans_complete, n_holds, n_isobars;
    uint32_t reasons_seen;
    bool is_shut;                 /* the valves, by order */
    bool is_finished, is_refused; /* refused: the membrane's limit stands between the sample and the target */
    bool has_operator;            /* who is asked then; else the night is over */
    int32_t n_changes;
    struct night_change changes[NIGHT_CHANGES_MAX];
    int32_t step_index;
    int64_t change_ns;
    double isobar_start_gpa;
    struct plant middle; /* the same cell from the start of an isobar, its membrane in the middle of the dead zone */
};

/* The settings of the core that the daemon would use, with this plan. */
void night_default_settings(struct core_settings *ret_settings);
void night_add_change(struct core_settings *settings, double target_gpa, double previous_gpa, double isobar_s,
                      int32_t n_scans);
void night_add_deflate(struct core_settings *settings);

/* A night on the plant given (already initialised). */
void night_begin(struct night *night, const struct core_settings *settings, const struct plant *plant,
                 const struct night_readings *readings, uint64_t seed);

void night_add_fault(struct night *night, enum fault fault, enum moment moment, double from_s, double lasts_s);

/* Whether the fault lasts now. */
bool night_has_fault(const struct night *night, enum fault fault);

/* One second; false when the night is over. */
bool night_step(struct night *night);

/* Sends the operator's command. */
void night_command(struct night *night, enum event_command command);

/* The true pressure in the end if the daemon died now: the set point stays, the cell creeps for a day, its temperature
 * with it. (oracle_pressure_gpa_if_died is quicker.) */
double night_pressure_gpa_if_died(const struct night *night);

#endif
