-- One database per run. Instants (t_ns) are experiment time; utc_ns = t_ns + run.utc_minus_t_ns.
-- Rows are appended, in this column order, by the one writer (db/store.c); run_end is the last row of a finished run.

CREATE TABLE run (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  uid TEXT NOT NULL,
  name TEXT NOT NULL,                 -- name of the sequence file
  started_t_ns INTEGER NOT NULL,
  utc_minus_t_ns INTEGER NOT NULL,
  clock_source TEXT NOT NULL,         -- 'real', or the page of a simulator's clock: then nothing here is an experiment
  plan_hash TEXT NOT NULL,            -- 16 hexadecimal digits
  plan_source TEXT NOT NULL,          -- the Lua text
  beamline_source TEXT NOT NULL,
  cell_name TEXT NOT NULL,
  core_settings BLOB NOT NULL,        -- the settings the core was started with (replay)
  version TEXT NOT NULL
) STRICT;

CREATE TABLE step (
  step_index INTEGER PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('preloaded', 'load', 'unload', 'isobar', 'deflate', 'calibrate_ruby')),
  pressure_gpa_target REAL NOT NULL,
  rate_bar_per_min REAL NOT NULL,
  duration_s REAL NOT NULL,
  n_scans INTEGER NOT NULL,
  n_frames INTEGER NOT NULL,
  frame_time_s REAL NOT NULL,
  drift_gpa_max REAL NOT NULL
) STRICT;

-- Everything that reached the core, in order. `payload` is the event itself; the other columns are for people.
CREATE TABLE event (
  seq INTEGER PRIMARY KEY,
  pass INTEGER NOT NULL,
  t_ns INTEGER NOT NULL,
  kind TEXT NOT NULL,
  value REAL,
  text TEXT,
  payload BLOB NOT NULL
) STRICT;

-- What the core decided on that event.
CREATE TABLE decision (
  event_seq INTEGER NOT NULL REFERENCES event(seq),
  ordinal INTEGER NOT NULL,
  kind TEXT NOT NULL,
  value REAL,
  text TEXT,
  payload BLOB NOT NULL,
  PRIMARY KEY (event_seq, ordinal)
) STRICT;

-- The journal: written and committed before the act.
CREATE TABLE intent (
  number INTEGER PRIMARY KEY,
  t_ns INTEGER NOT NULL,
  step_index INTEGER NOT NULL,
  kind TEXT NOT NULL,
  value REAL,                         -- step: its index; membrane: lowest set point, bar; scan: its number
  value_max REAL                      -- membrane: highest set point, bar; scan: the attempt
) STRICT;

-- Which state of which step began when.
CREATE TABLE phase (
  t_ns INTEGER NOT NULL,
  step_index INTEGER NOT NULL,
  phase TEXT NOT NULL
) STRICT;

CREATE TABLE membrane (
  t_ns INTEGER NOT NULL,
  membrane_bar REAL,
  membrane_bar_setpoint REAL
) STRICT;

-- Every ruby spectrum and what was read from it. Rejected readings have a reason and no pressure. The pressure is that of
-- the run's own ruler for ever; ruby_derived holds what other rulers make of the same lines.
CREATE TABLE ruby (
  t_ns INTEGER NOT NULL,
  pressure_gpa REAL,
  pressure_gpa_sigma REAL,            -- of the line: what neighbouring readings differ by
  pressure_gpa_sigma_temperature REAL, -- of the ruby's temperature: what they have in common
  r1_nm REAL,
  r1_nm_sigma REAL,                   -- with what the line model is uncertain by
  r1_nm_sigma_noise REAL,             -- without: pressure_gpa_sigma is of this
  r2_nm REAL,
  r1_nm_fwhm REAL,
  r2_nm_fwhm REAL,
  lambda0_nm REAL NOT NULL,
  temperature_k REAL NOT NULL,
  temperature_k_sigma REAL NOT NULL,
  temperature_k_zero REAL NOT NULL,
  scale TEXT NOT NULL,
  correction TEXT NOT NULL,           -- for the temperature
  exposure_s REAL NOT NULL,
  reason TEXT,
  warning TEXT,                       -- of a reading that is believed: wide or oddly split lines, stress
  wavelength_nm_first REAL,
  wavelength_nm_step REAL,
  counts BLOB                         -- float32, little endian
) STRICT;

-- What a free ruby was read as at the run's beginning (calibrate_ruby), one row per attempt; its readings and spectra are
-- those rows of ruby whose t_ns lies in it. A good one (reason NULL) is the run's ruler from there on.
CREATE TABLE ruby_calibration (
  t_ns INTEGER NOT NULL,
  started_t_ns INTEGER NOT NULL,
  n_used INTEGER NOT NULL,            -- of the readings asked for
  r1_nm REAL NOT NULL,                -- mean, at the ruby's temperature
  scatter_nm REAL NOT NULL,           -- of one reading
  noise_nm REAL NOT NULL,             -- what the readings themselves say of it
  drift_nm REAL NOT NULL,             -- from the first to the last
  lambda0_nm REAL NOT NULL,           -- at temperature_k_zero
  lambda0_nm_sigma REAL NOT NULL,     -- of the line; the temperature is not in it
  lambda0_nm_stated REAL NOT NULL,    -- by the beamline file
  tolerance_nm REAL NOT NULL,         -- how far from it
  temperature_k REAL NOT NULL,        -- of the ruby, mean: measured where there is a thermometer
  temperature_k_sigma REAL NOT NULL,
  temperature_k_zero REAL NOT NULL,
  reason TEXT                         -- why it was refused
) STRICT;

-- Pressures of the same readings on another ruler (`isobar ruby --rescale`), made after the run; a row of ruby is left as
-- it is.
CREATE TABLE ruby_derivation (
  number INTEGER PRIMARY KEY,
  utc_ns INTEGER NOT NULL,
  scale TEXT NOT NULL,
  correction TEXT NOT NULL,
  lambda0_nm REAL NOT NULL,
  temperature_k_zero REAL NOT NULL,
  n_readings INTEGER NOT NULL         -- rows of ruby_derived that belong to it; fewer: it was interrupted
) STRICT;

CREATE TABLE ruby_derived (
  number INTEGER NOT NULL REFERENCES ruby_derivation(number),
  t_ns INTEGER NOT NULL,              -- of the reading
  pressure_gpa REAL NOT NULL,
  pressure_gpa_sigma REAL NOT NULL,
  pressure_gpa_sigma_temperature REAL NOT NULL
) STRICT;

CREATE TABLE isobar (
  step_index INTEGER PRIMARY KEY REFERENCES step(step_index),
  started_t_ns INTEGER NOT NULL,
  ended_t_ns INTEGER NOT NULL,
  pressure_gpa_target REAL NOT NULL,
  pressure_gpa_start REAL NOT NULL,
  pressure_gpa_end REAL NOT NULL,
  pressure_gpa_departure REAL NOT NULL, -- largest departure of the averaged ruby from the start, signed
  drift_gpa_max REAL NOT NULL,
  ruby_access TEXT NOT NULL           -- 'always', or 'between_scans': the pressures come from the gaps between scans
) STRICT;

-- What each pressure change has taught of the cell, and the locked cell once it has been measured (direction 0). NULL:
-- not taught by this change.
CREATE TABLE cell_branch (
  step_index INTEGER PRIMARY KEY REFERENCES step(step_index),
  t_ns INTEGER NOT NULL,
  direction INTEGER NOT NULL CHECK (direction IN (-1, 0, 1)),
  pressure_gpa REAL,                  -- at the end
  membrane_bar_near_edge REAL,        -- of the dead zone, on the side that the change came from
  membrane_bar_far_edge REAL,
  membrane_bar_centre REAL,
  compliance_bar_s_per_gpa REAL,      -- excess of membrane pressure beyond the edge / rate of the sample pressure
  compliance_bar_s_per_gpa_max REAL,  -- one sigma more
  edge_bar_per_gpa REAL,              -- by which the edge moves with the sample
  half_width_bar REAL                 -- of the dead zone
) STRICT;

-- One row per attempt, written when the attempt ends.
CREATE TABLE scan (
  scan_number INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  step_index INTEGER NOT NULL,
  started_t_ns INTEGER NOT NULL,
  ended_t_ns INTEGER NOT NULL,
  n_frames INTEGER NOT NULL,
  frame_time_s REAL NOT NULL,
  master_path TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('complete', 'failed')),
  reason TEXT,
  PRIMARY KEY (scan_number, attempt)
) STRICT;

-- What the analysis found; |F|^2 = exp(-2 (t/tau)^beta). A row without a result has its reason, and an empty path when the
-- attempt was not whole; that of a later attempt takes its place.
CREATE TABLE result (
  scan_number INTEGER PRIMARY KEY,
  tau_s REAL, tau_s_sigma REAL,
  beta REAL, beta_sigma REAL,
  contrast REAL, contrast_sigma REAL,
  baseline REAL,
  n_photons INTEGER,
  result_path TEXT NOT NULL,
  reason TEXT
) STRICT;

CREATE TABLE hold (
  t_ns INTEGER NOT NULL,
  began INTEGER NOT NULL CHECK (began IN (0, 1)),
  reasons INTEGER NOT NULL,
  sentence TEXT NOT NULL
) STRICT;

CREATE TABLE log (
  t_ns INTEGER NOT NULL,
  severity TEXT NOT NULL CHECK (severity IN ('info', 'warning', 'error')),
  text TEXT NOT NULL
) STRICT;

CREATE TABLE run_end (
  t_ns INTEGER NOT NULL,
  exit_status TEXT NOT NULL CHECK (exit_status IN ('complete', 'stopped', 'failed'))
) STRICT;
