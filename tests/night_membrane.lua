-- One load and one isobar, with other hands at the membrane controller (tests/night_membrane.py).
cell { name = "hands", culet_um = 600, medium = "methanol-ethanol 4:1", pressure_gpa_max = 8, membrane_bar_max = 130 }
preloaded { at = "0.1 GPa" }
load   { to = "1.5 GPa", rate = "2 bar/min" }
isobar { duration = "1 h", scan = { frames = 6000, frame_time = "0.1 s" } }
