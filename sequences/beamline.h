/*
 * The beamline file (beamline.lua): which instruments, at which addresses, with which limits and geometry.
 * Read by the same sandboxed evaluator as a sequence; an unknown key is an error with file, line and nearest name.
 */
#ifndef SEQUENCES_BEAMLINE_H
#define SEQUENCES_BEAMLINE_H

#include "base/err.h"

struct beamline_membrane {
    char driver[24];             /* "bronkhorst", "alicat" or "pace" */
    char address[96];            /* "tcp:HOST:PORT" or "serial:PATH:BAUD" */
    int unit_id;                 /* Modbus unit, default 1 */
    double full_scale_bar;       /* alicat only, which cannot be asked: of the controller, set to work in bar */
    char watchdog[8];            /* alicat only: "off", stated by who switched it off at the controller */
    double membrane_bar_max;     /* limit of the line and the controller */
    double slew_bar_per_min_max; /* never asked for more */
};

struct beamline_spectrometer {
    char driver[24];  /* "ocean-optics" or "epics-waveforms" */
    char address[96]; /* ocean-optics only: "tcp:HOST:PORT" or "serial:PATH:BAUD" */
    double exposure_s;
    double wavelength_nm_min; /* window of interest, default 690 */
    double wavelength_nm_max; /* default 705 */
    /* Of the instrument's own axis, by neon lines (isobar ruby --neon); default 0 and 0: true wavelength = axis +
     * wavelength_offset_nm + wavelength_slope (axis - 694.25 nm). */
    double wavelength_offset_nm;
    double wavelength_slope;
    /* Amplitude of the fringes that its window or sensor puts on the light, relative; default 0: flat to 0.03 %. Of a
     * white lamp, or of the anvil without a ruby: half of peak to valley over the mean. */
    double fringe_max;
    /* The rest with epics-waveforms only, and then all of it. */
    char wavelength_pv[64];   /* waveform, nm, ascending */
    char counts_pv[64];       /* waveform of the same length */
    char exposure_pv[64];     /* s */
    char acquire_pv[64];      /* told 1 for one spectrum */
    char busy_pv[64];         /* not 0 while it is taken */
    double counts_saturation; /* of the sensor: the wire does not tell */
};

struct beamline_ruby {
    char scale[24];             /* "ruby2020" (default) or another scale of ruby, see `isobar ruby --scales` */
    double lambda0_nm;          /* R1 at ambient pressure and temperature_k_zero */
    double lambda0_nm_sigma;    /* how well it is known, for a calibration that is compared with it; default 0 */
    double temperature_k_zero;  /* default 296 */
    double temperature_k;       /* temperature of the ruby, stated; default temperature_k_zero */
    double temperature_k_sigma; /* how well it is known; default 1 K, of a room without a thermometer: 0.02 GPa */
    char temperature_pv[64];    /* of a thermometer at the cell, K; then temperature_k_sigma is the thermometer's */
    double temperature_k_sigma_lost; /* while the thermometer is not believed; default three times temperature_k_sigma,
                                        at least 2 K */
    char correction[24];             /* for the temperature: "datchi2007" (default), "ragan1992", "vos1991" */
    char ruby_access[16];            /* "always" (default), or "between_scans": the optics stand in the X-ray beam */
    /* The rest with "between_scans" only, and then all four PVs. With "always" nothing would move the optics or the
     * shutter, so that a file which names them is refused. Records that are told are binary, as bo. */
    char optics_pv[64];          /* told "Out" or "In" */
    char optics_readback_pv[64]; /* says "Out", "In" or "Moving" */
    char laser_pv[64];           /* shutter: told "Closed" or "Open" */
    char laser_readback_pv[64];  /* says the same */
    double settle_s;             /* from optics in and laser open to the first exposure; default 5 */
};

struct beamline_detector {
    char driver[24];     /* "adeiger" */
    char prefix[64];     /* PV prefix, e.g. "ISB:cam1:" */
    char file_path[200]; /* directory on the IOC's host into which it saves the files */
    double photon_energy_ev;
    double distance_m;
    double beam_center_x_px;
    double beam_center_y_px;
};

struct beamline_ring {
    char current_pv[64];   /* ring current, mA */
    double current_ma_min; /* below: no beam */
};

struct beamline {
    char name[48];
    char clock[200];     /* "real" (default) or the path of a simulator's clock page */
    char ca_address[64]; /* EPICS_CA_ADDR_LIST, e.g. "127.0.0.1:5064" */
    struct beamline_membrane membrane;
    struct beamline_spectrometer spectrometer;
    struct beamline_ruby ruby;
    struct beamline_detector detector;
    struct beamline_ring ring;
    char source[16384]; /* the Lua text it came from */
};

/* Errors as for plan_load, and ERR_LIMIT when `clock` is not "real" and any instrument's address is not loopback
 * (a fast clock must never meet a real instrument); the sentence names the instrument and its address. */
int beamline_load(struct beamline *ret_beamline, const char *path, struct err *err);

/* The same from a text that is at hand, such as the one recorded with a run; `name` is what sentences call it. */
int beamline_read(struct beamline *ret_beamline, const char *text, const char *name, struct err *err);

#endif
