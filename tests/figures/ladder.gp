# The whole ladder: sample pressure, its distance from the target, membrane. The counterpart of Fig. S7 of Cornet et al.

load "tests/figures/style.gp"
set output folder . "/ladder.png"
set multiplot
states = data("ladder_states")
stats data("ladder") using 2 name "MEMBRANE" nooutput # before any range, which would apply here too
stats data("ladder") using 1 name "TIME" nooutput
high = 10 * ceil(MEMBRANE_max / 10 + 1.5)
set lmargin at screen 0.075
set rmargin at screen 0.985
set xrange [0:TIME_max]
set xtics 3

set tmargin at screen 0.935
set bmargin at screen 0.6
set title "Ladder on a simulated cell: 0.1 to 7 GPa and down to 1.5 GPa, isobars of 3 h, loading protocol with back-off" font ",19" offset 0, -0.3
set ylabel "sample pressure / GPa" offset -1.5
set yrange [0:7.9]
set ytics 1
set format x ""
set key top left
plot data("ladder") using 1:4 with points pointtype 7 pointsize 0.75 linecolor rgb ruby title "ruby reading", \
     "" using 1:3 with lines linewidth 1.6 linecolor rgb truth title "true", \
     "" using 1:5 with steps linewidth 0.8 dashtype 3 linecolor rgb target title "target"

# Bands: the states of the protocol.
unset title
unset key
set tmargin at screen 0.57
set bmargin at screen 0.375
set yrange [-0.15:0.15]
set ytics 0.1
set ylabel "− target / GPa" offset 0
plot states using 1:(0):1:2:(-9):(9):(state_color($3)) with boxxyerror fillstyle transparent solid 0.6 noborder linecolor rgb variable, \
     data("ladder") using 1:($4 - $5) with points pointtype 7 pointsize 0.35 linecolor rgb ruby, \
     "" using 1:($3 - $5) with lines linewidth 1.8 linecolor rgb truth, \
     0 with lines linewidth 0.8 dashtype 3 linecolor rgb target

set tmargin at screen 0.345
set bmargin at screen 0.085
set yrange [0:high]
set ytics 20
set format x "%g"
set xlabel "time / h" offset 0, 0.3
set ylabel "membrane / bar" offset 0.3
set key top left horizontal maxrows 1 width 1
plot states using 1:(0):1:2:(0):(high):(state_color($3)) with boxxyerror fillstyle transparent solid 0.6 noborder linecolor rgb variable notitle, \
     data("ladder") using 1:2 with lines linewidth 2 linecolor rgb membrane title "membrane", \
     NaN with boxes fillstyle solid 1 noborder linecolor rgb ramp title "ramp", \
     NaN with boxes fillstyle solid 1 noborder linecolor rgb back_off title "back-off", \
     NaN with boxes fillstyle solid 1 noborder linecolor rgb recentre title "recentre", \
     NaN with boxes fillstyle solid 1 noborder linecolor rgb watch title "watch", \
     NaN with boxes fillstyle solid 1 noborder linecolor rgb isobar title "isobar"
unset multiplot
