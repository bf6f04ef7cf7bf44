/*
 * The wire of a simulated instrument that answers requests: a TCP port on loopback with several clients, or a
 * pseudo-terminal that stands for a serial line. The instrument takes whole requests and gives whole answers; what goes
 * wrong with an answer on its way is done here, whatever the instrument:
 *
 *   off           no answer at all
 *   garbage       random bytes instead of the answer
 *   wrong         the answer to the request before
 *   slow          the bytes drip, 144 ms apart; after 36 of them the rest comes at once
 *   delayed       the answer comes 1.3 s late
 *   intermittent  three answers in ten are lost, and of these every third takes the connection with it
 *
 * Each befalls a stated fraction of the answers; from isobar-sim, all of them.
 *
 * (stuck, the last, is the instrument's own: its sensor shows the same value for ever.)
 */
#ifndef SIM_WIRE_H
#define SIM_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "sim/random.h"
#include "sim/world.h"

#define WIRE_REQUEST_MAX 320
#define WIRE_ANSWER_MAX 8192

struct wire;

struct wire_service {
    void *self;
    enum world_component component; /* whose faults these are */
    /* Told once, before the first request, by which wire it is asked; NULL: it does not want to know. */
    void (*begin)(void *self, struct wire *wire);
    /* Looks at the `n_bytes` that have come. Returns how many of them it has used (a request, or rubbish before one),
     * 0 when it needs more, or negative to drop the client. `ret_n_answer` is 0 when there is nothing to answer. */
    int (*take)(void *self, const uint8_t *bytes, size_t n_bytes, uint8_t ret_answer[WIRE_ANSWER_MAX],
                size_t *ret_n_answer);
};

/* Serves until SIGTERM or SIGINT. `address`: "tcp:127.0.0.1:PORT", or "serial:PATH:BAUD" where PATH is made here as a
 * link to the pseudo-terminal's other end (a link that is there already is replaced, a file is not).
 * Errors: ERR_ARG (address), ERR_SYSTEM (port in use, no pseudo-terminal). */
int wire_run(const struct wire_service *service, struct world *world, const char *address, struct err *err);

/* For an instrument in the middle of a request: waits until an instant of the experiment. False when nobody waits for
 * the answer any more (the client hung up, the process is to end): drop the client. */
bool wire_wait(struct wire *wire, struct clock *clock, int64_t t_ns);

/* The baud rate at which the other end of a serial line speaks just now; 0 by TCP. */
int wire_baud(const struct wire *wire);

#endif
