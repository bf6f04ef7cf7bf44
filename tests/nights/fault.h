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
 * when the reason was shown; or the experiment is lost, and all that counts is that no other invariant is broken. */
enum fault_outcome { FAULT_GOES_ON, FAULT_ASKS, FAULT_ENDS };

/* Where a reason must be shown: while the membrane is driven, at the end of its way (the last of it is within the
 * leash, and may be over before anything is missed), while a change rests, in an isobar, in a scan. */
enum fault_place { AT_NONE = 0, AT_DRIVE = 1, AT_REST = 2, AT_ISOBAR = 4, AT_SCAN = 8, AT_END = 16, AT_ALL = 31 };

#define FAULT_LINK_MEMBRANE (HOLD_MEMBRANE_LINK | HOLD_MEMBRANE_STALE)
#define FAULT_LINK_RUBY (HOLD_RUBY_LINK | HOLD_RUBY_STALE)
#define FAULT_NO_RUBY (HOLD_RUBY_REJECTED | HOLD_RUBY_STALE)
#define FAULT_NO_WAY (HOLD_MEMBRANE_STALL | HOLD_MEMBRANE_LIMIT)
#define FAULT_BACK (1u << INVARIANT_V4)
#define FAULT_ON (1u << INVARIANT_V3)

/* X(name, seconds, event when it begins, when it ends, reasons that may be shown, where one must be, outcome,
 *   invariants that may be broken, what happens)
 *
 * FAULT_BACK: the sample falls back by more than the margin, where a membrane beyond the far edge of the dead zone
 * cannot go back, is held there, or is not called back because the ruby shows the drop late or wrongly; a slip of
 * 0.3 GPa, or the 0.05 GPa that 2 K look like, ends the ramp, and the back-off takes out more load than it meant to.
 *
 * FAULT_ON: the sample creeps on by what the ramp has stored, because nothing takes it out. The valves are closed, or
 * the link is away, or the membrane moves ten times slower than it was told, while the ramp counts on being able to
 * brake. Or the hold comes and goes: the retreat is given up at each resume, which begins with an empty trend and
 * stands still until one is known, and by then the next hold has come.
 *
 * A blown-out gasket is not recognised: the membrane is driven to its limit, or an isobar is held at no pressure. */
#define FAULT_LIST(X)                                                                                                  \
    X(NONE, 0, TICK, TICK, 0, AT_NONE, FAULT_GOES_ON, 0, "nothing")                                                    \
    X(MEMBRANE_OFF, 120, MEMBRANE_LOST, MEMBRANE_FOUND, FAULT_LINK_MEMBRANE, AT_ALL, FAULT_GOES_ON, FAULT_ON,          \
      "no link to the membrane controller")                                                                            \
    X(MEMBRANE_INTERMITTENT, 200, MEMBRANE_LOST, MEMBRANE_FOUND, FAULT_LINK_MEMBRANE, AT_ALL, FAULT_GOES_ON, FAULT_ON, \
      "its link comes and goes every 20 s")                                                                            \
    X(MEMBRANE_GARBAGE, 120, TICK, TICK, HOLD_MEMBRANE_STALE, AT_ALL, FAULT_GOES_ON, 0, "its answers make no sense")   \
    X(MEMBRANE_STUCK, 600, TICK, TICK, FAULT_NO_WAY, AT_DRIVE, FAULT_ASKS, FAULT_BACK | FAULT_ON,                      \
      "the set point is ignored")                                                                                      \
    X(MEMBRANE_SLOW, 900, TICK, TICK, 0, AT_NONE, FAULT_GOES_ON, FAULT_ON, "it moves at a tenth of its slew")          \
    X(MEMBRANE_DELAYED, 600, TICK, TICK, 0, AT_NONE, FAULT_GOES_ON, 0, "its readings are 10 s old")                    \
    X(SUPPLY_OFF, 600, TICK, TICK, FAULT_NO_WAY, AT_NONE, FAULT_ASKS, FAULT_BACK, "no gas: no way up")                 \
    X(VALVE_LEAK, 900, TICK, TICK, FAULT_NO_WAY, AT_DRIVE, FAULT_ASKS, FAULT_BACK | FAULT_ON,                          \
      "the valves stay closed and leak a hundred times as much")                                                       \
    X(RUBY_OFF, 600, SPECTROMETER_LOST, SPECTROMETER_FOUND, FAULT_LINK_RUBY, AT_ALL, FAULT_GOES_ON, FAULT_BACK,        \
      "no link to the spectrometer")                                                                                   \
    X(RUBY_STUCK, 600, TICK, TICK, FAULT_NO_RUBY, AT_ALL, FAULT_GOES_ON, FAULT_BACK, "the same pressure for ever")     \
    X(RUBY_GARBAGE, 600, TICK, TICK, FAULT_NO_RUBY, AT_ALL, FAULT_GOES_ON, FAULT_BACK, "every spectrum is rejected")   \
    X(RUBY_INTERMITTENT, 900, TICK, TICK, FAULT_NO_RUBY, AT_NONE, FAULT_GOES_ON, FAULT_BACK | FAULT_ON,                \
      "three of four spectra are rejected")                                                                            \
    X(RUBY_WRONG, 600, TICK, TICK, 0, AT_NONE, FAULT_GOES_ON, FAULT_BACK, "0.3 GPa too much")                          \
    X(RUBY_SLOW, 900, TICK, TICK, HOLD_RUBY_STALE, AT_DRIVE, FAULT_GOES_ON, FAULT_BACK | FAULT_ON,                     \
      "a reading in a minute")                                                                                         \
    X(RUBY_DELAYED, 900, TICK, TICK, 0, AT_NONE, FAULT_GOES_ON, FAULT_BACK, "its readings are 20 s old")               \
    X(DETECTOR_OFF, 600, DETECTOR_LOST, DETECTOR_FOUND, HOLD_DETECTOR_LINK, AT_ALL, FAULT_GOES_ON, 0,                  \
      "no link to the detector")                                                                                       \
    X(DETECTOR_STUCK, 1200, TICK, TICK, 0, AT_NONE, FAULT_GOES_ON, 0, "a scan without an end")                         \
    X(DETECTOR_GARBAGE, 3600, TICK, TICK, HOLD_SCAN, AT_SCAN, FAULT_ASKS, 0, "every scan fails")                       \
    X(DETECTOR_INTERMITTENT, 3600, TICK, TICK, 0, AT_NONE, FAULT_GOES_ON, 0, "every second scan fails")                \
    X(BEAM_OFF, 600, TICK, TICK, HOLD_BEAM, AT_ALL, FAULT_GOES_ON, 0, "no ring current")                               \
    X(BEAM_GARBAGE, 600, TICK, TICK, HOLD_BEAM, AT_ALL, FAULT_GOES_ON, 0, "a ring current that is no number")          \
    X(BEAM_DELAYED, 600, TICK, TICK, HOLD_BEAM, AT_ALL, FAULT_GOES_ON, 0, "the ring current is not read")              \
    X(DISK_OFF, 600, TICK, TICK, HOLD_JOURNAL, AT_NONE, FAULT_GOES_ON, FAULT_BACK, "nothing is written")               \
    X(DISK_SLOW, 120, TICK, TICK, HOLD_JOURNAL, AT_NONE, FAULT_GOES_ON, 0, "a commit takes 3 s")                       \
    X(CELL_SLIP, 600, TICK, TICK, FAULT_NO_WAY, AT_NONE, FAULT_ASKS, FAULT_BACK | FAULT_ON,                            \
      "the cell slips by 0.3 GPa")                                                                                     \
    X(CELL_WARM, 600, TICK, TICK, 0, AT_NONE, FAULT_GOES_ON, FAULT_BACK, "2 K warmer within a second")                 \
    X(CELL_BLOWOUT, 600, TICK, TICK, FAULT_NO_WAY, AT_NONE, FAULT_ENDS, FAULT_BACK, "the gasket blows out")

enum fault {
#define X(name, ...) FAULT_##name,
    FAULT_LIST(X)
#undef X
        FAULT_COUNT
};

/* X(name, place, phase, state of the loading, direction, whether a scan runs, how long it lasts at least, s) */
#define MOMENT_LIST(X)                                                                                                 \
    X(PRELOADED, AT_REST, CORE_PRELOADED, LOADING_IDLE, 0, false, 15)                                                  \
    X(RAMP_UP, AT_DRIVE, CORE_LOADING, LOADING_RAMP, 1, false, 1800)                                                   \
    X(BACK_OFF_UP, AT_DRIVE, CORE_LOADING, LOADING_BACK_OFF, 1, false, 40)                                             \
    X(RECENTRE_UP, AT_END, CORE_LOADING, LOADING_RECENTRE, 1, false, 5)                                                \
    X(WATCH_UP, AT_REST, CORE_LOADING, LOADING_WATCH, 1, false, 200)                                                   \
    X(ISOBAR, AT_ISOBAR, CORE_ISOBAR, LOADING_IDLE, 0, false, 1000)                                                    \
    X(SCAN, AT_SCAN, CORE_ISOBAR, LOADING_IDLE, 0, true, 50)                                                           \
    X(RAMP_DOWN, AT_DRIVE, CORE_LOADING, LOADING_RAMP, -1, false, 400)                                                 \
    X(BACK_OFF_DOWN, AT_DRIVE, CORE_LOADING, LOADING_BACK_OFF, -1, false, 40)                                          \
    X(RECENTRE_DOWN, AT_END, CORE_LOADING, LOADING_RECENTRE, -1, false, 5)                                             \
    X(WATCH_DOWN, AT_REST, CORE_LOADING, LOADING_WATCH, -1, false, 200)                                                \
    X(DEFLATED, AT_REST, CORE_DEFLATED, LOADING_IDLE, 0, false, 15)

enum moment {
#define X(name, ...) MOMENT_##name,
    MOMENT_LIST(X)
#undef X
        MOMENT_COUNT
};

struct fault_kind {
    const char *name, *text;
    double lasts_s;
    int32_t begin, end; /* enum event_kind; EVENT_TICK tells the core nothing */
    uint32_t reasons;
    uint32_t where; /* bits of enum fault_place */
    enum fault_outcome outcome;
    uint32_t excuses; /* bits of enum invariant */
};

struct moment_kind {
    const char *name;
    enum fault_place place;
    enum core_phase phase;
    enum loading_state state; /* LOADING_IDLE: any */
    int32_t direction;        /* 0: any */
    bool is_scanning;
    double lasts_s_min;
};

const struct fault_kind *fault_kind(enum fault fault);
const struct moment_kind *moment_kind(enum moment moment);

#endif
