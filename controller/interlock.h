/*
 * Why the system holds: all reasons as bits, most serious first, each with a name and a sentence. Pure.
 *
 * HOLD_MEMBRANE_BURST: two readings in a row lie further below the one before them than twice the fastest drive and a
 * bar. HOLD_MEMBRANE_FOREIGN: what the controller's thread has seen changed. Both stand until the operator resumes, the
 * latter also as long as the controller does not follow. HOLD_MEMBRANE_SUPPLY needs a controller with a gauge for it.
 *
 * Guards are judged by level at every event, before a step and during it, never by an edge; a guard without a fresh
 * value counts as tripped. HOLD_DEFLATE, HOLD_PRELOAD and HOLD_CALIBRATION are the core's own, of its steps;
 * HOLD_RUBY_ACCESS is the doubt of controller/access. What a reason stops depends on what the step needs: a pressure
 * change needs the membrane and the ruby; a scan needs the detector and the beam, and ruby optics that are out of the
 * way; an isobar without scans needs nothing (the membrane is left alone).
 */
#ifndef CONTROLLER_INTERLOCK_H
#define CONTROLLER_INTERLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define HOLD_LIST(X)                                                                                                   \
    X(HOLD_PRESSURE_LIMIT, 0, "the sample pressure is above the cell's limit")                                         \
    X(HOLD_JOURNAL, 1, "the journal cannot be written: nothing moves that is not written down")                        \
    X(HOLD_MEMBRANE_BURST, 15,                                                                                         \
      "the membrane pressure has dropped suddenly: the valves were told to shut, nothing vents; check membrane and "   \
      "line, open the valves at the controller, then resume")                                                          \
    X(HOLD_MEMBRANE_FOREIGN, 16,                                                                                       \
      "the membrane controller does not follow us: its set point, mode, unit or valves were changed at the "           \
      "controller; give it back to the bus, then resume")                                                              \
    X(HOLD_MEMBRANE_SUPPLY, 17,                                                                                        \
      "the gas supply is hardly above the membrane set point; check the bottle and its regulator")                     \
    X(HOLD_MEMBRANE_LINK, 2, "no link to the membrane controller; it keeps its last set point")                        \
    X(HOLD_MEMBRANE_STALE, 3, "no fresh reading from the membrane controller")                                         \
    X(HOLD_MEMBRANE_STALL, 4, "the membrane does not follow its set point; check supply, valves and line")             \
    X(HOLD_MEMBRANE_LIMIT, 5,                                                                                          \
      "the membrane stands as high as its limit or the cell's allow; the target is not reached")                       \
    X(HOLD_RUBY_LINK, 6, "no link to the spectrometer")                                                                \
    X(HOLD_RUBY_REJECTED, 7, "the last ruby spectra were rejected, or repeat the one before; check laser and focus")   \
    X(HOLD_RUBY_STALE, 8, "no fresh ruby reading")                                                                     \
    X(HOLD_RUBY_ACCESS, 14,                                                                                            \
      "the ruby optics or the laser shutter did not reach the position asked for; free the stage and the shutter, "    \
      "and check their IOC")                                                                                           \
    X(HOLD_DETECTOR_LINK, 9, "no link to the detector")                                                                \
    X(HOLD_BEAM, 10, "no beam, or the ring current is not known")                                                      \
    X(HOLD_SCAN, 11, "a scan has failed too often; see the log")                                                       \
    X(HOLD_OPERATOR, 12, "held by the operator")                                                                       \
    X(HOLD_DEFLATE, 13, "waiting for the membrane to be emptied and the cell locked")                                  \
    X(HOLD_PRELOAD, 19, "waiting for the cell to be closed and preloaded by hand; then resume")                        \
    X(HOLD_CALIBRATION, 18,                                                                                            \
      "the calibration of the ruby is refused; put a free ruby in place, in focus, and resume: it is read anew")

enum hold_reason {
#define X(name, bit, text) name = 1 << (bit),
    HOLD_LIST(X)
#undef X
};

#define HOLD_REASONS_PRESSURE                                                                                          \
    (HOLD_PRESSURE_LIMIT | HOLD_JOURNAL | HOLD_MEMBRANE_LINK | HOLD_MEMBRANE_STALE | HOLD_MEMBRANE_STALL |             \
     HOLD_MEMBRANE_LIMIT | HOLD_MEMBRANE_BURST | HOLD_MEMBRANE_FOREIGN | HOLD_MEMBRANE_SUPPLY | HOLD_RUBY_LINK |       \
     HOLD_RUBY_REJECTED | HOLD_RUBY_STALE | HOLD_RUBY_ACCESS | HOLD_OPERATOR)
/* The membrane is left alone: no retreat either. */
#define HOLD_REASONS_HANDS_OFF (HOLD_MEMBRANE_LINK | HOLD_MEMBRANE_STALE | HOLD_MEMBRANE_BURST | HOLD_MEMBRANE_FOREIGN)
#define HOLD_REASONS_SCAN (HOLD_JOURNAL | HOLD_RUBY_ACCESS | HOLD_DETECTOR_LINK | HOLD_BEAM | HOLD_SCAN | HOLD_OPERATOR)

struct interlock_settings {
    double membrane_stale_s;
    double ruby_stale_s;       /* beside the interval between readings that is in force */
    int32_t ruby_rejected_max; /* this many in a row are a reason */
    double beam_stale_s;
    double current_ma_min;    /* trips below */
    double current_ma_resume; /* clears above, for beam_settle_s */
    double beam_settle_s;
    double pressure_gpa_max;
    double membrane_bar_per_s_max; /* fastest the membrane is ever driven; 0: a drop is not judged */
};

struct interlock {
    struct interlock_settings settings;
    bool membrane_found, spectrometer_found, detector_found;
    bool journal_failed, operator_hold, stalled, at_limit, scan_exhausted;
    int64_t membrane_t_ns, ruby_t_ns, beam_t_ns;
    int64_t beam_good_t_ns; /* since when the current is above current_ma_resume; 0: it is not */
    bool beam_ok;
    double ruby_every_s;
    int32_t ruby_rejected; /* in a row, or the same to the last bit as the one before */
    double pressure_gpa;
    bool access_doubtful;
    bool membrane_foreign; /* something was changed at the controller: stands until the operator resumes */
    bool membrane_astray;  /* the controller does not follow its set point, as it says itself */
    bool membrane_refused; /* not driven until a person has changed a setting */
    bool supply_low;
    bool membrane_burst;        /* stands until the operator resumes */
    int32_t n_dropped;          /* readings in a row that lie too far below the one before them */
    double membrane_bar_before; /* that one */
    int64_t membrane_before_t_ns;
    bool ruby_out_of_sight;  /* by order, for a scan: no reading is expected, and an old one is no reason */
    int64_t ruby_sight_t_ns; /* since when it can be seen again; 0: always */
};

struct event;

void interlock_init(struct interlock *interlock, const struct interlock_settings *settings);

/* Takes note of one event. */
void interlock_observe(struct interlock *interlock, const struct event *event);

/* Whether ruby readings can be expected: while they cannot, HOLD_RUBY_REJECTED and HOLD_RUBY_STALE do not stand, and
 * afterwards a first reading is given its time. */
void interlock_set_ruby_sight(struct interlock *interlock, bool is_in_sight, int64_t now_ns);

/* What a person does at the controller is meant: no change and no drop seen so far is a reason any more. */
void interlock_forget_membrane(struct interlock *interlock);

/* All reasons that stand at this instant. */
uint32_t interlock_reasons(const struct interlock *interlock, int64_t now_ns);

/* "HOLD_RUBY_LINK" -> its text, for the most serious bit set; "" for none. */
const char *interlock_text(uint32_t reasons);

/* All texts, most serious first, joined by "; ". Writes at most `size` bytes including the NUL. */
void interlock_sentence(uint32_t reasons, char *ret_text, int32_t size);

#endif
