/* The spectrometer's thread: takes a spectrum per cadence, fits the ruby doublet, posts the pressure or the reason for
 * refusing it, and puts every spectrum into the database, with what its width and splitting say of stress. After a
 * saturated spectrum the next exposure is half as long. Takes none while the ruby cannot be seen (is_ruby_dark). */
#ifndef CONTROLLER_RUBY_LINK_H
#define CONTROLLER_RUBY_LINK_H

#include "controller/instrument.h"
#include "db/store.h"
#include "sequences/beamline.h"

struct ruby_link;

struct ruby_link *ruby_link_start(const struct beamline *settings, struct instrument_context *context,
                                  struct store *store);
void ruby_link_join(struct ruby_link *link);

#endif
