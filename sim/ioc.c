#include "sim/ioc.h"

#include <arpa/inet.h>
#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <aiRecord.h>
#include <alarm.h>
#include <aoRecord.h>
#include <biRecord.h>
#include <boRecord.h>
#include <callback.h>
#include <dbAccess.h>
#include <dbEvent.h>
#include <dbScan.h>
#include <dbStaticLib.h>
#include <devSup.h>
#include <epicsExport.h>
#include <epicsMessageQueue.h>
#include <iocInit.h>
#include <iocshRegisterCommon.h>
#include <longinRecord.h>
#include <longoutRecord.h>
#include <mbbiRecord.h>
#include <mbboRecord.h>
#include <recGbl.h>
#include <recSup.h>
#include <registryCommon.h>
#include <stringinRecord.h>
#include <waveformRecord.h>

#include "sim/detector.h"
#include "sim/ruby_stand.h"
#include "sim/spectrograph.h"

#define JOBS_MAX 64
#define DATABASE_BYTES 65536

/* What stands between a record and its parameter. */
struct binding {
    dbCommon *record;
    enum parameter parameter;
    epicsCallback complete; /* finishes an asynchronous write */
    epicsCallback follow;   /* processes an output after the detector changed its parameter */
    bool is_following;      /* the record is being processed to take over the parameter's value */
    bool is_refused;        /* the detector refused the write */
    int (*differs)(struct binding *binding);
};

struct job {
    struct binding *binding; /* NULL ends the port thread */
    double number;
    char text[PARAMETER_TEXT_MAX];
};

extern struct typed_rset boRSET; /* in the library of record types */

/* EPICS base hands no context to device support: this is the process's one IOC. */
static struct {
    struct parameter_table *table;
    struct detector *detector;
    struct ruby_stand *ruby_stand;
    struct spectrograph *spectrograph;
    epicsMessageQueueId jobs;
    IOSCANPVT scans[PARAMETER_COUNT];
    struct binding *outputs[PARAMETER_COUNT]; /* those that follow their parameter */
    atomic_bool is_running;
} ioc;

/* ---- binding records to parameters --------------------------------------------------------------------------- */

static struct binding *binding_make(dbCommon *record, const DBLINK *link)
{
    struct binding *binding = calloc(1, sizeof *binding);
    assert(binding && link->type == INST_IO);
    binding->record = record;
    binding->parameter = (enum parameter)strtoul(link->value.instio.string, NULL, 10); /* of write_record */
    assert(binding->parameter < PARAMETER_COUNT);
    record->dpvt = binding;
    record->udf = FALSE;
    return binding;
}

static long get_scan(int detach, dbCommon *record, IOSCANPVT *ret_scan)
{
    (void)detach;
    struct binding *binding = record->dpvt;
    *ret_scan = ioc.scans[binding->parameter];
    return 0;
}

static double bound_number(const dbCommon *record)
{
    const struct binding *binding = record->dpvt;
    return parameter_number(ioc.table, binding->parameter);
}

/* First pass of an output: hands the value to the port thread and leaves the record active. */
static void queue_write(dbCommon *record, double number, const char *text, size_t n_text)
{
    struct binding *binding = record->dpvt;
    struct job job = {.binding = binding, .number = number};
    if (text)
        memcpy(job.text, text, n_text < sizeof job.text ? n_text : sizeof job.text - 1);
    record->pact = TRUE;
    if (epicsMessageQueueTrySend(ioc.jobs, &job, sizeof job) != 0) {
        record->pact = FALSE;
        recGblSetSevr(record, WRITE_ALARM, INVALID_ALARM);
    }
}

/* Second pass: the write is done. */
static void finish_write(dbCommon *record)
{
    struct binding *binding = record->dpvt;
    if (binding->is_refused)
        recGblSetSevr(record, WRITE_ALARM, INVALID_ALARM);
    binding->is_refused = false;
    if (binding->differs)
        callbackRequest(&binding->follow); /* the detector may have changed the value while the record was active */
}

static void follow_parameter(epicsCallback *callback)
{
    void *user;
    callbackGetUser(user, callback);
    struct binding *binding = user;
    dbScanLock(binding->record);
    if (!binding->record->pact && binding->differs(binding)) {
        binding->is_following = true;
        dbProcess(binding->record);
        binding->is_following = false;
    }
    dbScanUnlock(binding->record);
}

static struct binding *binding_make_output(dbCommon *record, const DBLINK *link, int (*differs)(struct binding *))
{
    struct binding *binding = binding_make(record, link);
    if (parameter_laws[binding->parameter].access == PARAMETER_READBACK) {
        binding->differs = differs;
        callbackSetCallback(follow_parameter, &binding->follow);
        callbackSetPriority(priorityMedium, &binding->follow);
        callbackSetUser(binding, &binding->follow);
        ioc.outputs[binding->parameter] = binding;
    }
    return binding;
}

/* ---- device support: inputs ---------------------------------------------------------------------------------- */

/* One set per record type: `init` binds, `transfer` moves the value; EPICS finds the sets by name. */
#define DEVICE_SUPPORT(set_type, name, init, transfer)                                                                 \
    static set_type name = {.common = {.number = 6, .init_record = init, .get_ioint_info = get_scan}, transfer};       \
    epicsExportAddress(dset, name)

#define INPUT_INIT(record_type)                                                                                        \
    static long init_##record_type(dbCommon *record)                                                                   \
    {                                                                                                                  \
        binding_make(record, &((record_type##Record *)record)->inp);                                                   \
        return 0;                                                                                                      \
    }

static long read_ai(aiRecord *record)
{
    double number = bound_number((dbCommon *)record);
    if (isnan(number)) /* the instrument behind it does not know */
        recGblSetSevr(record, READ_ALARM, INVALID_ALARM);
    else
        record->val = number;
    record->udf = FALSE;
    return 2; /* no conversion */
}

static long read_longin(longinRecord *record)
{
    record->val = (epicsInt32)bound_number((dbCommon *)record);
    return 0;
}

static long read_bi(biRecord *record)
{
    record->val = bound_number((dbCommon *)record) > 0;
    record->udf = FALSE;
    return 2;
}

static long read_mbbi(mbbiRecord *record)
{
    record->val = (epicsEnum16)bound_number((dbCommon *)record);
    record->udf = FALSE;
    return 2;
}

static long read_stringin(stringinRecord *record)
{
    char text[PARAMETER_TEXT_MAX];
    parameter_text(ioc.table, ((struct binding *)record->dpvt)->parameter, text);
    snprintf(record->val, sizeof record->val, "%.39s", text);
    record->udf = FALSE;
    return 0;
}

static long read_waveform(waveformRecord *record)
{
    char text[PARAMETER_TEXT_MAX];
    parameter_text(ioc.table, ((struct binding *)record->dpvt)->parameter, text);
    snprintf(record->bptr, record->nelm, "%s", text);
    record->nord = (epicsUInt32)strlen(record->bptr) + 1;
    return 0;
}

static long read_reals(waveformRecord *record)
{
    int n = spectrograph_read(ioc.spectrograph, ((struct binding *)record->dpvt)->parameter, record->bptr,
                              (int)record->nelm);
    if (n < 0)
        recGblSetSevr(record, READ_ALARM, INVALID_ALARM);
    else
        record->nord = (epicsUInt32)n;
    return 0;
}

INPUT_INIT(ai)
INPUT_INIT(longin)
INPUT_INIT(bi)
INPUT_INIT(mbbi)
INPUT_INIT(stringin)
INPUT_INIT(waveform)
DEVICE_SUPPORT(aidset, devEigerAi, init_ai, read_ai);
DEVICE_SUPPORT(longindset, devEigerLongin, init_longin, read_longin);
DEVICE_SUPPORT(bidset, devEigerBi, init_bi, read_bi);
DEVICE_SUPPORT(mbbidset, devEigerMbbi, init_mbbi, read_mbbi);
DEVICE_SUPPORT(stringindset, devEigerStringin, init_stringin, read_stringin);
DEVICE_SUPPORT(wfdset, devEigerTextIn, init_waveform, read_waveform);
DEVICE_SUPPORT(wfdset, devEigerReals, init_waveform, read_reals);

/* ---- device support: outputs --------------------------------------------------------------------------------- */

/* For output records of one number: the initial value, the two passes of a write, and following the detector. */
#define OUTPUT_SUPPORT(record_type, value_type, copy_field)                                                            \
    static int differs_##record_type(struct binding *binding)                                                          \
    {                                                                                                                  \
        return ((record_type##Record *)binding->record)->val != (value_type)bound_number(binding->record);             \
    }                                                                                                                  \
    static long init_##record_type(dbCommon *common)                                                                   \
    {                                                                                                                  \
        record_type##Record *record = (record_type##Record *)common;                                                   \
        binding_make_output(common, &record->out, differs_##record_type);                                              \
        record->val = (value_type)bound_number(common);                                                                \
        return 2; /* no conversion */                                                                                  \
    }                                                                                                                  \
    static long write_##record_type(record_type##Record *record)                                                       \
    {                                                                                                                  \
        dbCommon *common = (dbCommon *)record;                                                                         \
        if (record->pact)                                                                                              \
            finish_write(common);                                                                                      \
        else if (((struct binding *)record->dpvt)->is_following) {                                                     \
            record->val = (value_type)bound_number(common);                                                            \
            record->copy_field = record->val;                                                                          \
        } else                                                                                                         \
            queue_write(common, (double)record->val, NULL, 0);                                                         \
        return 0;                                                                                                      \
    }

OUTPUT_SUPPORT(bo, epicsEnum16, val)
OUTPUT_SUPPORT(mbbo, epicsEnum16, val)
OUTPUT_SUPPORT(longout, epicsInt32, val)
OUTPUT_SUPPORT(ao, double, oval)
DEVICE_SUPPORT(bodset, devEigerBo, init_bo, write_bo);
DEVICE_SUPPORT(mbbodset, devEigerMbbo, init_mbbo, write_mbbo);
DEVICE_SUPPORT(longoutdset, devEigerLongout, init_longout, write_longout);
DEVICE_SUPPORT(aodset, devEigerAo, init_ao, write_ao);

static long init_text_out(dbCommon *common)
{
    waveformRecord *record = (waveformRecord *)common;
    binding_make_output(common, &record->inp, NULL);
    return read_waveform(record);
}

static long write_text(waveformRecord *record)
{
    if (record->pact)
        finish_write((dbCommon *)record);
    else
        queue_write((dbCommon *)record, 0, record->bptr, record->nord);
    return 0;
}
DEVICE_SUPPORT(wfdset, devEigerTextOut, init_text_out, write_text);

/* AcquireBusy: 1 stays active until the detector's own busy flag falls; that is what a put-callback to Acquire awaits.
 */
static int differs_busy(struct binding *binding) { return binding->record->pact && bound_number(binding->record) < 1; }

static void end_busy(epicsCallback *callback)
{
    void *user;
    callbackGetUser(user, callback);
    struct binding *binding = user;
    dbScanLock(binding->record);
    if (differs_busy(binding))
        binding->record->rset->process(binding->record);
    dbScanUnlock(binding->record);
}

static long init_busy(dbCommon *common)
{
    struct binding *binding = binding_make(common, &((boRecord *)common)->out);
    callbackSetCallback(end_busy, &binding->follow);
    callbackSetPriority(priorityMedium, &binding->follow);
    callbackSetUser(binding, &binding->follow);
    ioc.outputs[binding->parameter] = binding;
    return 2;
}

static long write_busy(boRecord *record)
{
    dbCommon *common = (dbCommon *)record;
    if (!record->pact && record->val && bound_number(common) > 0) {
        record->pact = TRUE;
        recGblGetTimeStamp(record); /* clients see 1 now, not when it is over */
        record->mlst = record->val;
        db_post_events(record, &record->val, DBE_VALUE | DBE_LOG);
    } else {
        record->val = 0;
        record->rval = 0;
    }
    return 0;
}
DEVICE_SUPPORT(bodset, devEigerBusy, init_busy, write_busy);

/* ---- threads between records and detector -------------------------------------------------------------------- */

static void parameter_changed(void *context, enum parameter parameter)
{
    (void)context;
    if (!atomic_load(&ioc.is_running))
        return;
    if (parameter >= PARAMETER_SPECTRUM_WAVELENGTH && parameter <= PARAMETER_SPECTRUM_BUSY)
        scanIoImmediate(ioc.scans[parameter], priorityLow); /* in order: a busy flag that rises and falls must show */
    else
        scanIoRequest(ioc.scans[parameter]);
    if (ioc.outputs[parameter])
        callbackRequest(&ioc.outputs[parameter]->follow);
}

static void *port_main(void *context)
{
    (void)context;
    for (;;) {
        struct job job;
        epicsMessageQueueReceive(ioc.jobs, &job, sizeof job);
        if (!job.binding)
            return NULL;
        enum parameter parameter = job.binding->parameter;
        bool *is_refused = &job.binding->is_refused;
        *is_refused = false;
        if (!ruby_stand_write(ioc.ruby_stand, parameter, job.number) &&
            !spectrograph_write(ioc.spectrograph, parameter, job.number, is_refused))
            *is_refused = detector_write(ioc.detector, parameter, job.number, job.text) < 0;
        callbackRequestProcessCallback(&job.binding->complete, priorityMedium, job.binding->record);
    }
}

/* ---- the database -------------------------------------------------------------------------------------------- */

static const char device_definitions[] = "device(ai, INST_IO, devEigerAi, \"eiger\")\n"
                                         "device(ao, INST_IO, devEigerAo, \"eiger\")\n"
                                         "device(bi, INST_IO, devEigerBi, \"eiger\")\n"
                                         "device(bo, INST_IO, devEigerBo, \"eiger\")\n"
                                         "device(bo, INST_IO, devEigerBusy, \"eiger busy\")\n"
                                         "device(longin, INST_IO, devEigerLongin, \"eiger\")\n"
                                         "device(longout, INST_IO, devEigerLongout, \"eiger\")\n"
                                         "device(mbbi, INST_IO, devEigerMbbi, \"eiger\")\n"
                                         "device(mbbo, INST_IO, devEigerMbbo, \"eiger\")\n"
                                         "device(stringin, INST_IO, devEigerStringin, \"eiger\")\n"
                                         "device(waveform, INST_IO, devEigerTextIn, \"eiger\")\n"
                                         "device(waveform, INST_IO, devEigerTextOut, \"eiger write\")\n"
                                         "device(waveform, INST_IO, devEigerReals, \"eiger reals\")\n";

static void write_choices(FILE *db, enum parameter parameter, int n_choices)
{
    static const char *const two[] = {"Z", "O"};
    static const char *const many[] = {"ZR", "ON", "TW", "TH", "FR", "FV", "SX", "SV", "EI", "NI", "TE"};
    for (int i = 0; i < n_choices; i++) {
        char text[32], severity[16];
        parameter_choice(parameter, i, text, severity);
        fprintf(db, n_choices == 2 ? " field(%sNAM, \"%s\")" : " field(%sST, \"%s\")",
                n_choices == 2 ? two[i] : many[i], text);
        if (n_choices > 2)
            fprintf(db, " field(%sVL, \"%d\")", many[i], i);
        if (severity[0])
            fprintf(db, " field(%sSV, \"%s\")", n_choices == 2 ? two[i] : many[i], severity);
    }
}

/* One record; `more` is text for its body. */
static void write_record(FILE *db, enum parameter parameter, const char *name, bool is_output, const char *device,
                         const char *more)
{
    static const char *const types[PARAMETER_KIND_COUNT][2] = {{"ai", "ao"},
                                                               {"longin", "longout"},
                                                               {"mbbi", "mbbo"},
                                                               {"stringin", "stringout"},
                                                               {"waveform", "waveform"},
                                                               {"waveform", "waveform"}};
    const struct parameter_law *law = &parameter_laws[parameter];
    int n_choices = law->kind == PARAMETER_MENU ? parameter_choice_count(parameter) : 0;
    const char *type = n_choices == 2 ? (is_output ? "bo" : "bi") : types[law->kind][is_output];
    bool is_text = law->kind == PARAMETER_TEXT;
    fprintf(db, "record(%s, \"%s\") { field(DTYP, \"%s%s\") field(%s, \"@%d\")", type, name, device,
            is_output && is_text ? " write" : "", is_output && !is_text ? "OUT" : "INP", (int)parameter);
    if (!is_output)
        fprintf(db, " field(SCAN, \"I/O Intr\") field(PINI, \"YES\")");
    if (is_text)
        fprintf(db, " field(FTVL, \"CHAR\") field(NELM, \"%d\")", PARAMETER_TEXT_MAX);
    if (law->kind == PARAMETER_ARRAY)
        fprintf(db, " field(FTVL, \"DOUBLE\") field(NELM, \"%d\") field(EGU, \"%s\")", SPECTROGRAPH_PIXELS,
                law->detail);
    if (law->kind == PARAMETER_REAL)
        fprintf(db, " field(PREC, \"3\") field(EGU, \"%s\")", law->detail);
    write_choices(db, parameter, n_choices);
    fprintf(db, "%s }\n", more);
}

static void write_database(FILE *db, const struct ioc_settings *settings)
{
    char name[128], more[256];
    for (enum parameter p = 0; p < PARAMETER_COUNT; p++) {
        const struct parameter_law *law = &parameter_laws[p];
        snprintf(name, sizeof name, "%s%s", settings->prefix, law->name);
        if (law->access == PARAMETER_READ)
            write_record(db, p, name, false, "eiger", "");
        if (law->access < PARAMETER_WRITE)
            continue;
        if (p == PARAMETER_ACQUIRE)
            snprintf(more, sizeof more, " field(FLNK, \"%sSetAcquireBusy\")", settings->prefix);
        write_record(db, p, name, true, "eiger", p == PARAMETER_ACQUIRE ? more : "");
        if (p == PARAMETER_ACQUIRE)
            continue; /* Acquire_RBV has words of its own and a line of its own */
        snprintf(name, sizeof name, "%s%s_RBV", settings->prefix, law->name);
        write_record(db, p, name, false, "eiger", "");
    }
    fprintf(db,
            "record(calcout, \"%sSetAcquireBusy\") { field(INPA, \"%sAcquire NPP\") field(CALC, \"A\") "
            "field(OOPT, \"Transition To Non-zero\") field(OUT, \"%sAcquireBusy PP\") }\n",
            settings->prefix, settings->prefix, settings->prefix);
    snprintf(name, sizeof name, "%sAcquireBusy", settings->prefix);
    write_record(db, PARAMETER_ACQUIRE_BUSY, name, true, "eiger busy", "");
    write_record(db, PARAMETER_RING_CURRENT, settings->ring_pv, false, "eiger", "");
    for (enum parameter p = PARAMETER_RUBY_OPTICS; p <= PARAMETER_RUBY_JAM; p++) {
        bool is_readback = p == PARAMETER_RUBY_OPTICS_READBACK || p == PARAMETER_RUBY_LASER_READBACK;
        snprintf(name, sizeof name, "%s%s", settings->ruby_prefix, parameter_laws[p].name);
        write_record(db, p, name, !is_readback, "eiger", "");
    }
    for (enum parameter p = PARAMETER_SPECTRUM_WAVELENGTH; p <= PARAMETER_SPECTRUM_BUSY; p++) {
        bool is_output = p == PARAMETER_SPECTRUM_EXPOSURE || p == PARAMETER_SPECTRUM_ACQUIRE;
        snprintf(name, sizeof name, "%s%s", settings->spectrum_prefix, parameter_laws[p].name);
        write_record(db, p, name, is_output, parameter_laws[p].kind == PARAMETER_ARRAY ? "eiger reals" : "eiger", "");
    }
    write_record(db, PARAMETER_CELL_TEMPERATURE, settings->temperature_pv, false, "eiger", "");
}

/* EPICS base keeps its record definitions beside its libraries: <lib>/../dbd, or <lib>/../../dbd in a built tree. */
static int load_definitions(struct err *err)
{
    static const char *const places[] = {"/../dbd", "/../../dbd"};
    Dl_info info;
    if (!dladdr((void *)registerAllRecordDeviceDrivers, &info) || !info.dli_fname || !strrchr(info.dli_fname, '/'))
        return err_set(err, ERR_SYSTEM, "the place of the EPICS libraries cannot be found");
    int length = (int)(strrchr(info.dli_fname, '/') - info.dli_fname);
    char directory[PATH_MAX];
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char file[PATH_MAX + 16];
        snprintf(directory, sizeof directory, "%.*s%s", length, info.dli_fname, places[i]);
        snprintf(file, sizeof file, "%s/base.dbd", directory);
        if (access(file, R_OK) == 0 && dbLoadDatabase(file, directory, NULL) == 0)
            return 0;
    }
    return err_set(err, ERR_SYSTEM, "base.dbd not found in %s; is the EPICS installation complete?", directory);
}

static int load_text(char *text, const char *what, struct err *err)
{
    FILE *stream = fmemopen(text, strlen(text), "r");
    assert(stream);
    if (dbReadDatabaseFP(&pdbbase, stream, NULL, NULL) != 0) /* closes the stream */
        return err_set(err, ERR_SYSTEM, "EPICS refused the %s", what);
    return 0;
}

static int load_database(const struct ioc_settings *settings, struct err *err)
{
    static char text[DATABASE_BYTES];
    int code = load_definitions(err);
    if (code)
        return code;
    snprintf(text, sizeof text, "%s", device_definitions);
    code = load_text(text, "device definitions", err);
    if (code)
        return code;
    /* EPICS finds record types by name at run time; naming one keeps their library among those linked. */
    assert(boRSET.number > 0);
    iocshRegisterCommon();
    registerAllRecordDeviceDrivers(pdbbase);
    FILE *db = fmemopen(text, sizeof text, "w");
    assert(db);
    write_database(db, settings);
    bool is_whole = fflush(db) == 0 && ftell(db) < (long)sizeof text - 1;
    fclose(db);
    assert(is_whole);
    return load_text(text, "records", err);
}

/* ---- run ----------------------------------------------------------------------------------------------------- */

static void set_server_environment(int port)
{
    char text[16];
    snprintf(text, sizeof text, "%d", port);
    setenv("EPICS_CAS_SERVER_PORT", text, 1);
    setenv("EPICS_CAS_INTF_ADDR_LIST", "127.0.0.1", 1);
    setenv("EPICS_CAS_BEACON_ADDR_LIST", "127.0.0.1", 1);
    setenv("EPICS_CAS_AUTO_BEACON_ADDR_LIST", "NO", 1);
    setenv("EPICS_CA_ADDR_LIST", "127.0.0.1", 1);
    setenv("EPICS_CA_AUTO_ADDR_LIST", "NO", 1);
}

/* EPICS base would quietly take another port, where no client looks. */
static int check_port(int port, struct err *err)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    bool is_free = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    int cause = errno;
    if (fd >= 0)
        close(fd);
    return is_free ? 0
                   : err_set(err, ERR_SYSTEM, "Channel Access port %d on loopback refused: %s", port, strerror(cause));
}

void ioc_settings_default(struct ioc_settings *ret_settings)
{
    *ret_settings = (struct ioc_settings){.prefix = "ISB:cam1:",
                                          .ring_pv = "ISB:RING:Current",
                                          .ruby_prefix = "ISB:RUBY:",
                                          .spectrum_prefix = "ISB:SPEC:",
                                          .temperature_pv = "ISB:CELL:Temperature",
                                          .width = 256,
                                          .height = 256,
                                          .photons_per_pixel = 0.02,
                                          .amplitude = 0.3,
                                          .ring_current_ma_nominal = 200};
}

int ioc_run(struct world *world, struct clock *clock, const struct ioc_settings *settings, struct err *err)
{
    if (settings->port < 1024 || settings->port > 65535)
        return err_set(err, ERR_ARG, "IOC on port %d refused: 1024 to 65535", settings->port);
    int code = check_port(settings->port, err);
    if (code)
        return code;
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    set_server_environment(settings->port);
    ioc.table = parameter_open();
    ioc.jobs = epicsMessageQueueCreate(JOBS_MAX, sizeof(struct job));
    for (int i = 0; i < PARAMETER_COUNT; i++)
        scanIoInit(&ioc.scans[i]);
    parameter_listen(ioc.table, parameter_changed, NULL);
    struct detector_settings optics = {.width = settings->width,
                                       .height = settings->height,
                                       .photons_per_pixel = settings->photons_per_pixel,
                                       .amplitude = settings->amplitude,
                                       .ring_current_ma_nominal = settings->ring_current_ma_nominal};
    ioc.ruby_stand = ruby_stand_start(ioc.table, world, clock);
    ioc.spectrograph = spectrograph_start(ioc.table, world, clock);
    code = detector_start(&ioc.detector, ioc.table, world, clock, &optics, err);
    if (code == 0)
        code = load_database(settings, err);
    if (code == 0 && iocInit() != 0)
        code = err_set(err, ERR_SYSTEM, "the IOC does not start");
    if (code) {
        detector_stop(ioc.detector);
        spectrograph_stop(ioc.spectrograph);
        ruby_stand_stop(ioc.ruby_stand);
        return code;
    }
    atomic_store(&ioc.is_running, true);
    for (int i = 0; i < PARAMETER_COUNT; i++) /* changes made while the records were being made */
        scanIoRequest(ioc.scans[i]);
    pthread_t port;
    bool has_port = pthread_create(&port, NULL, port_main, NULL) == 0;
    assert(has_port);
    int signal_number;
    sigwait(&ends, &signal_number);
    epicsMessageQueueSend(ioc.jobs, &(struct job){0}, sizeof(struct job));
    pthread_join(port, NULL);
    detector_stop(ioc.detector);
    spectrograph_stop(ioc.spectrograph);
    ruby_stand_stop(ioc.ruby_stand);
    return 0;
}
