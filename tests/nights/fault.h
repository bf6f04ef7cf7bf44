/*
 * What can go wrong in a night in virtual time: component x mode, when, and what must come of it. Pure tables.
 *
 * To add a fault: a line in FAULT_LIST, and what it does in night.c, which asks night_has_fault where the component is
 * driven. The test plays every fault at every moment.
 */
#ifndef TESTS_NIGHTS_FAULT_H
#define TESTS_NIGHTS_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "controller/core.h"
#include "tests/nights/oracle.h"

/* What comes after: the night goes on by itself, also while the fault lasts; or a person must resume it, when and only
 * when the reason was shown; or the experiment is lost, and all that counts is that nothing else is broken. */
enum fault_outcome { FAULT_GOES_ON, FAULT_ASKS, FAULT_ENDS };

/* Where the reason must be shown: while the membrane is driven, while a change rests, in an isobar, in a scan. */
enum fault_place { AT_NONE = 0, AT_DRIVE = 1, AT_REST = 2, AT_ISOBAR = 4, AT_SCAN = 8, AT_CHANGE = 3, AT_ALL = 15 };

/* X(name, what happens, seconds, event when it begins, event when it ends, reason, where it must be shown, outcome) */
#define FAULT_LIST(X)                                                                                                  \
    X(FAULT_NONE, "nothing", 0, EVENT_TICK, EVENT_TICK, 0, AT_NONE, FAULT_GOES_ON)                                     \
    X(FAULT_MEMBRANE_OFF, "no link to the membrane controller", 120, EVENT_MEMBRANE_LOST, EVENT_MEMBRANE_FOUND,        \
      HOLD_MEMBRANE_LINK, AT_ALL, FAULT_GOES_ON)                                                                       \
    X(FAULT_MEMBRANE_INTERMITTENT, "the link comes and goes every 20 s", 200, EVENT_MEMBRANE_LOST,                     \
      EVENT_MEMBRANE_FOUND, HOLD_MEMBRANE_LINK, AT_ALL, FAULT_GOES_ON)                                                 \
    X(FAULT_MEMBRANE_GARBAGE, "no readable answer from the controller", 120, EVENT_TICK, EVENT_TICK,                   \
      HOLD_MEMBRANE_STALE, AT_ALL, FAULT_GOES_ON)                                                                      \
    X(FAULT_MEMBRANE_STUCK, "the set point is ignored", 600, EVENT_TICK, EVENT_TICK, HOLD_MEMBRANE_STALL, AT_NONE,     \
      FAULT_ASKS)                                                                                                      \
    X(FAULT_MEMBRANE_SLOW, "the membrane moves at a tenth of its slew", 900, EVENT_TICK, EVENT_TICK, 0, AT_NONE,       \
      FAULT_GOES_ON)                                                                                                   \
    X(FAULT_MEMBRANE_DELAYED, "membrane readings 10 s old", 600, EVENT_TICK, EVENT_TICK, 0, AT_NONE, FAULT_GOES_ON)    \
    X(FAULT_SUPPLY_OFF, "the supply is empty: no way up", 600, EVENT_TICK, EVENT_TICK, HOLD_MEMBRANE_STALL, AT_NONE,   \
      FAULT_ASKS)                                                                                                      \
    X(FAULT_VALVE_LEAK, "the valves stay closed and leak a hundred times as much", 900, EVENT_TICK, EVENT_TICK,        \
      HOLD_MEMBRANE_STALL, AT_NONE, FAULT_ASKS)                                                                        \
    X(FAULT_RUBY_OFF, "no link to the spectrometer", 600, EVENT_SPECTROMETER_LOST, EVENT_SPECTROMETER_FOUND,           \
      HOLD_RUBY_LINK, AT_ALL, FAULT_GOES_ON)                                                                           \
    X(FAULT_RUBY_STUCK, "one pressure for ever", 300, EVENT_TICK, EVENT_TICK, 0, AT_NONE, FAULT_GOES_ON)               \
    X(FAULT_RUBY_GARBAGE, "every spectrum rejected", 600, EVENT_TICK, EVENT_TICK, HOLD_RUBY_REJECTED, AT_ALL,          \
      FAULT_GOES_ON)                                                                                                   \
    X(FAULT_RUBY_INTERMITTENT, "three of four spectra rejected", 900, EVENT_TICK, EVENT_TICK, 0, AT_NONE,              \
      FAULT_GOES_ON)                                                                                                   \
    X(FAULT_RUBY_WRONG, "0.3 GPa too much", 600, EVENT_TICK, EVENT_TICK, 0, AT_NONE, FAULT_GOES_ON)                    \
    X(FAULT_RUBY_SLOW, "a reading in a minute", 900, EVENT_TICK, EVENT_TICK, 0, AT_NONE, FAULT_GOES_ON)                \
    X(FAULT_RUBY_DELAYED, "ruby readings 20 s old", 900, EVENT_TICK, EVENT_TICK, 0, AT_NONE, FAULT_GOES_ON)            \
    X(FAULT_DETECTOR_OFF, "no link to the detector", 600, EVENT_DETECTOR_LOST, EVENT_DETECTOR_FOUND,                   \
      HOLD_DETECTOR_LINK, AT_ALL, FAULT_GOES_ON)                                                                       \
    X(FAULT_DETECTOR_STUCK, "a scan without an end", 1200, EVENT_TICK, EVENT_TICK, 0, AT_NONE, FAULT_GOES_ON)          \
    X(FAULT_DETECTOR_GARBAGE, "every scan fails", 3600, EVENT_TICK, EVENT_TICK, HOLD_SCAN, AT_SCAN, FAULT_ASKS)        \
    X(FAULT_DETECTOR_INTERMITTENT, "every second scan fails", 3600, EVENT_TICK, EVENT_TICK, 0, AT_NONE, FAULT_GOES_ON) \
    X(FAULT_BEAM_OFF, "no ring current", 600, EVENT_TICK, EVENT_TICK, HOLD_BEAM, AT_ALL, FAULT_GOES_ON)                \
    X(FAULT_BEAM_GARBAGE, "a ring current that is no number", 600, EVENT_TICK, EVENT_TICK, HOLD_BEAM, AT_ALL,          \
      FAULT_GOES_ON)                                                                                                   \
    X(FAULT_BEAM_DELAYED, "the ring current is not read", 600, EVENT_TICK, EVENT_TICK, HOLD_BEAM, AT_ALL,              \
      FAULT_GOES_ON)                                                                                                   \
    X(FAULT_DISK_OFF, "nothing is written", 600, EVENT_TICK, EVENT_TICK, HOLD_JOURNAL, AT_NONE, FAULT_GOES_ON)         \
    X(FAULT_DISK_SLOW, "a commit takes 3 s", 120, EVENT_TICK, EVENT_TICK, HOLD_JOURNAL, AT_NONE, FAULT_GOES_ON)        \
    X(FAULT_CELL_SLIP, "the cell slips by 0.3 GPa", 600, EVENT_TICK, EVENT_TICK, 0, AT_NONE, FAULT_GOES_ON)            \
    X(FAULT_CELL_WARM, "2 K warmer within a second", 600, EVENT_TICK, EVENT_TICK, 0, AT_NONE, FAULT_GOES_ON)           \
    X(FAULT_CELL_BLOWOUT, "the gasket blows out", 600, EVENT_TICK, EVENT_TICK, 0, AT_NONE, FAULT_ENDS)

enum fault {
#define X(name, text, lasts_s, begin, end, reason, where, outcome) name,
    FAULT_LIST(X)
#undef X
        FAULT_COUNT
};

/* X(name, place, phase, state of the loading, direction, whether a scan runs) */
#define MOMENT_LIST(X)                                                                                                 \
    X(MOMENT_PRELOADED, AT_REST, CORE_PRELOADED, LOADING_IDLE, 0, false)                                               \
    X(MOMENT_RAMP_UP, AT_DRIVE, CORE_LOADING, LOADING_RAMP, 1, false)                                                  \
    X(MOMENT_BACK_OFF_UP, AT_DRIVE, CORE_LOADING, LOADING_BACK_OFF, 1, false)                                          \
    X(MOMENT_RECENTRE_UP, AT_DRIVE, CORE_LOADING, LOADING_RECENTRE, 1, false)                                          \
    X(MOMENT_WATCH_UP, AT_REST, CORE_LOADING, LOADING_WATCH, 1, false)                                                 \
    X(MOMENT_ISOBAR, AT_ISOBAR, CORE_ISOBAR, LOADING_IDLE, 0, false)                                                   \
    X(MOMENT_SCAN, AT_SCAN, CORE_ISOBAR, LOADING_IDLE, 0, true)                                                        \
    X(MOMENT_RAMP_DOWN, AT_DRIVE, CORE_LOADING, LOADING_RAMP, -1, false)                                               \
    X(MOMENT_BACK_OFF_DOWN, AT_DRIVE, CORE_LOADING, LOADING_BACK_OFF, -1, false)                                       \
    X(MOMENT_RECENTRE_DOWN, AT_DRIVE, CORE_LOADING, LOADING_RECENTRE, -1, false)                                       \
    X(MOMENT_WATCH_DOWN, AT_REST, CORE_LOADING, LOADING_WATCH, -1, false)                                              \
    X(MOMENT_DEFLATED, AT_REST, CORE_DEFLATED, LOADING_IDLE, 0, false)

enum moment {
#define X(name, place, phase, state, direction, is_scanning) name,
    MOMENT_LIST(X)
#undef X
        MOMENT_COUNT
};

struct fault_kind {
    const char *name, *text;
    double lasts_s;
    int32_t begin, end; /* enum event_kind; EVENT_TICK tells the core nothing */
    uint32_t reason;
    int32_t where;
    enum fault_outcome outcome;
};

struct moment_kind {
    const char *name;
    enum fault_place place;
    enum core_phase phase;
    enum loading_state state; /* LOADING_IDLE: any */
    int32_t direction;        /* 0: any */
    bool is_scanning;
};

const struct fault_kind *fault_kind(enum fault fault);
const struct moment_kind *moment_kind(enum moment moment);

#endif
