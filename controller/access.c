#include "controller/access.h"

#include <assert.h>

#include "base/clock.h"
#include "controller/event.h"

#define CONFIRM_S 1.0    /* longer than a readback is on its way */
#define ASK_AGAIN_S 20.0 /* a put may be lost, a stage that was stuck may be free again */

static const char *const state_names[ACCESS_STATE_COUNT] = {"out", "inserting", "settling", "in", "withdrawing"};
static const char *const move_names[ACCESS_MOVE_COUNT] = {"none", "laser shutter closed", "ruby optics out",
                                                          "ruby optics in", "laser shutter open"};

const char *access_state_name(enum access_state state)
{
    assert(state >= 0 && state < ACCESS_STATE_COUNT);
    return state_names[state];
}

const char *access_move_name(enum access_move move)
{
    assert(move >= 0 && move < ACCESS_MOVE_COUNT);
    return move_names[move];
}

void access_init(struct access *access, const struct access_settings *settings)
{
    *access = (struct access){.settings = *settings, .state = ACCESS_WITHDRAWING};
}

/* ---- what is known ------------------------------------------------------------------------------------------- */

/* After a loss nobody knows what was done meanwhile: everything is asked for anew. */
static void forget(struct access *access)
{
    access->optics_seen = access->optics_asked = ACCESS_OPTICS_UNKNOWN;
    access->laser_seen = access->laser_asked = ACCESS_LASER_UNKNOWN;
}

void access_observe(struct access *access, const struct event *event)
{
    if (event->kind == EVENT_ACCESS_FOUND || event->kind == EVENT_ACCESS_LOST) {
        access->is_found = event->kind == EVENT_ACCESS_FOUND;
        access->is_doubtful = access->is_doubtful || !access->is_found;
        forget(access);
    } else if (event->kind == EVENT_ACCESS) {
        access->optics_seen = (enum access_optics)event->integer[0];
        access->laser_seen = (enum access_laser)event->integer[1];
    }
}

static bool is_optics_confirmed(const struct access *access, enum access_optics optics, int64_t now_ns)
{
    return access->optics_seen == optics && access->optics_asked == optics &&
           s_from_ns(now_ns - access->optics_asked_t_ns) >= CONFIRM_S;
}

static bool is_laser_confirmed(const struct access *access, enum access_laser laser, int64_t now_ns)
{
    return access->laser_seen == laser && access->laser_asked == laser &&
           s_from_ns(now_ns - access->laser_asked_t_ns) >= CONFIRM_S;
}

static bool is_inwards(enum access_state state)
{
    return state == ACCESS_INSERTING || state == ACCESS_SETTLING || state == ACCESS_IN;
}

/* What is still missing on the way to the wanted place; the order of these lines is what A1 and A2 say. */
static enum access_move find_move(const struct access *access, int64_t now_ns)
{
    bool is_in = is_inwards(access->state);
    if (is_in && is_optics_confirmed(access, ACCESS_OPTICS_IN, now_ns))
        return is_laser_confirmed(access, ACCESS_LASER_OPEN, now_ns) ? ACCESS_MOVE_NONE : ACCESS_MOVE_LASER_OPEN;
    if (!is_laser_confirmed(access, ACCESS_LASER_CLOSED, now_ns))
        return ACCESS_MOVE_LASER_CLOSE;
    if (is_in)
        return ACCESS_MOVE_OPTICS_IN;
    return is_optics_confirmed(access, ACCESS_OPTICS_OUT, now_ns) ? ACCESS_MOVE_NONE : ACCESS_MOVE_OPTICS_OUT;
}

/* ---- one step ------------------------------------------------------------------------------------------------ */

static void turn(struct access *access, bool is_ruby_wanted)
{
    if (is_ruby_wanted == is_inwards(access->state))
        return;
    access->state = is_ruby_wanted ? ACCESS_INSERTING : ACCESS_WITHDRAWING;
    access->move = ACCESS_MOVE_NONE;
}

static void arrive(struct access *access, int64_t now_ns)
{
    if (access->state == ACCESS_INSERTING) {
        access->state = ACCESS_SETTLING;
        access->settle_t_ns = now_ns;
    }
    if (access->state == ACCESS_SETTLING && s_from_ns(now_ns - access->settle_t_ns) >= access->settings.settle_s) {
        access->state = ACCESS_IN;
        access->in_t_ns = now_ns;
    }
    if (access->state == ACCESS_WITHDRAWING)
        access->state = ACCESS_OUT;
    if (access->state == ACCESS_IN || access->state == ACCESS_OUT)
        access->is_doubtful = false;
    access->move = ACCESS_MOVE_NONE;
}

static void leave(struct access *access)
{
    if (access->state == ACCESS_IN || access->state == ACCESS_SETTLING || access->state == ACCESS_OUT) {
        access->is_doubtful = true; /* nobody has asked for it */
        access->state = is_inwards(access->state) ? ACCESS_INSERTING : ACCESS_WITHDRAWING;
    }
}

/* Notes that the move is asked for now; false when it has been, and not long ago. */
static bool ask(struct access *access, enum access_move move, int64_t now_ns)
{
    bool is_laser = move == ACCESS_MOVE_LASER_CLOSE || move == ACCESS_MOVE_LASER_OPEN;
    enum access_laser laser = move == ACCESS_MOVE_LASER_OPEN ? ACCESS_LASER_OPEN : ACCESS_LASER_CLOSED;
    enum access_optics optics = move == ACCESS_MOVE_OPTICS_IN ? ACCESS_OPTICS_IN : ACCESS_OPTICS_OUT;
    int64_t *asked_t_ns = is_laser ? &access->laser_asked_t_ns : &access->optics_asked_t_ns;
    bool is_asked = is_laser ? access->laser_asked == laser : access->optics_asked == optics;
    if (is_asked && s_from_ns(now_ns - *asked_t_ns) < ASK_AGAIN_S)
        return false;
    if (is_laser)
        access->laser_asked = laser;
    else
        access->optics_asked = optics;
    *asked_t_ns = now_ns;
    return true;
}

static void check_invariants(const struct access *access, enum access_move asked, int64_t now_ns)
{
    bool is_closed = is_laser_confirmed(access, ACCESS_LASER_CLOSED, now_ns);
    bool is_open = is_laser_confirmed(access, ACCESS_LASER_OPEN, now_ns);
    bool is_in = is_optics_confirmed(access, ACCESS_OPTICS_IN, now_ns);
    bool is_out = is_optics_confirmed(access, ACCESS_OPTICS_OUT, now_ns);
    assert(is_closed || (asked != ACCESS_MOVE_OPTICS_IN && asked != ACCESS_MOVE_OPTICS_OUT)); /* A1 */
    assert(is_in || asked != ACCESS_MOVE_LASER_OPEN);                                         /* A2 */
    assert((is_out && is_closed) || access->state != ACCESS_OUT);                             /* A3 */
    bool has_settled = s_from_ns(now_ns - access->settle_t_ns) >= access->settings.settle_s;
    assert((is_in && is_open && has_settled) || access->state != ACCESS_IN); /* A4 */
}

enum access_move access_step(struct access *access, int64_t now_ns, bool is_ruby_wanted)
{
    if (!access->settings.is_between_scans)
        return ACCESS_MOVE_NONE;
    turn(access, is_ruby_wanted);
    enum access_move asked = ACCESS_MOVE_NONE, move = find_move(access, now_ns);
    if (move == ACCESS_MOVE_NONE) {
        arrive(access, now_ns);
    } else {
        leave(access);
        if (move != access->move)
            access->move_t_ns = now_ns;
        access->move = move;
        if (s_from_ns(now_ns - access->move_t_ns) > access->settings.move_s_max)
            access->is_doubtful = true;
        if (access->is_found && ask(access, move, now_ns))
            asked = move;
    }
    check_invariants(access, asked, now_ns);
    return asked;
}

/* ---- what others ask ----------------------------------------------------------------------------------------- */

bool access_is_clear(const struct access *access)
{
    return !access->settings.is_between_scans || access->state == ACCESS_OUT;
}

bool access_is_readable(const struct access *access)
{
    return !access->settings.is_between_scans || access->state == ACCESS_IN;
}

bool access_believes(const struct access *access, int64_t exposure_t_ns)
{
    return !access->settings.is_between_scans || (access->state == ACCESS_IN && exposure_t_ns >= access->in_t_ns);
}

bool access_is_moving(const struct access *access) { return !access_is_clear(access) && !access_is_readable(access); }

bool access_is_doubtful(const struct access *access)
{
    return access->settings.is_between_scans && access->is_doubtful;
}
