/* The spectrometer's thread: takes a spectrum per cadence, fits the ruby doublet, posts the pressure or the reason for
 * refusing it, and puts every spectrum into the database, with what its width and splitting say of stress. After a
 * saturated spectrum the next exposure is half as long. Every reading says on which ruler it is: as the beamline file
 * states it, or calibrated in this run. Takes none while the ruby cannot be seen (is_ruby_dark).
 *
 * With a thermometer (temperature_pv) each reading has the temperature of its own, judged by controller/temperature, in
 * its pressure, in its event and in its row. A step of it is told in the log and in the event, with what it does to the
 * pressure. */
#ifndef CONTROLLER_RUBY_LINK_H
#define CONTROLLER_RUBY_LINK_H

#include "controller/instrument.h"
#include "db/store.h"
#include "drivers/epics.h"
#include "drivers/spectrometer.h"
#include "sequences/beamline.h"

struct ruby_link;

/* `epics`: the process's context, which must outlive the link; NULL when the beamline file names no PV for it. Errors:
 * those of epics_channel_open; an instrument that does not answer is none. */
int ruby_link_start(struct ruby_link **ret_link, const struct beamline *settings, struct epics *epics,
                    struct instrument_context *context, struct store *store, struct err *err);
/* From the next reading on; any thread. */
void ruby_link_set_lambda0(struct ruby_link *link, double lambda0_nm, int64_t ruler_number);
void ruby_link_join(struct ruby_link *link);

/* The driver's settings as the beamline file says them; its texts must outlive them. */
struct spectrometer_settings ruby_link_spectrometer(const struct beamline_spectrometer *settings, struct epics *epics);

#endif
