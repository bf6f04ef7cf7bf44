/*
 * isobard: the control process. The only program that writes to an instrument, and the only writer of the database.
 *
 *   isobard --sequence FILE --beamline FILE --db FILE --results DIR [--cell PASSPORT]
 *   isobard --doctor --beamline FILE --db FILE [--json]    looks at every instrument, without a run; moves nothing
 *
 * Started by `isobar run` and `isobar rehearse`; its standard output is the run's log. Exit status: 0 complete,
 * 1 stopped by the operator, 2 not started or failed (the membrane keeps its set point).
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "analysis/ruby.h"
#include "controller/command.h"
#include "controller/examine.h"
#include "controller/loop.h"
#include "controller/passport.h"

struct options {
    const char *sequence, *beamline, *db, *results, *cell;
    bool is_doctor, is_json;
};

static struct loop *running; /* for wait_for_signal */

static int fail(const struct err *err)
{
    fprintf(stderr, "isobard: %s\n", err->message);
    return 2;
}

/* Waits for SIGTERM or SIGINT in a thread of its own and turns it into an operator's stop. */
static void *wait_for_signal(void *argument)
{
    sigset_t *signals = argument;
    int signal_number;
    while (sigwait(signals, &signal_number) == 0) {
        loop_command(running, COMMAND_STOP);
    }
    return NULL;
}

static int open_clock(struct clock **ret_clock, const struct beamline *beamline, struct err *err)
{
    if (strcmp(beamline->clock, "real") == 0)
        return clock_open_real(ret_clock, err);
    return clock_open_shared(ret_clock, beamline->clock, err);
}

/* What the cell's passport knows, once it is one for this run. */
static int know_cell(const struct options *options, const struct plan *plan, const struct beamline *beamline,
                     const struct clock *clock, struct loading_cell *ret_cell, double *ret_lambda0_nm, char *ret_note,
                     size_t size, struct err *err)
{
    static struct cell_passport passport;
    int64_t utc_s = clock_utc_ns(clock, clock_now_ns(clock)) / NS_PER_S;
    int code = passport_read_for_run(&passport, options->cell, plan, beamline, err);
    if (code == 0 && (code = cell_check_clock(&passport, clock_is_real(clock), utc_s, err)) < 0)
        err_prefix(err, "%s", options->cell);
    if (code < 0)
        return code;
    struct cell_age age = cell_age_at(&passport, plan, utc_s);
    cell_know(&passport, &age, ret_cell);
    *ret_lambda0_nm = cell_lambda0_nm(&passport, beamline->ruby.temperature_k_zero);
    passport_describe(&passport, options->cell, &age, clock_is_real(clock), ret_note, size);
    return 0;
}

static int run(const struct options *options, const struct plan *plan, const struct beamline *beamline,
               struct clock *clock, const struct loading_cell *cell, double passport_lambda0_nm, const char *cell_note)
{
    struct err err = {0};
    struct store *store;
    struct loop *loop;
    struct command_server *server;
    int code = store_create(&store, options->db, &err);
    if (code)
        return fail(&err);
    const char *slash = strrchr(options->sequence, '/');
    const struct loop_settings settings = {.plan = plan,
                                           .beamline = beamline,
                                           .clock = clock,
                                           .store = store,
                                           .sequence_name = slash ? slash + 1 : options->sequence,
                                           .results_directory = options->results,
                                           .cell = *cell,
                                           .passport_lambda0_nm = passport_lambda0_nm,
                                           .cell_note = cell_note};
    static sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* inherited by every thread */
    if (loop_start(&loop, &settings, &err) || command_server_start(&server, options->db, loop, &err))
        return fail(&err);
    running = loop;
    pthread_t signal_thread;
    pthread_create(&signal_thread, NULL, wait_for_signal, &signals);
    code = loop_run(loop, &err);
    if (code < 0)
        fprintf(stderr, "isobard: %s\n", err.message);
    pthread_cancel(signal_thread);
    pthread_join(signal_thread, NULL);
    command_server_join(server);
    loop_free(loop);
    store_close(store);
    return code < 0 ? 2 : code;
}

/* What is refused here has left nothing behind. */
static int begin(const struct options *options, const struct plan *plan, const struct beamline *beamline,
                 struct clock *clock)
{
    struct loading_cell cell = {0};
    double lambda0_nm = 0;
    char cell_note[1024];
    struct err err = {0};
    if (!ruby_scale_by_name(beamline->ruby.scale)) {
        err_set(&err, ERR_CONFIG, "%s: ruby scale '%s' is not known", options->beamline, beamline->ruby.scale);
        return fail(&err);
    }
    if (options->cell &&
        know_cell(options, plan, beamline, clock, &cell, &lambda0_nm, cell_note, sizeof cell_note, &err))
        return fail(&err);
    if (mkdir(options->results, 0777) != 0 && errno != EEXIST) {
        err_set(&err, ERR_IO, "%s cannot be made: %s", options->results, strerror(errno));
        return fail(&err);
    }
    return run(options, plan, beamline, clock, &cell, lambda0_nm, options->cell ? cell_note : NULL);
}

static int examine(const struct options *options, const struct beamline *beamline, const struct clock *clock)
{
    static struct doctor_report report;
    char text[COMMAND_ANSWER_MAX];
    examine_beamline(beamline, clock, options->db, &report);
    doctor_print(&report, options->is_json, text, sizeof text);
    puts(text);
    return doctor_worst(&report) == DOCTOR_BAD ? 1 : 0;
}

static int usage(void)
{
    fputs("usage: isobard --sequence FILE --beamline FILE --db FILE --results DIR [--cell PASSPORT]\n"
          "       isobard --doctor --beamline FILE --db FILE [--json]\n",
          stderr);
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"sequence", required_argument, NULL, 's'}, {"beamline", required_argument, NULL, 'b'},
        {"db", required_argument, NULL, 'd'},       {"results", required_argument, NULL, 'r'},
        {"cell", required_argument, NULL, 'c'},     {"doctor", no_argument, NULL, 'D'},
        {"json", no_argument, NULL, 'j'},           {0}};
    static struct plan plan;
    static struct beamline beamline;
    struct options options = {0};
    struct clock *clock;
    struct err err = {0};
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == 's')
            options.sequence = optarg;
        else if (option == 'b')
            options.beamline = optarg;
        else if (option == 'd')
            options.db = optarg;
        else if (option == 'r')
            options.results = optarg;
        else if (option == 'D')
            options.is_doctor = true;
        else if (option == 'j')
            options.is_json = true;
        else if (option == 'c')
            options.cell = optarg;
        else
            return usage();
    }
    bool is_run = options.sequence && options.results;
    if (!options.beamline || !options.db || is_run == options.is_doctor || optind != argc)
        return usage();
    signal(SIGPIPE, SIG_IGN);
    if ((is_run && plan_load(&plan, options.sequence, &err)) || beamline_load(&beamline, options.beamline, &err) ||
        open_clock(&clock, &beamline, &err))
        return fail(&err);
    int status = options.is_doctor ? examine(&options, &beamline, clock) : begin(&options, &plan, &beamline, clock);
    clock_close(clock);
    return status;
}
