-- First light: up to 1.5 GPa, up to 3.3 GPa, and back down to 1.5 GPa, with one hour and one scan at each.
--
--   isobar check    first_light.lua      reads this file, prints its steps and how long they take
--   isobar rehearse first_light.lua      plays it on simulated instruments, in minutes
--   isobar run      first_light.lua      runs it on the instruments of beamline.lua
--
-- The file only builds the list of steps; nothing moves while it is read. Lua's numbers, loops and functions are at
-- hand. Quantities are written with their unit, unless the name carries it.

-- The cell. Its two limits hold for everything below: a target above pressure_gpa_max is refused here and now, and the
-- membrane is never sent above membrane_bar_max.
cell {
  name = "demonstration cell",
  culet_um = 600,
  medium = "methanol-ethanol 4:1",
  pressure_gpa_max = 8,
  membrane_bar_max = 130,
}

-- The pressure that was screwed in by hand. It is measured, not driven.
preloaded { at = "0.1 GPa" }

-- One scan needs frame_time x frames = 600 s. Slow relaxation wants longer scans, fast relaxation shorter frames.
local scan = { frames = 6000, frame_time = "0.1 s", count = 1 }

-- On the way up the sample never passes a target by more than the tolerance: a glass does not forget.
for _, target in ipairs { "1.5 GPa", "3.3 GPa" } do
  load   { to = target, rate = "2 bar/min" }
  isobar { duration = "1 h", scan = scan }
end

-- The same pressure again from above: what the glass remembers is the difference.
unload { to = "1.5 GPa", rate = "2 bar/min" }
isobar { duration = "1 h", scan = scan }
