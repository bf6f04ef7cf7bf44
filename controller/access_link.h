/*
 * The thread of the ruby optics and the laser shutter, by Channel Access, at a beamline with ruby_access =
 * "between_scans": tells the stage and the shutter what the core asks for, and posts what the readbacks say.
 *
 * Puts are plain ones, without waiting for their end: what is believed is the readback. A readback that is not
 * connected, of severity INVALID or of an unknown word is posted as not known; a channel that is away is a lost link.
 * Never moves anything by itself, not even after a loss.
 */
#ifndef CONTROLLER_ACCESS_LINK_H
#define CONTROLLER_ACCESS_LINK_H

#include "controller/access.h"
#include "controller/instrument.h"
#include "drivers/epics.h"
#include "sequences/beamline.h"

struct access_link;

/* Opens the four channels in `epics`, which must outlive the link, and starts the thread. Errors: those of
 * epics_channel_open; an IOC that does not answer is none. */
int access_link_start(struct access_link **ret_link, const struct beamline_ruby *settings, struct epics *epics,
                      struct instrument_context *context, struct err *err);

/* Asks for a move of either device; takes the place of an earlier one that has not been sent yet. Any thread. */
void access_link_move(struct access_link *link, enum access_move move);

/* After context->is_ended: waits for the thread, sends what is still waiting, and says on standard error when the laser
 * is not confirmed closed within 3 s. NULL is allowed. */
void access_link_join(struct access_link *link);

#endif
