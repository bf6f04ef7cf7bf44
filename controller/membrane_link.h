/* The membrane controller's thread: reads it five times per ruby cadence, writes the newest set point and slew asked
 * for. It notices what was changed at the controller and not by it: set point and slew against what was last read or
 * written, also over a loss of the link. A set point that was under way when the link failed is not repeated: the core
 * asks again after it has read back.
 */
#ifndef CONTROLLER_MEMBRANE_LINK_H
#define CONTROLLER_MEMBRANE_LINK_H

#include "controller/instrument.h"
#include "db/store.h"
#include "sequences/beamline.h"

struct membrane_link;

struct membrane_link *membrane_link_start(const struct beamline_membrane *settings, struct instrument_context *context,
                                          struct store *store);
void membrane_link_setpoint(struct membrane_link *link, double membrane_bar_setpoint);
void membrane_link_slew(struct membrane_link *link, double slew_bar_per_min);
/* Shuts the valves before anything else is written, and again after a loss until it is done. */
void membrane_link_shut(struct membrane_link *link);
void membrane_link_join(struct membrane_link *link);

#endif
