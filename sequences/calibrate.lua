-- A cell that is open when the night begins: its ruby is read free and gives lambda0, the ruler of the whole run. Then the
-- run waits until the cell is closed and preloaded by hand and somebody says `isobar resume`. In a rehearsal simulated
-- hands do it, and the beamline file states a lambda0 that is a little off.

cell {
  name = "demonstration cell",
  culet_um = 600,
  medium = "methanol-ethanol 4:1",
  pressure_gpa_max = 8,
  membrane_bar_max = 130,
}

calibrate_ruby { readings = 20 }
preloaded { at = "0.1 GPa" }
load      { to = "0.8 GPa", rate = "2 bar/min" }
isobar    { duration = "10 min" }
