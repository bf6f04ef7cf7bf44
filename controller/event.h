/*
 * What reaches the core and what it answers: plain data of fixed size, recorded as they are.
 *
 * Both are zeroed before they are filled, so that equal content is equal bytes (the replay compares bytes).
 */
#ifndef CONTROLLER_EVENT_H
#define CONTROLLER_EVENT_H

#include <stdint.h>

#define EVENT_TEXT_MAX 200

enum event_kind {
    EVENT_TICK,
    EVENT_MEMBRANE,      /* value: membrane_bar, membrane_bar_setpoint, capacity_bar, supply_bar (0: not known);
                            integer: bits of enum event_membrane; text: what they mean, when there are any */
    EVENT_MEMBRANE_LOST, /* text: the driver's sentence; integer: its ERR_* */
    EVENT_MEMBRANE_FOUND,
    EVENT_RUBY,          /* value: pressure_gpa, pressure_gpa_sigma, r1_nm, r1_nm_sigma, temperature_k,
                            temperature_k_sigma; integer: t_ns when the exposure began, number of the ruler (0: as
                            stated, 1: calibrated in this run), 1 when the text is a warning; text: what is new about
                            the temperature in it, when there is anything */
    EVENT_RUBY_REJECTED, /* text: why; integer: t_ns when the exposure began */
    EVENT_SPECTROMETER_LOST,
    EVENT_SPECTROMETER_FOUND, /* text: what is not as it was asked for, when there is anything */
    EVENT_DETECTOR_LOST,
    EVENT_DETECTOR_FOUND,
    EVENT_SCAN_STARTED,   /* integer: scan_number, attempt; text: master file */
    EVENT_SCAN_PROGRESS,  /* integer: scan_number, attempt; value: frames so far */
    EVENT_SCAN_COMPLETE,  /* integer: scan_number, attempt; text: master file */
    EVENT_SCAN_FAILED,    /* integer: scan_number, attempt; text: why */
    EVENT_BEAM,           /* value: ring current, mA (NaN: not known) */
    EVENT_RESULT,         /* integer: scan_number, 1 when fitted; value: tau_s, beta */
    EVENT_DURABLE,        /* integer: number */
    EVENT_JOURNAL_FAILED, /* text: why */
    EVENT_COMMAND,        /* integer: enum event_command */
    EVENT_ACCESS,         /* integer: enum access_optics, enum access_laser; text: the two as they were read back */
    EVENT_ACCESS_LOST,    /* text: which channel */
    EVENT_ACCESS_FOUND,
    EVENT_FOLLOWER_LOST, /* integer: scan_number, attempt, how many in this run; text: why there is no result of it */
    EVENT_KIND_COUNT
};

/* What was seen at the membrane controller that was not our doing; the changes since the last reading. */
enum event_membrane { MEMBRANE_SETPOINT_CHANGED = 1, MEMBRANE_SLEW_CHANGED = 2, MEMBRANE_NOT_FOLLOWING = 4 };

enum event_command { COMMAND_HOLD = 1, COMMAND_RESUME, COMMAND_STOP };

struct event {
    int64_t seq;    /* 1, 2, 3, ... as drained by the control loop */
    int64_t pass;   /* number of the control pass */
    int64_t now_ns; /* the pass's one sample of the clock */
    int64_t t_ns;   /* arrival */
    int32_t kind;
    int32_t reserved;
    int64_t integer[3];
    double value[6];
    char text[EVENT_TEXT_MAX];
};

enum action_kind {
    ACTION_JOURNAL,     /* integer: number, enum intent_kind; value: as the intent says; acted on when DURABLE */
    ACTION_SETPOINT,    /* value: membrane_bar_setpoint */
    ACTION_SLEW,        /* value: bar_per_min */
    ACTION_CADENCE,     /* value: seconds between ruby readings; the membrane is read five times as often */
    ACTION_SCAN_START,  /* integer: scan_number, attempt; value: n_frames, frame_time_s */
    ACTION_SCAN_ABORT,  /* integer: scan_number, attempt */
    ACTION_ANALYSE,     /* integer: scan_number, attempt */
    ACTION_PHASE,       /* integer: step_index, enum core_phase; value: enum action_phase_value */
    ACTION_ISOBAR_DONE, /* integer: step_index, start t_ns; value: start, end, largest departure (GPa) */
    ACTION_HOLD,        /* integer: reasons (0: the hold has ended), 1 when the step goes on meanwhile */
    ACTION_PACE,        /* value: experiment seconds per wall second this phase can do with */
    ACTION_FINISHED,    /* integer: 0 complete, 1 stopped */
    ACTION_ACCESS,      /* integer: enum access_move */
    ACTION_DRIFT, /* integer: step_index, direction of the correction that begins (0: none); value: projected departure
                   * of the isobar's end from its start and its sigma, GPa; slope, GPa/s */
    ACTION_VALVES_SHUT, /* of the membrane controller, at once: it has burst */
    ACTION_CALIBRATION, /* integer: step_index, enum calibration_verdict; value: enum action_calibration_value. A good
                         * one is ruler number 1: from here on only readings on it are believed */
    ACTION_KIND_COUNT
};

enum intent_kind {
    INTENT_STEP,     /* value: step_index */
    INTENT_MEMBRANE, /* value: lowest and highest set point authorised, bar */
    INTENT_SCAN,     /* value: scan_number, attempt */
    INTENT_KIND_COUNT
};

/* What ACTION_PHASE carries. The state is enum loading_state when loading; 1 when an empty membrane and a locked cell
 * have been measured. The others come with LOADING_DONE, and the pressure also with that measurement: what the change
 * has taught of the cell, true pressures and not mirrored; NaN: it has not taught this. */
enum action_phase_value {
    PHASE_STATE,
    PHASE_PRESSURE_GPA, /* mean of the last readings */
    PHASE_NEAR_EDGE_BAR,
    PHASE_FAR_EDGE_BAR,
    PHASE_CENTRE_BAR,
    PHASE_COMPLIANCE_BAR_S_PER_GPA,
    PHASE_COMPLIANCE_BAR_S_PER_GPA_MAX,
    PHASE_EDGE_BAR_PER_GPA,
    PHASE_HALF_WIDTH_BAR,
    PHASE_VALUE_COUNT
};

enum action_calibration_value {
    CALIBRATION_LAMBDA0_NM,
    CALIBRATION_LAMBDA0_NM_SIGMA,
    CALIBRATION_R1_NM,
    CALIBRATION_SCATTER_NM,
    CALIBRATION_NOISE_NM,
    CALIBRATION_DRIFT_NM,
    CALIBRATION_TOLERANCE_NM,
    CALIBRATION_N_USED,
    CALIBRATION_TEMPERATURE_K,
    CALIBRATION_TEMPERATURE_K_SIGMA,
    CALIBRATION_VALUE_COUNT
};

struct action {
    int32_t kind;
    int32_t reserved;
    int64_t integer[2];
    double value[CALIBRATION_VALUE_COUNT]; /* the most that any kind needs */
};

const char *event_kind_name(int32_t kind);
const char *action_kind_name(int32_t kind);
const char *intent_kind_name(int32_t kind);

#endif
