/*
 * Access to the ruby at a beamline whose ruby optics stand in the X-ray beam: pure, fixed size, copyable.
 *
 * With ruby_access = "always" nothing here moves: the ruby can always be read and a scan may always begin. With
 * "between_scans" the optics are moved in to read the ruby and out for every scan, the laser being shut off by its
 * shutter before the optics move and before any scan. Who wants the ruby says so at every step; the answer is at most
 * one wish, which goes to the stage or the shutter. What counts is not the wish but the readback.
 *
 *           +--> INSERTING --> SETTLING --> IN --+
 *           |        |  ^         |         |    |
 *           |        |  +---------+---------+    |
 *           |        v                           |
 *          OUT <-- WITHDRAWING <-----------------+
 *           |        ^
 *           +--------+
 *
 * Transitions (all in access_step):
 *   OUT, WITHDRAWING -> INSERTING           the ruby is wanted
 *   INSERTING -> SETTLING                   optics in and laser open, both confirmed
 *   SETTLING -> IN                          after settle_s
 *   SETTLING, IN -> INSERTING               the stage or the shutter has left its place, or is no longer known
 *   INSERTING, SETTLING, IN -> WITHDRAWING  the ruby is not wanted
 *   WITHDRAWING -> OUT                      laser closed and optics out, both confirmed
 *   OUT -> WITHDRAWING                      the stage or the shutter has left its place, or is no longer known
 *
 * A position is confirmed when it was asked for (since the link was found), at least CONFIRM_S ago, and is what the
 * readback says: an earlier readback of the same position, still on its way when the direction was turned, is none.
 *
 * In doubt (access_is_doubtful) from the moment that a move is not confirmed within move_s_max, a place is left without
 * having been asked, or the link is lost, until IN or OUT is reached. The wish is then repeated, so that a stage that
 * has been freed goes on by itself.
 *
 * Invariants (asserted at the end of every step):
 *   A1  the optics are told to move only while the laser is confirmed closed
 *   A2  the laser is told to open only while the optics are confirmed in
 *   A3  OUT: optics confirmed out and laser confirmed closed
 *   A4  IN: optics confirmed in and laser confirmed open, both for settle_s
 */
#ifndef CONTROLLER_ACCESS_H
#define CONTROLLER_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

enum access_state { ACCESS_OUT, ACCESS_INSERTING, ACCESS_SETTLING, ACCESS_IN, ACCESS_WITHDRAWING, ACCESS_STATE_COUNT };

/* As read back; recorded in EVENT_ACCESS. */
enum access_optics {
    ACCESS_OPTICS_UNKNOWN,
    ACCESS_OPTICS_OUT,
    ACCESS_OPTICS_IN,
    ACCESS_OPTICS_MOVING,
    ACCESS_OPTICS_COUNT
};
enum access_laser { ACCESS_LASER_UNKNOWN, ACCESS_LASER_CLOSED, ACCESS_LASER_OPEN, ACCESS_LASER_COUNT };

/* What is asked for; recorded in ACTION_ACCESS. */
enum access_move {
    ACCESS_MOVE_NONE,
    ACCESS_MOVE_LASER_CLOSE,
    ACCESS_MOVE_OPTICS_OUT,
    ACCESS_MOVE_OPTICS_IN,
    ACCESS_MOVE_LASER_OPEN,
    ACCESS_MOVE_COUNT
};

struct access_settings {
    int32_t is_between_scans; /* 0: the ruby can always be read, and all below is without meaning */
    double settle_s;          /* after optics and laser are in place, before the ruby is believed */
    double move_s_max;        /* one move of the stage or the shutter */
};

struct access {
    struct access_settings settings;
    enum access_state state;
    bool is_found; /* the link */
    bool is_doubtful;
    enum access_optics optics_seen, optics_asked; /* UNKNOWN: not asked since the link was found */
    enum access_laser laser_seen, laser_asked;
    int64_t optics_asked_t_ns, laser_asked_t_ns;
    enum access_move move; /* owed: not yet confirmed */
    int64_t move_t_ns;     /* since when */
    int64_t settle_t_ns;   /* since when both are in place */
    int64_t in_t_ns;       /* when IN was reached last */
};

struct event;

void access_init(struct access *access, const struct access_settings *settings);

/* Takes note of EVENT_ACCESS, EVENT_ACCESS_LOST and EVENT_ACCESS_FOUND. */
void access_observe(struct access *access, const struct event *event);

/* One step towards what is wanted. Returns what to tell the stage or the shutter now; NONE when nothing. */
enum access_move access_step(struct access *access, int64_t now_ns, bool is_ruby_wanted);

/* A scan may run: optics and laser are out of its way, or never in it. */
bool access_is_clear(const struct access *access);

/* The ruby can be read. */
bool access_is_readable(const struct access *access);

/* A reading whose exposure began at `exposure_t_ns` and has just arrived is believed. */
bool access_believes(const struct access *access, int64_t exposure_t_ns);

/* On the way from one place to the other. */
bool access_is_moving(const struct access *access);

/* A reason to hold. */
bool access_is_doubtful(const struct access *access);

const char *access_state_name(enum access_state state);
const char *access_move_name(enum access_move move);

#endif
