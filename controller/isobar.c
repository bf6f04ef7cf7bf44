/*
 * isobar: the command line. Touches no instrument itself.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "analysis/neon.h"
#include "analysis/ruby.h"
#include "analysis/spectrum_file.h"
#include "controller/command.h"
#include "controller/passport.h"
#include "controller/program.h"
#include "controller/rehearsal.h"
#include "controller/replay.h"
#include "controller/rescale.h"
#include "sequences/beamline.h"
#include "sequences/plan.h"

#define SPECTRUM_MAX 65536

struct options {
    const char *beamline, *db, *results, *directory, *scale, *export, *import, *cell, *ruby_access, *rescale,
        *correction, *membrane, *spectrometer, *neon;
    double lambda0_nm, laser_nm, fringe_max, temperature_k, temperature_k_zero;
    int is_json, wants_scales, has_lambda0;
};

static const char usage_text[] =
    "usage: isobar COMMAND ...\n"
    "\n"
    "  check SEQUENCE [--beamline FILE] [--cell CELL.lua]\n"
    "                                         read the sequence, check it against the limits, print the plan and its "
    "ETA\n"
    "  rehearse SEQUENCE [--dir DIR] [--cell CELL.lua] [--ruby-access always|between_scans]\n"
    "           [--membrane bronkhorst|alicat|pace] [--spectrometer ocean|epics]\n"
    "                                         play it on simulated instruments; SEED=N in the environment repeats one\n"
    "  run SEQUENCE --beamline FILE --db FILE [--results DIR] [--cell CELL.lua]\n"
    "                                         play it on the instruments of the beamline file; --cell: a cell that is "
    "known\n"
    "  status [--db FILE] [--json]            what the running daemon is doing\n"
    "  doctor [--db FILE] [--json]            what a running daemon sees of every instrument; moves nothing\n"
    "  doctor --beamline FILE [--json]        the same without a run, before one\n"
    "  hold | resume | stop [--db FILE]       hold where the cell is safe; go on; end the run and leave the cell safe\n"
    "  replay [--db FILE]                     run the recorded events through the core again and compare the "
    "decisions\n"
    "  cell [--db FILE] [--export CELL.lua]   what the run has taught of its cell; --export writes its passport\n"
    "  cell --import CELL.lua                 read a passport, check it and show it\n"
    "  ruby FILE ... [--scale NAME] [--lambda0 NM] [--temperature K] [--temperature-zero K] [--correction NAME]\n"
    "                [--laser-nm NM] [--fringe-max X]\n"
    "                                         pressure from spectra on file: text or SPE (ruby2020, 694.25 nm, 296 K "
    "and\n"
    "                                         datchi2007 unless said); --laser-nm: the first column is a Raman shift\n"
    "  ruby --rescale NAME [--db FILE] [--lambda0 NM] [--correction NAME]\n"
    "                                         the pressures of a finished run on another scale, beside the old ones\n"
    "  ruby --neon FILE                       the wavelength axis by the neon lines of a spectrum on file: what to "
    "write into "
    "the\n"
    "                                         beamline file\n"
    "  ruby --scales                          every scale and temperature correction, its source and how sure it is\n"
    "\n"
    "FILE of --db is night.db unless said. Exit status: 0 done, 1 failed or stopped, 2 not possible.\n";

static int fail(const struct err *err)
{
    fflush(stdout);
    fprintf(stderr, "isobar: %s\n", err->message);
    return 2;
}

static int usage(void)
{
    fputs(usage_text, stderr);
    return 2;
}

static void print_duration(const char *label, double s_min, double s_max)
{
    printf("%s%d:%02d to %d:%02d h\n", label, (int)(s_min / 3600.0), (int)(s_min / 60.0) % 60, (int)(s_max / 3600.0),
           (int)(s_max / 60.0) % 60);
}

static int check_limits(const struct plan *plan, const struct beamline *beamline, const char *path, struct err *err)
{
    if (!(plan->cell.membrane_bar_max <= beamline->membrane.membrane_bar_max))
        return err_set(err, ERR_LIMIT,
                       "%s: the cell may take %g bar but the line only %g bar: the lower one will be kept", path,
                       plan->cell.membrane_bar_max, beamline->membrane.membrane_bar_max);
    return 0;
}

/* Said, not refused: what happens in a medium that is no fluid any more may be what is studied. */
static void warn_hydrostatic(const struct plan *plan, const char *path)
{
    int32_t i = plan_find_nonhydrostatic(plan);
    if (i >= 0)
        printf("warning: %s:%d: %g GPa is above %g GPa, to which %s is hydrostatic; expect stress on sample and ruby\n",
               path, plan->steps[i].line, plan->steps[i].pressure_gpa_target, plan->cell.hydrostatic_gpa_max,
               plan->cell.medium);
    else if (isinf(plan->cell.hydrostatic_gpa_max))
        printf("note: no hydrostatic limit is known for the medium '%s'; hydrostatic_gpa_max in cell states one\n",
               plan->cell.medium);
}

static int64_t utc_s_now(void)
{
    struct timespec utc;
    clock_gettime(CLOCK_REALTIME, &utc);
    return utc.tv_sec;
}

/* A passport is checked as far as it can be without the instruments: against the plan, the beamline when it is given,
 * and this computer's clock when the beamline runs on it. */
static int check_cell(const struct options *options, struct plan *plan, const struct beamline *beamline,
                      struct err *err)
{
    static struct cell_passport passport;
    bool is_real = beamline && strcmp(beamline->clock, "real") == 0;
    int code = passport_read_for_run(&passport, options->cell, plan, beamline, err);
    if (code == 0 && (code = cell_check_clock(&passport, is_real, utc_s_now(), err)) < 0)
        err_prefix(err, "%s", options->cell);
    if (code < 0)
        return code;
    struct cell_age age = cell_age_at(&passport, plan, utc_s_now());
    passport_print_known(&passport, &age, stdout);
    if (!beamline)
        puts("note: whether its ruler and its clock are those of the run is not checked without --beamline");
    else if (!is_real && strcmp(passport.clock, "real") == 0)
        puts("note: this is the passport of a real cell, and the beamline is simulated");
    plan->cell.hydrostatic_gpa_max = fmin(plan->cell.hydrostatic_gpa_max, passport.cell.hydrostatic_gpa_max);
    return 0;
}

static int command_check(const struct options *options, const char *path)
{
    static struct plan plan;
    static struct beamline beamline;
    struct err err = {0};
    if (plan_load(&plan, path, &err))
        return fail(&err);
    plan_print(&plan, stdout);
    double s_min, s_max;
    plan_estimate(&plan, &s_min, &s_max);
    print_duration("expected duration ", s_min, s_max);
    if (options->beamline && beamline_load(&beamline, options->beamline, &err))
        return fail(&err);
    if (options->cell && check_cell(options, &plan, options->beamline ? &beamline : NULL, &err))
        return fail(&err);
    warn_hydrostatic(&plan, path);
    if (!options->beamline)
        return 0;
    if (check_limits(&plan, &beamline, path, &err))
        printf("note: %s\n", err.message);
    printf("beamline %s: usable\n", beamline.name);
    return 0;
}

static int command_rehearse(const struct options *options, const char *path)
{
    static struct plan plan;
    static struct cell_passport passport;
    struct err err = {0};
    if (plan_load(&plan, path, &err))
        return fail(&err);
    if (options->cell &&
        passport_read_for_run(&passport, options->cell, &plan, NULL, &err)) /* before anything starts */
        return fail(&err);
    uint32_t drawn = 0;
    if (getrandom(&drawn, sizeof drawn, 0) != sizeof drawn)
        return 2;
    struct rehearsal_settings settings = {.sequence_path = path,
                                          .directory = options->directory ? options->directory : "build/rehearsal",
                                          .cell_path = options->cell,
                                          .seed = drawn % 1000000,
                                          .ruby_access = options->ruby_access,
                                          .membrane = options->membrane,
                                          .spectrometer = options->spectrometer,
                                          .is_cell_open = plan.steps[0].kind == PLAN_CALIBRATE_RUBY};
    const char *seed = getenv("SEED");
    if (seed && *seed) {
        char *end;
        settings.seed = strtoull(seed, &end, 10);
        if (*end != '\0') {
            err_set(&err, ERR_ARG, "SEED=%s is not a whole number", seed);
            return fail(&err);
        }
    }
    int code = rehearsal_run(&settings, &err);
    return code < 0 ? fail(&err) : code;
}

static int command_run(const struct options *options, const char *path)
{
    char program[4096];
    if (!options->beamline || !options->db)
        return usage();
    program_path("isobard", program, sizeof program);
    execl(program, "isobard", "--sequence", path, "--beamline", options->beamline, "--db", options->db, "--results",
          options->results ? options->results : "results", options->cell ? "--cell" : NULL, options->cell,
          (char *)NULL);
    fprintf(stderr, "isobar: isobard cannot be started: %s\n", strerror(errno));
    return 2;
}

static int command_to_daemon(const struct options *options, const char *command)
{
    char socket_path[4096], answer[COMMAND_ANSWER_MAX], request[32];
    struct err err = {0};
    snprintf(socket_path, sizeof socket_path, "%s.sock", options->db ? options->db : "night.db");
    snprintf(request, sizeof request, "%s%s", command, options->is_json ? " json" : "");
    if (command_ask(socket_path, request, answer, sizeof answer, &err))
        return fail(&err);
    puts(answer);
    return 0;
}

/* Before a run: the daemon's own eyes, without a run. */
static int command_doctor(const struct options *options)
{
    char program[4096];
    if (!options->beamline)
        return command_to_daemon(options, "doctor");
    program_path("isobard", program, sizeof program);
    execl(program, "isobard", "--doctor", "--beamline", options->beamline, "--db",
          options->db ? options->db : "night.db", options->is_json ? "--json" : NULL, (char *)NULL);
    fprintf(stderr, "isobar: isobard cannot be started: %s\n", strerror(errno));
    return 2;
}

static int command_replay(const struct options *options)
{
    struct replay_report report;
    struct err err = {0};
    if (replay_run(options->db ? options->db : "night.db", &report, &err))
        return fail(&err);
    printf("replay: %" PRId64 " events in %" PRId64 " passes, %" PRId64 " decisions, all the same\n", report.n_events,
           report.n_passes, report.n_decisions);
    return 0;
}

static int command_cell(const struct options *options)
{
    static struct cell_passport passport;
    struct err err = {0};
    if (options->import && (options->export || options->db))
        return usage();
    int code = options->import ? passport_read_file(&passport, options->import, &err)
                               : passport_read_db(&passport, options->db ? options->db : "night.db", &err);
    if (code)
        return fail(&err);
    passport_print(&passport, utc_s_now(), stdout);
    if (!options->export)
        return 0;
    if (passport_write_file(&passport, options->export, &err))
        return fail(&err);
    printf("passport written: %s\n", options->export);
    return 0;
}

static int read_one_spectrum(const struct options *options, const struct ruby_scale *scale, const char *path,
                             struct err *err)
{
    static double wavelength_nm[SPECTRUM_MAX], counts[SPECTRUM_MAX];
    struct ruby_fit fit;
    int n, code = spectrum_file_read(path, options->laser_nm, wavelength_nm, counts, SPECTRUM_MAX, &n, err);
    if (code)
        return code;
    const struct ruby_camera camera = {INFINITY, options->fringe_max};
    if (ruby_fit_spectrum(wavelength_nm, counts, n, &camera, NULL, &fit, err))
        return err_prefix(err, "%s", path);
    struct ruby_ruler ruler = {scale, ruby_correction_by_name(options->correction ? options->correction : "datchi2007"),
                               options->lambda0_nm, options->temperature_k_zero};
    bool has_temperature = options->temperature_k > 0;
    double temperature_k = has_temperature ? options->temperature_k : options->temperature_k_zero;
    struct ruby_pressure pressure = ruby_ruler_derive(&ruler, fit.r1_nm, fit.r1_nm_sigma, temperature_k, 1);
    printf(
        "%s\n  R1 %.3f +- %.4f nm, R2 %.3f nm, splitting %.3f nm, FWHM(R1) %.2f nm\n"
        "  pressure %.3f +- %.3f GPa (line) +- %.3f GPa (1 K) on %s with lambda0 = %.3f nm at %g K, ruby at %g K%s\n",
        path, fit.r1_nm, fit.r1_nm_sigma, fit.r2_nm, fit.splitting_nm, fit.r1_nm_fwhm, pressure.gpa,
        pressure.gpa_sigma_fit, pressure.gpa_sigma_temperature, options->scale, options->lambda0_nm,
        options->temperature_k_zero, temperature_k, has_temperature ? "" : " supposed");
    char warning[300];
    ruby_warning_text(&fit, warning, sizeof warning);
    if (warning[0])
        printf("  warning: %s\n", warning);
    return 0;
}

static int print_scales(void)
{
    static const char *const GAUGES[RUBY_GAUGE_COUNT] = {"ruby R1", "Sm:SrB4O7", "diamond edge, cm-1"};
    const struct ruby_scale *scale;
    const struct ruby_correction *correction;
    puts("scales: x = l/l0 - 1, pressures in GPa, wavelengths l in nm");
    for (int i = 0; (scale = ruby_scale_at(i)); i++) {
        printf("  %s%s (%s)\n    %s, a %.6g, b %.6g", scale->name, i == 0 ? ", the default" : "", GAUGES[scale->gauge],
               ruby_form_text(scale->form), scale->a, scale->b);
        if (scale->form == RUBY_RATIO)
            printf(", c %.6g", scale->c);
        if (isfinite(scale->pressure_gpa_max))
            printf("; to %g GPa", scale->pressure_gpa_max);
        printf("%s%s\n    %s\n    %s\n", scale->medium[0] ? "; in " : "", scale->medium, scale->citation,
               scale->status);
    }
    puts("temperature corrections");
    for (int i = 0; (correction = ruby_correction_at(i)); i++)
        printf("  %s%s (%s), %g to %g K\n    %s\n    %s\n", correction->name, i == 0 ? ", the default" : "",
               GAUGES[correction->gauge], correction->temperature_k_min, correction->temperature_k_max,
               correction->citation, correction->status);
    return 0;
}

static int command_neon(const char *path)
{
    static double wavelength_nm[SPECTRUM_MAX], counts[SPECTRUM_MAX];
    struct neon_correction correction;
    struct err err = {0};
    int n;
    if (spectrum_file_read(path, 0, wavelength_nm, counts, SPECTRUM_MAX, &n, &err))
        return fail(&err);
    if (neon_calibrate(wavelength_nm, counts, n, &correction, &err)) {
        err_prefix(&err, "%s", path);
        return fail(&err);
    }
    printf("%s: %d neon lines\n     in air, nm      on axis    residual, nm\n", path, correction.n_lines);
    for (int i = 0; i < correction.n_lines; i++)
        printf("  %12.4f %12.4f %+12.4f\n", correction.lines[i].wavelength_nm, correction.lines[i].measured_nm,
               correction.lines[i].residual_nm);
    printf("the axis is %+.4f +- %.4f nm off at %.2f nm, stretched by %+.2e +- %.1e; residuals %.4f nm rms (limit %.2f "
           "each)\n"
           "into the beamline file: spectrometer { ..., wavelength_offset_nm = %.4f, wavelength_slope = %.3e }\n"
           "wavelengths of Saloman and Sansonetti, J. Phys. Chem. Ref. Data 33, 1113 (2004)\n",
           -correction.offset_nm, correction.offset_nm_sigma, NEON_AROUND_NM, -correction.slope, correction.slope_sigma,
           correction.residual_nm_rms, NEON_RESIDUAL_NM_MAX, correction.offset_nm, correction.slope);
    return 0;
}

static int command_rescale(const struct options *options)
{
    const char *db = options->db ? options->db : "night.db";
    struct rescale_request request = {.scale = options->rescale,
                                      .correction = options->correction,
                                      .lambda0_nm = options->has_lambda0 ? options->lambda0_nm : 0,
                                      .utc_ns = utc_s_now() * INT64_C(1000000000)};
    struct rescale_report report;
    struct err err = {0};
    if (rescale_run(db, &request, &report, &err))
        return fail(&err);
    printf("%s: %" PRId64 " pressures on %s, %+.3f to %+.3f GPa from those of the run, as derivation %" PRId64
           " in ruby_derived; the run's own are as they were\n",
           db, report.n_readings, report.scale, report.gpa_difference_min, report.gpa_difference_max, report.number);
    return 0;
}

static int command_ruby(const struct options *options, char **paths, int n_paths)
{
    struct err err = {0};
    int n_refused = 0;
    const struct ruby_scale *scale = ruby_scale_by_name(options->scale);
    if (!scale) {
        err_set(&err, ERR_ARG,
                "ruby scale '%s' is not known; ruby2020, mao1986 and others are: isobar ruby --scales lists them",
                options->scale);
        return fail(&err);
    }
    if (scale->gauge != RUBY_GAUGE_R1 || (options->correction && !ruby_correction_by_name(options->correction))) {
        err_set(&err, ERR_ARG,
                "%s with the correction %s: no scale of ruby, or no correction; isobar ruby --scales lists "
                "them",
                options->scale, options->correction ? options->correction : "datchi2007");
        return fail(&err);
    }
    for (int i = 0; i < n_paths; i++)
        if (read_one_spectrum(options, scale, paths[i], &err)) {
            fail(&err);
            n_refused++;
        }
    return n_refused ? 1 : 0;
}

static int parse_number(const char *name, const char *text, double min, double max, double *ret_value)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= min && value <= max)) {
        fprintf(stderr, "isobar: %s %s refused: a number from %g to %g\n", name, text, min, max);
        return 2;
    }
    *ret_value = value;
    return 0;
}

static int parse(int argc, char **argv, struct options *ret_options)
{
    static const struct option long_options[] = {{"beamline", required_argument, NULL, 'b'},
                                                 {"db", required_argument, NULL, 'd'},
                                                 {"results", required_argument, NULL, 'r'},
                                                 {"dir", required_argument, NULL, 'D'},
                                                 {"scale", required_argument, NULL, 's'},
                                                 {"lambda0", required_argument, NULL, 'l'},
                                                 {"export", required_argument, NULL, 'x'},
                                                 {"import", required_argument, NULL, 'i'},
                                                 {"json", no_argument, NULL, 'j'},
                                                 {"rescale", required_argument, NULL, 'R'},
                                                 {"correction", required_argument, NULL, 'C'},
                                                 {"laser-nm", required_argument, NULL, 'L'},
                                                 {"temperature", required_argument, NULL, 'T'},
                                                 {"temperature-zero", required_argument, NULL, 'Z'},
                                                 {"scales", no_argument, NULL, 'S'},
                                                 {"fringe-max", required_argument, NULL, 'F'},
                                                 {"neon", required_argument, NULL, 'N'},
                                                 {"cell", required_argument, NULL, 'c'},
                                                 {"ruby-access", required_argument, NULL, 'a'},
                                                 {"membrane", required_argument, NULL, 'm'},
                                                 {"spectrometer", required_argument, NULL, 'o'},
                                                 {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (option) {
        case 'b':
            ret_options->beamline = optarg;
            break;
        case 'd':
            ret_options->db = optarg;
            break;
        case 'r':
            ret_options->results = optarg;
            break;
        case 'D':
            ret_options->directory = optarg;
            break;
        case 's':
            ret_options->scale = optarg;
            break;
        case 'l':
            ret_options->lambda0_nm = strtod(optarg, NULL);
            ret_options->has_lambda0 = 1;
            if (!(ret_options->lambda0_nm > 600.0 && ret_options->lambda0_nm < 800.0)) {
                fprintf(stderr, "isobar: --lambda0 %s refused: a wavelength in nm, near 694.25\n", optarg);
                return 2;
            }
            break;
        case 'x':
            ret_options->export = optarg;
            break;
        case 'i':
            ret_options->import = optarg;
            break;
        case 'c':
            ret_options->cell = optarg;
            break;
        case 'a':
            ret_options->ruby_access = optarg;
            if (strcmp(optarg, "always") != 0 && strcmp(optarg, "between_scans") != 0) {
                fprintf(stderr, "isobar: --ruby-access %s refused: always or between_scans\n", optarg);
                return 2;
            }
            break;
        case 'L':
            if (parse_number("--laser-nm", optarg, 200, 1100, &ret_options->laser_nm))
                return 2;
            break;
        case 'T':
            if (parse_number("--temperature", optarg, 4, 900, &ret_options->temperature_k))
                return 2;
            break;
        case 'Z':
            if (parse_number("--temperature-zero", optarg, 4, 900, &ret_options->temperature_k_zero))
                return 2;
            break;
        case 'R':
            ret_options->rescale = optarg;
            break;
        case 'C':
            ret_options->correction = optarg;
            break;
        case 'F':
            if (parse_number("--fringe-max", optarg, 0, 0.2, &ret_options->fringe_max))
                return 2;
            break;
        case 'N':
            ret_options->neon = optarg;
            break;
        case 'S':
            ret_options->wants_scales = 1;
            break;
        case 'm':
            ret_options->membrane = optarg;
            if (strcmp(optarg, "bronkhorst") != 0 && strcmp(optarg, "alicat") != 0 && strcmp(optarg, "pace") != 0) {
                fprintf(stderr, "isobar: --membrane %s refused: bronkhorst, alicat or pace\n", optarg);
                return 2;
            }
            break;
        case 'o':
            ret_options->spectrometer = optarg;
            if (strcmp(optarg, "ocean") != 0 && strcmp(optarg, "epics") != 0) {
                fprintf(stderr, "isobar: --spectrometer %s refused: ocean or epics\n", optarg);
                return 2;
            }
            break;
        case 'j':
            ret_options->is_json = 1;
            break;
        default:
            return usage();
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct options options = {.scale = "ruby2020",
                              .lambda0_nm = 694.25,
                              .temperature_k_zero = 296,
                              .ruby_access = "always",
                              .membrane = "bronkhorst",
                              .spectrometer = "ocean"};
    int code = parse(argc, argv, &options);
    if (code)
        return code;
    if (optind >= argc)
        return usage();
    const char *command = argv[optind++];
    int n_left = argc - optind;
    if (strcmp(command, "check") == 0 && n_left == 1)
        return command_check(&options, argv[optind]);
    if (strcmp(command, "rehearse") == 0 && n_left == 1)
        return command_rehearse(&options, argv[optind]);
    if (strcmp(command, "run") == 0 && n_left == 1)
        return command_run(&options, argv[optind]);
    if (strcmp(command, "ruby") == 0 && n_left == 0 && options.wants_scales)
        return print_scales();
    if (strcmp(command, "ruby") == 0 && n_left == 0 && options.neon)
        return command_neon(options.neon);
    if (strcmp(command, "ruby") == 0 && n_left == 0 && options.rescale)
        return command_rescale(&options);
    if (strcmp(command, "ruby") == 0 && n_left >= 1)
        return command_ruby(&options, argv + optind, n_left);
    if (strcmp(command, "cell") == 0 && n_left == 0)
        return command_cell(&options);
    if (strcmp(command, "replay") == 0 && n_left == 0)
        return command_replay(&options);
    if (strcmp(command, "doctor") == 0 && n_left == 0)
        return command_doctor(&options);
    static const char *const daemon_commands[] = {"status", "hold", "resume", "stop"};
    for (size_t i = 0; i < sizeof daemon_commands / sizeof daemon_commands[0]; i++)
        if (strcmp(command, daemon_commands[i]) == 0 && n_left == 0)
            return command_to_daemon(&options, command);
    return usage();
}
