-- Four scans in one isobar, each followed by the analysis while it is taken (tests/night_follow.py).
cell { name = "follow", culet_um = 600, medium = "methanol-ethanol 4:1", pressure_gpa_max = 8, membrane_bar_max = 130 }
preloaded { at = "0.1 GPa" }
isobar { duration = "1 h", scan = { frames = 6000, frame_time = "0.1 s", count = 4 } }
