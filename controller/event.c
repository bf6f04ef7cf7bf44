#include "controller/event.h"

static const char *const event_names[EVENT_KIND_COUNT] = {
    "tick",          "membrane",          "membrane lost",      "membrane found", "ruby",
    "ruby rejected", "spectrometer lost", "spectrometer found", "detector lost",  "detector found",
    "scan started",  "scan progress",     "scan complete",      "scan failed",    "beam",
    "result",        "durable",           "journal failed",     "command",        "access",
    "access lost",   "access found",      "follower lost",
};

static const char *const action_names[ACTION_KIND_COUNT] = {
    "journal",     "set point", "slew", "cadence",  "scan start", "scan abort", "analyse",     "phase",
    "isobar done", "hold",      "pace", "finished", "access",     "drift",      "valves shut", "calibration",
};

static const char *const intent_names[INTENT_KIND_COUNT] = {"step", "membrane", "scan"};

static const char *name_of(const char *const *names, int32_t count, int32_t kind)
{
    return kind >= 0 && kind < count ? names[kind] : "unknown";
}

const char *event_kind_name(int32_t kind) { return name_of(event_names, EVENT_KIND_COUNT, kind); }
const char *action_kind_name(int32_t kind) { return name_of(action_names, ACTION_KIND_COUNT, kind); }
const char *intent_kind_name(int32_t kind) { return name_of(intent_names, INTENT_KIND_COUNT, kind); }
