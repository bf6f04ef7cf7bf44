/*
 * Instants and the experiment clock.
 *
 * An instant is a count of nanoseconds of experiment time (int64_t, name ending in _ns). Live, experiment time is
 * CLOCK_BOOTTIME. In a rehearsal it is read from a page of shared memory that the running simulator keeps: the time
 * runs at a speed that varies, and every party may ask for a slower pace while it needs one. Reading the time is a
 * few loads and never blocks. When the keeper of a shared clock is gone, time stands still (and clock_is_alive says
 * so): nothing may act on a time that nobody keeps.
 *
 * Intervals come from here; UTC is for records only. Timeouts of input and output are wall time: clock_wall_ns.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define NS_PER_S INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)

/* A whole or broken number of seconds as nanoseconds, and back. */
static inline int64_t ns_from_s(double s) { return (int64_t)(s * 1e9); }
static inline double s_from_ns(int64_t ns) { return (double)ns * 1e-9; }

struct clock;

/* The real clock: CLOCK_BOOTTIME at speed 1. Free with clock_close. */
int clock_open_real(struct clock **ret_clock, struct err *err);

/* The clock a running simulator keeps at `path`. Errors: ERR_IO (no such page), ERR_DATA (not a clock page). */
int clock_open_shared(struct clock **ret_clock, const char *path, struct err *err);

/* Creates the page at `path` and becomes its keeper: call clock_keep about once per millisecond of wall time.
 * `utc_ns_start` is the UTC of the first instant. Only the simulator does this. */
int clock_publish(struct clock **ret_clock, const char *path, int64_t utc_ns_start, double speed_max, struct err *err);
void clock_keep(struct clock *clock);

void clock_close(struct clock *clock);

/* Now, as an instant of experiment time; never runs backwards. */
int64_t clock_now_ns(const struct clock *clock);

/* The UTC (nanoseconds since 1970) that belongs to an instant. */
int64_t clock_utc_ns(const struct clock *clock, int64_t t_ns);

bool clock_is_real(const struct clock *clock);

/* False when a shared clock has had no keeper for 2 s of wall time. */
bool clock_is_alive(const struct clock *clock);

/* Experiment seconds per second of wall time, just now. */
double clock_speed(const struct clock *clock);

/* Sleeps until the instant, or until `wall_ms_max` of wall time have gone, whichever is first. */
void clock_sleep_until(const struct clock *clock, int64_t t_ns, int wall_ms_max);

/* The fastest pace this party can sustain (experiment seconds per second of wall time; at least 1). The clock runs at
 * the slowest of all requests, including those of other processes. One request per clock handle and `who` (a word of
 * up to 15 letters); it ends with the process. On the real clock this does nothing. */
void clock_request_pace(struct clock *clock, const char *who, double speed_max);

/* Wall time for timeouts of input and output: CLOCK_BOOTTIME in nanoseconds. */
int64_t clock_wall_ns(void);

#endif
