-- A cell that is taken home under pressure: up to 1.5 GPa, watched for twenty minutes, and locked there.
--
-- At deflate { } the run waits for hands: they draw the cell's screws and then empty the membrane at the controller's
-- front panel. When the membrane is empty the locked cell is measured. In a rehearsal simulated hands do it.

cell {
  name = "demonstration cell",
  culet_um = 600,
  medium = "methanol-ethanol 4:1",
  pressure_gpa_max = 8,
  membrane_bar_max = 130,
}

preloaded { at = "0.1 GPa" }
load      { to = "1.5 GPa", rate = "2 bar/min" }
isobar    { duration = "20 min" }
deflate   {}
isobar    { duration = "10 min" }
