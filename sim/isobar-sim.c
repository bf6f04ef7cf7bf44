/*
 * isobar-sim: the simulated beamline on the real wires, and the hands of the person who stands at it.
 *
 * beamline --dir DIR --seed N [--ruby-access always|between_scans]: everything: the world in this process, one child
 * per wire, and DIR/beamline.lua, which takes the spectrometer on its own wire (--spectrometer ocean) or that of the
 * IOC (epics). With between_scans the ruby's optics stand in the X-ray beam when they are in;
 * otherwise beside it, and in place all night. The stand's records are served either way.
 *
 * world --dir DIR --seed N: the world only: clock, physics, truth.
 *
 * membrane, spectrometer or ioc --dir DIR --port N: one wire, of the world in DIR. The membrane controller is an
 * EL-PRESS (--membrane bronkhorst), an Alicat (alicat) or a PACE5000 (pace); `beamline` takes --membrane, too. Instead
 * of the port, --line PATH makes a membrane controller or a spectrometer a serial line at PATH.
 *
 * fault --dir DIR [membrane, spectrometer or thermometer] none, off, stuck, garbage, wrong, slow, delayed or
 * intermittent: what is wrong with the membrane controller (or that) of the running world in DIR from now on
 * (sim/wire.h, sim/spectrograph.h, sim/ruby_stand.h).
 *
 * beamline --cell open: the cell is open and its ruby free, and beamline.lua states a lambda0 that is off by up to
 * 0.012 nm, drawn from the seed: that of another day, and says so (lambda0_nm_sigma).
 *
 * beamline --detector WIDTHxHEIGHT --photons X: of the detector, 256x256 pixels, and of the light on it, 0.02 photons
 * per pixel and frame. --speed-max 1: in real time.
 *
 * hands --dir DIR deflate, preload, lock or unlock: a person at the bench of the running world in DIR. `lock` draws the
 * cell's screws so that they carry the load; `unlock` loosens them; `preload` closes an open cell and screws it to 0.1
 * GPa; `deflate` locks the cell and then empties the membrane at the controller's front panel, in a person's time, and
 * ends when it is empty.
 *
 * A child that dies is started again after 3 s, as a service manager would. DIR/servers names the children. A wire ends
 * by itself when its world has ended.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "sim/glass.h"
#include "sim/ioc.h"
#include "sim/membrane_server.h"
#include "sim/pace_server.h"
#include "sim/plant.h"
#include "sim/ruby_stand.h"
#include "sim/spectrometer_server.h"
#include "sim/spectrum.h"
#include "sim/world.h"

#define STEP_NS (NS_PER_S / 2)
#define WORLD_LOST_NS (15 * NS_PER_S) /* of wall time without a keeper: a disk that stalls holds it up for less */
#define TRUTH_EVERY_STEPS 20
#define PRESSURE_GPA_PRELOADED 0.1
#define SPEED_MAX 2000.0
#define RESTART_NS (3 * NS_PER_S)
#define FAULT_MS 1300 /* more than any driver waits */
#define LINE_BAUD 19200
#define PREFIX "ISB:cam1:"
#define RING_PV "ISB:RING:Current"
#define RUBY_PREFIX "ISB:RUBY:"
#define SPECTRUM_PREFIX "ISB:SPEC:"
#define TEMPERATURE_PV "ISB:CELL:Temperature"

enum wire { WIRE_MEMBRANE, WIRE_SPECTROMETER, WIRE_IOC, WIRE_COUNT };

static const char *const wire_names[WIRE_COUNT] = {"membrane", "spectrometer", "ioc"};

struct options {
    const char *directory;
    uint64_t seed;
    int port;
    double speed_max;
    const char *membrane;     /* model of the membrane controller, as the beamline file calls its driver */
    const char *spectrometer; /* "ocean": on a wire of its own; "epics": two waveforms of the IOC */
    const char *line;         /* serial line of the instrument; NULL: TCP */
    bool is_open;             /* the cell: nothing presses on the ruby */
    const char *ruby_access;  /* "always": the ruby's optics stand beside the beam; "between_scans": in it */
    int width, height;        /* of the detector, pixels */
    double photons_per_pixel; /* mean per frame */
};

struct server {
    pid_t pid;
    int port;
    int64_t died_wall_ns;
};

static volatile sig_atomic_t is_ended;

static void end(int signal_number)
{
    (void)signal_number;
    is_ended = 1;
}

static int fail(const struct err *err)
{
    fprintf(stderr, "isobar-sim: %s\n", err->message);
    return 1;
}

/* ---- the world ----------------------------------------------------------------------------------------------- */

struct physics {
    struct plant plant;
    double pressure_gpa_peak;
    double theta;
    int64_t t_ns;
    int64_t n_steps;
};

static void write_truth(struct world *world, const struct physics *physics, const struct world_state *state)
{
    char line[256];
    snprintf(line, sizeof line,
             "{\"kind\":\"cell\",\"t_ns\":%lld,\"wall_s\":%.3f,\"pressure_gpa\":%.5f,\"membrane_bar\":%.3f,"
             "\"temperature_k\":%.3f,\"is_locked\":%d,\"ruby_optics\":%.3f,\"ruby_laser\":%.3f}",
             (long long)physics->t_ns, s_from_ns(clock_wall_ns()), state->pressure_gpa, state->membrane_bar,
             state->temperature_k, state->is_locked, state->ruby.optics, state->ruby.laser);
    world_write_truth(world, line);
}

static void step_physics(struct world *world, struct physics *physics)
{
    struct world_state state;
    world_read(world, &state);
    const struct plant_input input = {.membrane_bar_setpoint = state.membrane_bar_setpoint,
                                      .slew_bar_per_s = state.slew_bar_per_s,
                                      .output_on = state.output_on,
                                      .is_locked = state.is_locked};
    plant_step(&physics->plant, s_from_ns(STEP_NS), &input);
    physics->plant.load_bar = fmax(physics->plant.load_bar, state.screwed_gpa / physics->plant.law.gpa_per_bar);
    bool is_open = physics->plant.load_bar <= 0.0; /* no slip and no expansion where nothing is pressed */
    double pressure_gpa = is_open ? 0.0 : plant_pressure_gpa(&physics->plant);
    if (pressure_gpa > physics->pressure_gpa_peak)
        physics->pressure_gpa_peak = pressure_gpa;
    physics->theta += s_from_ns(STEP_NS) / glass_tau_s(pressure_gpa, physics->pressure_gpa_peak);
    physics->t_ns += STEP_NS;
    state.t_ns = physics->t_ns;
    state.pressure_gpa = pressure_gpa;
    state.temperature_k = physics->plant.temperature_k;
    state.membrane_bar = plant_membrane_bar(&physics->plant);
    state.supply_bar = 180.0;
    /* Top-up every ten minutes; between, the stored current decays with a lifetime of 20 h. */
    state.ring_current_ma = 200.0 * exp(-fmod(physics->plant.elapsed_s, 600.0) / 72000.0);
    ruby_stand_move(&state.ruby, s_from_ns(STEP_NS));
    const struct world_sample sample = {.pressure_gpa = pressure_gpa,
                                        .temperature_k = state.temperature_k,
                                        .theta = physics->theta,
                                        .beta = glass_beta(pressure_gpa),
                                        .shadow = state.ruby.is_on_axis ? state.ruby.optics : 0.0,
                                        .laser = state.ruby.is_on_axis ? state.ruby.laser : 0.0};
    world_append(world, &state, &sample);
    if (physics->n_steps++ % TRUTH_EVERY_STEPS == 0)
        write_truth(world, physics, &state);
}

static int world_begin(const struct options *options, struct clock **ret_clock, struct world **ret_world,
                       struct physics *ret_physics, struct err *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/clock", options->directory);
    struct timespec utc;
    clock_gettime(CLOCK_REALTIME, &utc);
    int code = clock_publish(ret_clock, path, utc.tv_sec * NS_PER_S, options->speed_max, err);
    if (code == 0)
        code = world_create(ret_world, options->directory, options->seed, err);
    if (code)
        return code;
    *ret_physics = (struct physics){.pressure_gpa_peak = PRESSURE_GPA_PRELOADED, .t_ns = clock_now_ns(*ret_clock)};
    plant_init(&ret_physics->plant, options->seed, options->is_open ? 0.0 : PRESSURE_GPA_PRELOADED);
    world_command_membrane(*ret_world, 0.0, 4.0 / 60.0, true);
    world_place_ruby(*ret_world, strcmp(options->ruby_access, "between_scans") == 0);
    char ruby[64];
    snprintf(ruby, sizeof ruby, "{\"kind\":\"ruby\",\"lambda0_nm\":%.5f}", spectrum_r1_nm(0.0, 296.0));
    world_write_truth(*ret_world, ruby);
    step_physics(*ret_world, ret_physics);
    return 0;
}

static void world_advance(struct clock *clock, struct world *world, struct physics *physics)
{
    clock_keep(clock);
    int64_t now_ns = clock_now_ns(clock);
    while (physics->t_ns < now_ns)
        step_physics(world, physics);
    const struct timespec pause = {.tv_nsec = 1000000};
    nanosleep(&pause, NULL);
}

static int run_world(const struct options *options)
{
    struct err err = {0};
    struct clock *clock;
    struct world *world;
    struct physics physics;
    if (world_begin(options, &clock, &world, &physics, &err))
        return fail(&err);
    puts("ready");
    fflush(stdout);
    while (!is_ended)
        world_advance(clock, world, &physics);
    world_close(world);
    clock_close(clock);
    return 0;
}

/* ---- the wires ----------------------------------------------------------------------------------------------- */

struct watch {
    const struct clock *clock;
    pthread_t thread; /* that serves */
};

/* An instrument whose world has ended has nothing to show. It ends as if it were told to, whoever started it. */
static void *watch_world(void *context)
{
    const struct watch *watch = context;
    int64_t alive_wall_ns = clock_wall_ns();
    while (clock_wall_ns() - alive_wall_ns < WORLD_LOST_NS) {
        if (clock_is_alive(watch->clock))
            alive_wall_ns = clock_wall_ns();
        nanosleep(&(struct timespec){.tv_nsec = 200 * NS_PER_MS}, NULL);
    }
    fputs("isobar-sim: the simulated world has ended, and this instrument with it\n", stderr);
    pthread_kill(watch->thread, SIGTERM);
    return NULL;
}

static void start_watch(const struct clock *clock)
{
    static struct watch watch;
    pthread_t thread;
    sigset_t all, before;
    watch = (struct watch){.clock = clock, .thread = pthread_self()};
    sigfillset(&all); /* the signals are for the thread that serves */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_create(&thread, NULL, watch_world, &watch);
    pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static int run_wire(enum wire wire, const struct options *options)
{
    struct err err = {0};
    struct clock *clock;
    struct world *world;
    char path[4096], address[128];
    snprintf(path, sizeof path, "%s/clock", options->directory);
    if (options->line)
        snprintf(address, sizeof address, "serial:%s:%d", options->line, LINE_BAUD);
    else
        snprintf(address, sizeof address, "tcp:127.0.0.1:%d", options->port);
    int code = clock_open_shared(&clock, path, &err);
    if (code == 0)
        code = world_open(&world, options->directory, &err);
    if (code)
        return fail(&err);
    start_watch(clock);
    struct ioc_settings settings;
    switch (wire) {
    case WIRE_MEMBRANE:
        code = strcmp(options->membrane, "pace") == 0 ? pace_server_run(world, address, &err)
                                                      : membrane_server_run(world, options->membrane, address, &err);
        break;
    case WIRE_SPECTROMETER:
        code = spectrometer_server_run(world, clock, address, OCEAN_BAUD_USB2000, &err);
        break;
    case WIRE_IOC:
        ioc_settings_default(&settings);
        settings.port = options->port;
        settings.width = options->width;
        settings.height = options->height;
        settings.photons_per_pixel = options->photons_per_pixel;
        snprintf(settings.prefix, sizeof settings.prefix, "%s", PREFIX);
        snprintf(settings.ring_pv, sizeof settings.ring_pv, "%s", RING_PV);
        snprintf(settings.ruby_prefix, sizeof settings.ruby_prefix, "%s", RUBY_PREFIX);
        snprintf(settings.spectrum_prefix, sizeof settings.spectrum_prefix, "%s", SPECTRUM_PREFIX);
        snprintf(settings.temperature_pv, sizeof settings.temperature_pv, "%s", TEMPERATURE_PV);
        code = ioc_run(world, clock, &settings, &err);
        break;
    case WIRE_COUNT:
        break;
    }
    world_close(world); /* the clock stays for the thread that watches it */
    return code ? fail(&err) : 0;
}

static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        fprintf(stderr, "isobar-sim: no free port on loopback: %s\n", strerror(errno));
        exit(1);
    }
    close(fd);
    return ntohs(address.sin_port);
}

static void start_server(const struct options *options, enum wire wire, struct server *server)
{
    server->died_wall_ns = 0;
    server->pid = fork();
    if (server->pid != 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    char port[16], detector[32], photons[32];
    snprintf(port, sizeof port, "%d", server->port);
    snprintf(detector, sizeof detector, "%dx%d", options->width, options->height);
    snprintf(photons, sizeof photons, "%g", options->photons_per_pixel);
    execl("/proc/self/exe", "isobar-sim", wire_names[wire], "--dir", options->directory, "--port", port, "--membrane",
          options->membrane, "--detector", detector, "--photons", photons, (char *)NULL);
    _exit(127);
}

static void write_servers(const struct options *options, const struct server *servers)
{
    char path[4096], temporary[4096 + 8];
    snprintf(path, sizeof path, "%s/servers", options->directory);
    snprintf(temporary, sizeof temporary, "%s.part", path);
    FILE *stream = fopen(temporary, "w");
    if (!stream)
        return;
    for (int i = 0; i < WIRE_COUNT; i++)
        fprintf(stream, "%s %d %d\n", wire_names[i], (int)servers[i].pid, servers[i].port);
    fclose(stream);
    rename(temporary, path);
}

#define STATED_NM_MAX 0.012
#define STATED_NM_SIGMA 0.007 /* of as much to either side */

/* What a person has written down of the ruby: the truth, or, before a calibration, nearly. */
static double stated_lambda0_nm(const struct options *options)
{
    struct random random = {.state = options->seed ^ UINT64_C(0x6c616d626461)};
    return spectrum_r1_nm(0.0, 296.0) + (options->is_open ? STATED_NM_MAX * (2 * random_uniform(&random) - 1) : 0.0);
}

static int write_beamline(const struct options *options, const struct server *servers, struct err *err)
{
    static const char access_keys[] =
        ",\n"
        "       ruby_access = \"between_scans\", settle_s = 5,\n"
        "       optics_pv = \"" RUBY_PREFIX "Optics\", optics_readback_pv = \"" RUBY_PREFIX "OpticsReadback\",\n"
        "       laser_pv = \"" RUBY_PREFIX "Laser\", laser_readback_pv = \"" RUBY_PREFIX "LaserReadback\"";
    static const char epics_keys[] =
        "driver = \"epics-waveforms\", exposure = \"0.5 s\", counts_saturation = 65535,\n"
        "               wavelength_pv = \"" SPECTRUM_PREFIX "Wavelength\", counts_pv = \"" SPECTRUM_PREFIX "Counts\",\n"
        "               exposure_pv = \"" SPECTRUM_PREFIX "AcquireTime\", acquire_pv = \"" SPECTRUM_PREFIX
        "Acquire\",\n"
        "               busy_pv = \"" SPECTRUM_PREFIX "Busy\"";
    char path[4096], spectrometer[512];
    snprintf(spectrometer, sizeof spectrometer,
             "driver = \"ocean-optics\", address = \"tcp:127.0.0.1:%d\", exposure = \"0.5 s\"",
             servers[WIRE_SPECTROMETER].port);
    snprintf(path, sizeof path, "%s/beamline.lua", options->directory);
    FILE *stream = fopen(path, "w");
    if (!stream)
        return err_set(err, ERR_IO, "%s cannot be written: %s", path, strerror(errno));
    fprintf(stream,
            "-- Written by isobar-sim: the simulated beamline of this rehearsal.\n"
            "beamline { name = \"rehearsal\", clock = \"%s/clock\", ca_address = \"127.0.0.1:%d\" }\n"
            "membrane { driver = \"%s\", address = \"tcp:127.0.0.1:%d\",%s\n"
            "           membrane_bar_max = 150, slew_bar_per_min_max = 8 }\n"
            "spectrometer { %s }\n"
            "ruby { scale = \"ruby2020\", lambda0_nm = %.4f, lambda0_nm_sigma = %g,\n"
            "       temperature_k_zero = 296, temperature_k = 296,\n"
            "       temperature_pv = \"" TEMPERATURE_PV "\", temperature_k_sigma = 0.3%s }\n"
            "detector { driver = \"adeiger\", prefix = \"%s\", file_path = \"%s/raw\", photon_energy = \"20.95 keV\",\n"
            "           distance = \"5 m\", beam_center_x_px = 128, beam_center_y_px = -2200 }\n"
            "ring { current_pv = \"%s\", current_ma_min = 20 }\n",
            options->directory, servers[WIRE_IOC].port, options->membrane, servers[WIRE_MEMBRANE].port,
            strcmp(options->membrane, "alicat") == 0 ? " full_scale_bar = 200, watchdog = \"off\"," : "",
            strcmp(options->spectrometer, "epics") == 0 ? epics_keys : spectrometer, stated_lambda0_nm(options),
            options->is_open ? STATED_NM_SIGMA : 0.0,
            strcmp(options->ruby_access, "between_scans") == 0 ? access_keys : "", PREFIX, options->directory, RING_PV);
    return fclose(stream) == 0 ? 0 : err_set(err, ERR_IO, "%s cannot be written: %s", path, strerror(errno));
}

static void tend_servers(const struct options *options, struct server *servers)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (int i = 0; i < WIRE_COUNT; i++)
            if (servers[i].pid == pid) {
                fprintf(stderr, "isobar-sim: the %s server has ended (%s %d); it starts again in 3 s\n", wire_names[i],
                        WIFSIGNALED(status) ? "signal" : "status",
                        WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
                servers[i].died_wall_ns = clock_wall_ns();
            }
    for (int i = 0; i < WIRE_COUNT; i++)
        if (servers[i].died_wall_ns != 0 && clock_wall_ns() - servers[i].died_wall_ns > RESTART_NS) {
            start_server(options, (enum wire)i, &servers[i]);
            write_servers(options, servers);
        }
}

static int run_beamline(const struct options *options)
{
    struct err err = {0};
    struct clock *clock;
    struct world *world;
    struct physics physics;
    struct server servers[WIRE_COUNT] = {0};
    for (int i = 0; i < WIRE_COUNT; i++)
        servers[i].port = free_port();
    if (world_begin(options, &clock, &world, &physics, &err) || write_beamline(options, servers, &err))
        return fail(&err);
    for (int i = 0; i < WIRE_COUNT; i++)
        start_server(options, (enum wire)i, &servers[i]);
    write_servers(options, servers);
    puts("ready");
    fflush(stdout);
    while (!is_ended) {
        world_advance(clock, world, &physics);
        tend_servers(options, servers);
    }
    for (int i = 0; i < WIRE_COUNT; i++)
        kill(servers[i].pid, SIGTERM);
    while (wait(NULL) > 0 || errno == EINTR)
        continue;
    world_close(world);
    clock_close(clock);
    return 0;
}

/* ---- the hands ----------------------------------------------------------------------------------------------- */

/* A person draws four screws in turn, a little each, in a few minutes; then turns the set point down by a bar at a time
 * and watches the cell. */
#define SCREWS_S 180.0
#define TURN_BAR 1.0
#define TURN_S 6.0
#define EMPTY_BAR 0.2
#define HANDS_S_MAX 7200.0

/* In experiment time. False when the world has no keeper any more, or when this process is asked to end. */
static bool hands_wait(struct clock *clock, double wait_s)
{
    int64_t until_ns = clock_now_ns(clock) + ns_from_s(wait_s);
    while (clock_now_ns(clock) < until_ns && clock_is_alive(clock) && !is_ended)
        clock_sleep_until(clock, until_ns, 100);
    return clock_is_alive(clock) && !is_ended;
}

static int hands_deflate(struct clock *clock, struct world *world, struct err *err)
{
    struct world_state state;
    int64_t end_ns = clock_now_ns(clock) + ns_from_s(HANDS_S_MAX);
    bool is_alive = hands_wait(clock, SCREWS_S);
    if (is_alive)
        world_lock_cell(world, true);
    world_read(world, &state);
    for (double setpoint_bar = state.membrane_bar; is_alive; is_alive = hands_wait(clock, TURN_S)) {
        setpoint_bar = fmax(0.0, setpoint_bar - TURN_BAR);
        world_turn_setpoint(world, setpoint_bar);
        world_read(world, &state);
        if (state.membrane_bar < EMPTY_BAR)
            return 0;
        if (clock_now_ns(clock) > end_ns)
            return err_set(err, ERR_TIMEOUT, "the membrane still holds %.1f bar after %.0f s", state.membrane_bar,
                           HANDS_S_MAX);
    }
    return err_set(err, ERR_STATE, "the simulated world in which the hands worked has ended");
}

/* Closes the cell and turns its screws a little at a time. */
static int hands_preload(struct clock *clock, struct world *world, struct err *err)
{
    enum { TURNS = 10 };
    for (int i = 1; i <= TURNS; i++) {
        if (!hands_wait(clock, SCREWS_S / TURNS))
            return err_set(err, ERR_STATE, "the simulated world in which the hands worked has ended");
        world_screw_cell(world, PRESSURE_GPA_PRELOADED * i / TURNS);
    }
    return 0;
}

static int run_hands(const struct options *options, const char *deed)
{
    struct err err = {0};
    struct clock *clock;
    struct world *world;
    char path[4096];
    snprintf(path, sizeof path, "%s/clock", options->directory);
    int code = clock_open_shared(&clock, path, &err);
    if (code)
        return fail(&err);
    code = world_open(&world, options->directory, &err);
    if (code) {
        clock_close(clock);
        return fail(&err);
    }
    if (strcmp(deed, "deflate") == 0)
        code = hands_deflate(clock, world, &err);
    else if (strcmp(deed, "preload") == 0)
        code = hands_preload(clock, world, &err);
    else
        world_lock_cell(world, strcmp(deed, "lock") == 0);
    world_close(world);
    clock_close(clock);
    return code ? fail(&err) : 0;
}

/* ---- main ---------------------------------------------------------------------------------------------------- */

/* Sets what is wrong from now on. */
static int run_fault(const struct options *options, const char *component_name, const char *name)
{
    static const char *const components[WORLD_COMPONENT_COUNT] = {"membrane", "spectrometer", "thermometer"};
    struct err err = {0};
    struct world *world;
    enum world_fault fault;
    int component = 0;
    while (component < WORLD_COMPONENT_COUNT && strcmp(components[component], component_name) != 0)
        component++;
    if (component == WORLD_COMPONENT_COUNT || !world_find_fault(name, &fault)) {
        fprintf(stderr, "isobar-sim: unknown fault \"%s\" of \"%s\"\n", name, component_name);
        return 2;
    }
    if (world_open(&world, options->directory, &err))
        return fail(&err);
    world_set_fault(world, (enum world_component)component, fault, FAULT_MS, 1.0);
    world_close(world);
    return 0;
}

static int usage(void)
{
    fputs("usage: isobar-sim beamline|world --dir DIR [--seed N] [--speed-max X]\n"
          "                  [--cell closed|open] [--ruby-access always|between_scans]\n"
          "                  [--membrane bronkhorst|alicat|pace] [--spectrometer ocean|epics]\n"
          "                  [--detector WIDTHxHEIGHT] [--photons PER_PIXEL_AND_FRAME]\n"
          "       isobar-sim membrane|spectrometer|ioc --dir DIR --port N|--line PATH\n"
          "       isobar-sim fault --dir DIR [membrane|spectrometer|thermometer]\n"
          "                  none|off|stuck|garbage|wrong|slow|delayed|intermittent\n"
          "       isobar-sim hands --dir DIR deflate|preload|lock|unlock\n",
          stderr);
    return 2;
}

static bool is_model(const char *name)
{
    return strcmp(name, "bronkhorst") == 0 || strcmp(name, "alicat") == 0 || strcmp(name, "pace") == 0;
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"dir", required_argument, NULL, 'd'},         {"seed", required_argument, NULL, 's'},
        {"port", required_argument, NULL, 'p'},        {"speed-max", required_argument, NULL, 'x'},
        {"ruby-access", required_argument, NULL, 'r'}, {"membrane", required_argument, NULL, 'm'},
        {"line", required_argument, NULL, 'l'},        {"spectrometer", required_argument, NULL, 'o'},
        {"cell", required_argument, NULL, 'c'},        {"detector", required_argument, NULL, 'g'},
        {"photons", required_argument, NULL, 'n'},     {0}};
    struct options options = {.seed = 1,
                              .speed_max = SPEED_MAX,
                              .ruby_access = "always",
                              .membrane = "bronkhorst",
                              .spectrometer = "ocean",
                              .width = 256,
                              .height = 256,
                              .photons_per_pixel = 0.02};
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == 'd')
            options.directory = optarg;
        else if (option == 's')
            options.seed = strtoull(optarg, NULL, 10);
        else if (option == 'p')
            options.port = (int)strtol(optarg, NULL, 10);
        else if (option == 'l')
            options.line = optarg;
        else if (option == 'm' && is_model(optarg))
            options.membrane = optarg;
        else if (option == 'o' && (strcmp(optarg, "ocean") == 0 || strcmp(optarg, "epics") == 0))
            options.spectrometer = optarg;
        else if (option == 'c' && (strcmp(optarg, "open") == 0 || strcmp(optarg, "closed") == 0))
            options.is_open = strcmp(optarg, "open") == 0;
        else if (option == 'x')
            options.speed_max = strtod(optarg, NULL);
        else if (option == 'g' && sscanf(optarg, "%dx%d", &options.width, &options.height) == 2)
            continue; /* the detector judges */
        else if (option == 'n')
            options.photons_per_pixel = strtod(optarg, NULL);
        else if (option == 'r' && (strcmp(optarg, "always") == 0 || strcmp(optarg, "between_scans") == 0))
            options.ruby_access = optarg;
        else
            return usage();
    }
    if (optind >= argc || !options.directory)
        return usage();
    const char *part = argv[optind++];
    bool is_hands = strcmp(part, "hands") == 0, is_fault = strcmp(part, "fault") == 0;
    int n_words = is_hands ? 1 : is_fault ? 1 + (argc - optind == 2) : 0;
    if (optind + n_words != argc)
        return usage();
    const struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    if (is_fault)
        return run_fault(&options, n_words == 2 ? argv[optind] : "membrane", argv[argc - 1]);
    static const char *const deeds[] = {"deflate", "preload", "lock", "unlock"};
    for (int i = 0; i < 4 && is_hands; i++)
        if (strcmp(argv[optind], deeds[i]) == 0)
            return run_hands(&options, deeds[i]);
    if (strcmp(part, "beamline") == 0)
        return run_beamline(&options);
    if (strcmp(part, "world") == 0)
        return run_world(&options);
    for (int i = 0; i < WIRE_COUNT; i++)
        if (strcmp(part, wire_names[i]) == 0)
            return run_wire((enum wire)i, &options);
    return usage();
}
