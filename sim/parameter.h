/*
 * The parameters of the simulated detector, of the ruby's stand and of the spectrograph: one line per quantity. The
 * same list makes the EPICS records (sim/ioc.c) and holds the values the detector works with (sim/detector.c), as
 * areaDetector's parameter library does.
 *
 * Names, record types, menus and alarm severities are those ADEiger shows to a client (reference: the ADEiger and
 * ADCore databases). Thread-safe; a listener hears of every change after it, outside the lock.
 */
#ifndef SIM_PARAMETER_H
#define SIM_PARAMETER_H

#include <stdbool.h>

#define PARAMETER_TEXT_MAX 256

enum parameter_kind {
    PARAMETER_REAL,    /* ao, ai */
    PARAMETER_INTEGER, /* longout, longin */
    PARAMETER_MENU,    /* bo, bi for two choices; mbbo, mbbi for more */
    PARAMETER_STRING,  /* stringin, 39 letters */
    PARAMETER_TEXT,    /* waveform of 256 CHAR */
    PARAMETER_ARRAY,   /* waveform of DOUBLE; its number counts the changes, its values are elsewhere */
    PARAMETER_KIND_COUNT
};

enum parameter_access {
    PARAMETER_INTERNAL, /* no record of its own, or one that sim/ioc.c writes out by hand */
    PARAMETER_READ,     /* one input record, the name as it stands */
    PARAMETER_WRITE,    /* an output record and its twin NAME_RBV */
    PARAMETER_READBACK, /* the same, and the output follows changes made by the detector (asyn:READBACK) */
    PARAMETER_ACCESS_COUNT
};

/* Choices of a menu: "first|second:SEVERITY|...". The default of a menu is the index of a choice. */
#define PARAMETER_ENABLE "Disable|Enable:MINOR"
#define PARAMETER_LIST(X)                                                                                              \
    X(ACQUIRE, "Acquire", MENU, READBACK, "0", "Done|Acquire")                                                         \
    X(ACQUIRE_RBV, "Acquire_RBV", MENU, READ, "0", "Done|Acquiring:MINOR")                                             \
    X(ACQUIRE_BUSY, "AcquireBusy", MENU, INTERNAL, "0", "Done|Acquiring:MINOR")                                        \
    X(DETECTOR_STATE, "DetectorState_RBV", MENU, READ, "0",                                                            \
      "Idle|Acquire|Readout|Correct|Saving|Aborting:MINOR|Error:MAJOR|Waiting|Initializing|Disconnected:INVALID|"      \
      "Aborted:MINOR")                                                                                                 \
    X(STATUS_MESSAGE, "StatusMessage_RBV", TEXT, READ, "", "")                                                         \
    X(STATE, "State_RBV", STRING, READ, "na", "")                                                                      \
    X(ARMED, "Armed", MENU, READ, "0", "Unarmed|Armed")                                                                \
    X(SEQUENCE_ID, "SequenceId", INTEGER, READ, "0", "")                                                               \
    X(NUM_IMAGES_COUNTER, "NumImagesCounter_RBV", INTEGER, READ, "0", "")                                              \
    X(ACQUIRE_TIME, "AcquireTime", REAL, READBACK, "0.0999", "s")                                                      \
    X(ACQUIRE_PERIOD, "AcquirePeriod", REAL, READBACK, "0.1", "s")                                                     \
    X(NUM_IMAGES, "NumImages", INTEGER, WRITE, "1", "")                                                                \
    X(NUM_TRIGGERS, "NumTriggers", INTEGER, WRITE, "1", "")                                                            \
    X(TRIGGER_MODE, "TriggerMode", MENU, WRITE, "0",                                                                   \
      "Internal Series|Internal Enable|External Series|External Enable|Continuous|External Gate")                      \
    X(PHOTON_ENERGY, "PhotonEnergy", REAL, WRITE, "8048", "eV")                                                        \
    X(THRESHOLD_ENERGY, "ThresholdEnergy", REAL, READBACK, "4024", "eV")                                               \
    X(ENERGY_EPS, "EnergyEps", REAL, WRITE, "0.05", "eV")                                                              \
    X(DATA_SOURCE, "DataSource", MENU, WRITE, "0", "None|FileWriter|Stream")                                           \
    X(COMPRESSION_ALGO, "CompressionAlgo", MENU, WRITE, "1", "LZ4|BS LZ4|None")                                        \
    X(FW_ENABLE, "FWEnable", MENU, WRITE, "0", PARAMETER_ENABLE)                                                       \
    X(FW_COMPRESSION, "FWCompression", MENU, WRITE, "1", PARAMETER_ENABLE)                                             \
    X(FW_NAME_PATTERN, "FWNamePattern", TEXT, WRITE, "series_$id", "")                                                 \
    X(FW_N_IMAGES_PER_FILE, "FWNImagesPerFile", INTEGER, WRITE, "1000", "")                                            \
    X(FW_FREE, "FWFree_RBV", REAL, READ, "512", "GB")                                                                  \
    X(FW_STATE, "FWState_RBV", STRING, READ, "disabled", "")                                                           \
    X(SAVE_FILES, "SaveFiles", MENU, WRITE, "0", PARAMETER_ENABLE)                                                     \
    X(FILE_PATH, "FilePath", TEXT, WRITE, "", "")                                                                      \
    X(FILE_PATH_EXISTS, "FilePathExists_RBV", MENU, READ, "0", "No:MAJOR|Yes")                                         \
    X(FULL_FILE_NAME, "FullFileName_RBV", TEXT, READ, "", "")                                                          \
    X(BEAM_X, "BeamX", REAL, WRITE, "0", "pixel")                                                                      \
    X(BEAM_Y, "BeamY", REAL, WRITE, "0", "pixel")                                                                      \
    X(DET_DIST, "DetDist", REAL, WRITE, "1", "m")                                                                      \
    X(MAX_SIZE_X, "MaxSizeX_RBV", INTEGER, READ, "0", "")                                                              \
    X(MAX_SIZE_Y, "MaxSizeY_RBV", INTEGER, READ, "0", "")                                                              \
    X(BIT_DEPTH_IMAGE, "BitDepthImage_RBV", INTEGER, READ, "32", "bit")                                                \
    X(COUNT_CUTOFF, "CountCutoff_RBV", REAL, READ, "133343", "count")                                                  \
    X(DEAD_TIME, "DeadTime_RBV", REAL, READ, "1e-7", "s")                                                              \
    X(PIXEL_SIZE_X, "XPixelSize_RBV", REAL, READ, "75e-6", "m")                                                        \
    X(PIXEL_SIZE_Y, "YPixelSize_RBV", REAL, READ, "75e-6", "m")                                                        \
    X(SENSOR_THICKNESS, "SensorThickness_RBV", REAL, READ, "450e-6", "m")                                              \
    X(SENSOR_MATERIAL, "SensorMaterial_RBV", STRING, READ, "Si", "")                                                   \
    X(TEMP0, "Temp0_RBV", REAL, READ, "24", "C")                                                                       \
    X(HUMID0, "Humid0_RBV", REAL, READ, "4", "%")                                                                      \
    X(HV_STATE, "HVState_RBV", STRING, READ, "READY", "")                                                              \
    X(DESCRIPTION, "Description_RBV", STRING, READ, "Simulated EIGER2", "")                                            \
    X(MANUFACTURER, "Manufacturer_RBV", STRING, READ, "Isobar", "")                                                    \
    X(SERIAL_NUMBER, "SerialNumber_RBV", STRING, READ, "S-0001", "")                                                   \
    X(FIRMWARE_VERSION, "FirmwareVersion_RBV", STRING, READ, "1.8.0", "")                                              \
    X(RING_CURRENT, "", REAL, INTERNAL, "0", "mA")                                                                     \
    X(RUBY_OPTICS, "Optics", MENU, INTERNAL, "0", "Out|In")                                                            \
    X(RUBY_OPTICS_READBACK, "OpticsReadback", MENU, INTERNAL, "0", "Out|In|Moving")                                    \
    X(RUBY_LASER, "Laser", MENU, INTERNAL, "0", "Closed|Open")                                                         \
    X(RUBY_LASER_READBACK, "LaserReadback", MENU, INTERNAL, "0", "Closed|Open")                                        \
    X(RUBY_JAM, "Jam", MENU, INTERNAL, "0", "Free|Jammed")                                                             \
    X(SPECTRUM_WAVELENGTH, "Wavelength", ARRAY, INTERNAL, "0", "nm")                                                   \
    X(SPECTRUM_COUNTS, "Counts", ARRAY, INTERNAL, "0", "count")                                                        \
    X(SPECTRUM_EXPOSURE, "AcquireTime", REAL, INTERNAL, "0.1", "s")                                                    \
    X(SPECTRUM_ACQUIRE, "Acquire", MENU, INTERNAL, "0", "Done|Acquire")                                                \
    X(SPECTRUM_BUSY, "Busy", MENU, INTERNAL, "0", "Done|Acquiring:MINOR")                                              \
    X(CELL_TEMPERATURE, "", REAL, INTERNAL, "296", "K")

enum parameter {
#define X(id, name, kind, access, value, choices) PARAMETER_##id,
    PARAMETER_LIST(X)
#undef X
        PARAMETER_COUNT
};

struct parameter_law {
    const char *name; /* of the record, without prefix */
    enum parameter_kind kind;
    enum parameter_access access;
    const char *value;  /* default */
    const char *detail; /* choices of a menu, unit of a number */
};

extern const struct parameter_law parameter_laws[PARAMETER_COUNT];

struct parameter_table;
typedef void parameter_listener(void *context, enum parameter parameter);

/* A table of defaults. Free with parameter_close, when no thread uses it. */
struct parameter_table *parameter_open(void);
void parameter_close(struct parameter_table *table);
void parameter_listen(struct parameter_table *table, parameter_listener *listener, void *context);

double parameter_number(struct parameter_table *table, enum parameter parameter);
void parameter_text(struct parameter_table *table, enum parameter parameter, char ret_text[PARAMETER_TEXT_MAX]);
void parameter_set_number(struct parameter_table *table, enum parameter parameter, double number);
void parameter_set_text(struct parameter_table *table, enum parameter parameter, const char *text);

/* Choice `index` of a menu: its text and its severity ("" for none). Returns false past the last. */
bool parameter_choice(enum parameter parameter, int index, char ret_text[32], char ret_severity[16]);
int parameter_choice_count(enum parameter parameter);

#endif
