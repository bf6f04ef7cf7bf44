/*
 * The stand that holds the ruby's optics and the shutter of its laser, as an EPICS IOC shows them: a stage that takes
 * seconds to move, and can jam, and a shutter. The stage and the shutter themselves are in the world (sim/world.h),
 * which its integrating process moves with ruby_stand_move; this file lets clients tell them and follows them with the
 * readbacks.
 *
 * The thermometer at the cell is read here, too: the cell's temperature in hundredths of a kelvin, off by up to 0.2 K,
 * which is the sensor's own and stays. What can be wrong with it (sim/world.h): off (no value: INVALID), stuck (its
 * record is not processed any more), garbage (0 to 2000 K), wrong (degrees Celsius), intermittent (three values in ten
 * INVALID).
 */
#ifndef SIM_RUBY_STAND_H
#define SIM_RUBY_STAND_H

#include "base/clock.h"
#include "sim/parameter.h"
#include "sim/world.h"

struct ruby_stand;

/* Moves stage and shutter towards what they were told, by `duration_s`. Pure. */
void ruby_stand_move(struct world_ruby *ruby, double duration_s);

/* Takes over where the world's stand is, and starts the thread of the readbacks. End it with ruby_stand_stop. */
struct ruby_stand *ruby_stand_start(struct parameter_table *table, struct world *world, struct clock *clock);
void ruby_stand_stop(struct ruby_stand *stand);

/* A client's write, from the port thread. Returns false when the parameter is not the stand's. */
bool ruby_stand_write(struct ruby_stand *stand, enum parameter parameter, double number);

#endif
