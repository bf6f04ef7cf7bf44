/*
 * The control loop of one run: sample the clock once -> drain the inbox -> core_step for each event -> execute the
 * actions. Owns the core, the instrument threads and the analyst; records every event and every decision.
 */
#ifndef CONTROLLER_LOOP_H
#define CONTROLLER_LOOP_H

#include "base/clock.h"
#include "controller/core.h"
#include "controller/doctor.h"
#include "db/store.h"
#include "sequences/beamline.h"
#include "sequences/plan.h"

struct loop;

struct loop_settings {
    const struct plan *plan;
    const struct beamline *beamline;
    struct clock *clock;
    struct store *store;
    const char *sequence_name;
    const char *results_directory;
    struct loading_cell cell;   /* what its passport knows; all zero: nothing */
    double passport_lambda0_nm; /* of that passport, at the beamline's temperature_k_zero; 0: none */
    const char *cell_note;      /* the same for the log; NULL: the run has no passport */
};

/* Writes the run's rows and starts the instruments' threads. */
int loop_start(struct loop **ret_loop, const struct loop_settings *settings, struct err *err);

/* Runs until the plan is finished or stopped and the last analysis is in. Returns 0 (complete), 1 (stopped) or an
 * error: ERR_STATE (the experiment clock has no keeper), ERR_DB (the database failed and stayed so). */
int loop_run(struct loop *loop, struct err *err);

/* An operator's command; any thread. */
void loop_command(struct loop *loop, enum event_command command);

/* One line for people, and the same as one JSON object; any thread. */
void loop_status(struct loop *loop, char *ret_text, size_t text_size, char *ret_json, size_t json_size);

/* What `isobar doctor` says beside a run: of the instruments what their threads last saw, for each has one master;
 * files, disk, clock and database are looked at anew. `db_path` is the run's. Any thread; takes seconds. */
void loop_doctor(struct loop *loop, const char *db_path, struct doctor_report *ret_report);

void loop_free(struct loop *loop);

#endif
