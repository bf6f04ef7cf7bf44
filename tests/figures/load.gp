# One load in detail with the protocol, and the same load of the same cell in three lesser ways.

load "tests/figures/style.gp"
set output folder . "/load.png"
set multiplot
goal = 3.3
states = data("load_protocol_states")

stats data("load_protocol") using 2 nooutput # before any range, which would apply here too
low = 10 * floor(STATS_min / 10 - 0.5)
high = 10 * ceil(STATS_max / 10 + 0.3)
stats data("load_ramp") using 3 name "CREEP" nooutput
stats data("load_starts") using 1 every ::0::0 name "ISOBAR" nooutput
end = 0.1 * ceil(10 * ISOBAR_max + 3.5)
middle(from, to) = from < end ? (from + (to < end ? to : end)) / 2 : NaN

# Left: the protocol.
set lmargin at screen 0.065
set rmargin at screen 0.49
set xrange [0:end]
set xtics 0.2

set tmargin at screen 0.93
set bmargin at screen 0.53
set title "1.5 to 3.3 GPa with the protocol" font ",19" offset 0, -0.3
set ylabel "sample pressure / GPa" offset 1
set yrange [1.4:3.6]
set ytics 0.5
set format x ""
set key bottom right
plot states using 1:(0):1:2:(0):(9):(state_color($3)) with boxxyerror fillstyle transparent solid 0.45 noborder linecolor rgb variable notitle, \
     data("load_protocol") using 1:4 with points pointtype 7 pointsize 0.7 linecolor rgb ruby title "ruby reading, every 3 s", \
     "" using 1:3 with lines linewidth 1.4 linecolor rgb truth title "true (simulated)", \
     goal with lines linewidth 1 dashtype 2 linecolor rgb target title "target"

set tmargin at screen 0.50
set bmargin at screen 0.085
unset title
set xlabel "time since the load began / h" offset 0, 0.3
set ylabel "membrane pressure / bar"
set format x "%g"
set yrange [low:high]
set ytics 10
unset key
plot states using 1:(0):1:2:(low):(high):(state_color($3)) with boxxyerror fillstyle transparent solid 0.45 noborder linecolor rgb variable, \
     data("load_protocol") using 1:2 with lines linewidth 2.4 linecolor rgb membrane, \
     states using (middle($1, $2)):(low + 1.5):5 with labels rotate by 90 left font ",16"

# Right: the four ways, whole and near the target.
plain = 0x0072b2
stopped = 0x9b5aa5
tapered = 0xe69f00
set lmargin at screen 0.56
set rmargin at screen 0.985
set xrange [0:3]
set xtics 0.5
set ylabel "true sample pressure / GPa"

set tmargin at screen 0.93
set bmargin at screen 0.53
unset xlabel
set format x ""
set title "The same load of the same cell in four ways" font ",19" offset 0, -0.3
set yrange [1.4:1.4 * CREEP_max]
set ytics 1
set key top right
plot data("load_ramp") using 1:3 with lines linewidth 2 linecolor rgb stopped title "2 bar/min, stopped at the target", \
     data("load_recipe") using 1:3 with lines linewidth 2 linecolor rgb plain title "recipe: then back off until −0.01 GPa", \
     data("load_no_back_off") using 1:3 with lines linewidth 2 linecolor rgb tapered title "protocol without back-off", \
     data("load_protocol") using 1:3 with lines linewidth 2.8 linecolor rgb truth title "protocol", \
     goal with lines linewidth 1 dashtype 2 linecolor rgb target notitle

set tmargin at screen 0.50
set bmargin at screen 0.085
unset title
set xlabel "time since the load began / h"
set format x "%g"
set yrange [3.1:3.7]
set ytics 0.1
unset key
set label 1 "circles: the isobar begins\ndots: ruby, protocol" at 2.95, goal + 0.2 right font ",15"
plot data("load_protocol") using 1:4 every 4 with points pointtype 7 pointsize 0.45 linecolor rgb ruby, \
     goal with lines linewidth 1 dashtype 2 linecolor rgb target, \
     data("load_ramp") using 1:3 with lines linewidth 2 linecolor rgb stopped, \
     data("load_recipe") using 1:3 with lines linewidth 2 linecolor rgb plain, \
     data("load_no_back_off") using 1:3 with lines linewidth 2 linecolor rgb tapered, \
     data("load_protocol") using 1:3 with lines linewidth 2.8 linecolor rgb truth, \
     data("load_starts") using 1:2 with points pointtype 7 pointsize 2 linecolor rgb target, \
     "" using 1:2 with points pointtype 7 pointsize 1.3 linecolor rgb "white"
unset multiplot
