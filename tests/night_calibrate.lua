-- Of tests/night_calibrate.py: enough readings that hands can close the cell meanwhile.
cell { culet_um = 600, medium = "methanol-ethanol 4:1", pressure_gpa_max = 8, membrane_bar_max = 130 }
calibrate_ruby { readings = 200 }
preloaded { at = "0.1 GPa" }
