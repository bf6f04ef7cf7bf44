/* The spectrometer's thread: takes a spectrum per cadence, fits the ruby doublet, posts the pressure or the reason for
 * refusing it, and puts every spectrum into the database, with what its width and splitting say of stress. After a
 * saturated spectrum the next exposure is half as long. Every reading says on which ruler it is: as the beamline file
 * states it, or calibrated in this run. Takes none while the ruby cannot be seen (is_ruby_dark). */
#ifndef CONTROLLER_RUBY_LINK_H
#define CONTROLLER_RUBY_LINK_H

#include "controller/instrument.h"
#include "db/store.h"
#include "sequences/beamline.h"

struct ruby_link;

struct ruby_link *ruby_link_start(const struct beamline *settings, struct instrument_context *context,
                                  struct store *store);
/* From the next reading on; any thread. */
void ruby_link_set_lambda0(struct ruby_link *link, double lambda0_nm, int64_t ruler_number);
void ruby_link_join(struct ruby_link *link);

#endif
