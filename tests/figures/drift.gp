# Drift of every isobar of the ladder on many cells, with and without the back-off.

load "tests/figures/style.gp"
set output folder . "/drift.png"
set multiplot
limit = 0.12
stats data("drift_protocol_departure") using 4 nooutput
n_cells = int(STATS_max - STATS_min + 1)
set palette defined (1.5 "#fde725", 3.3 "#5ec962", 4.9 "#21918c", 6.3 "#3b528b", 7 "#440154")
set cbrange [1.5:7]
unset colorbox
stats data("drift_no_back_off") using 2 name "CREEP" nooutput
low = 0.2 * floor(CREEP_min / 0.2)
high = 0.2 * ceil(CREEP_max / 0.2)

# Above: curves from the start of the isobar.
set tmargin at screen 0.93
set bmargin at screen 0.565
set xrange [0:3]
set xtics 0.5
set yrange [low:high]
set ytics 0.2
set xlabel "time since the isobar began / h" offset 0, 0.3
unset key
set arrow 1 from graph 0, first limit to graph 1, first limit nohead front linewidth 1 dashtype 2 linecolor rgb target
set arrow 2 from graph 0, first -limit to graph 1, first -limit nohead front linewidth 1 dashtype 2 linecolor rgb target

set lmargin at screen 0.07
set rmargin at screen 0.47
set ylabel "true pressure − its start / GPa" offset 0.5
set title sprintf("Isobars of %d cells (seeds %d to %d), protocol", n_cells, STATS_min, STATS_max) font ",19" offset 0, -0.3
plot data("drift_protocol") using 1:2:3 with lines linewidth 0.9 linecolor palette

set lmargin at screen 0.53
set rmargin at screen 0.925
set title "The same cells, protocol without back-off" font ",19" offset 0, -0.3
unset ylabel
set colorbox user origin screen 0.94, screen 0.565 size screen 0.012, 0.365
set label 1 "target / GPa" at screen 0.99, screen 0.953 right
set cbtics ("1.5" 1.5, "3.3" 3.3, "4.9" 4.9, "6.3" 6.3, "7.0" 7)
plot data("drift_no_back_off") using 1:2:3 with lines linewidth 0.9 linecolor palette

# Below: the largest departure of each isobar, in the order of the ladder.
unset arrow
unset colorbox
unset label 1
set lmargin at screen 0.07
set rmargin at screen 0.985
set tmargin at screen 0.41
set bmargin at screen 0.085
set title "Largest departure of each isobar from its start, every cell a point" font ",19" offset 0, -0.3
set xlabel "isobar, in the order of the ladder / GPa"
set ylabel "|departure| / GPa"
set xrange [0.4:9.6]
set xtics ("1.5 ↑" 1, "3.3 ↑" 2, "4.9 ↑" 3, "6.3 ↑" 4, "7.0 ↑" 5, "6.3 ↓" 6, "4.9 ↓" 7, "3.3 ↓" 8, "1.5 ↓" 9)
set logscale y
set yrange [0.004:5]
set ytics (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
set key top center horizontal maxrows 1 width -1
spread(seed) = 0.012 * (seed - STATS_min - (n_cells - 1) / 2.0)
plot limit with lines linewidth 1 dashtype 2 linecolor rgb target title "0.12 GPa, the paper's limit", \
     data("drift_no_back_off_departure") using ($1 + 0.22 + spread($4)):5 with points pointtype 9 pointsize 1.3 linecolor rgb 0xe69f00 title "protocol without back-off", \
     data("drift_protocol_departure") using ($1 + spread($4)):5 with points pointtype 7 pointsize 1.3 linecolor rgb truth title "protocol", \
     data("drift_protocol_departure") using ($1 - 0.22 + spread($4)):6 with points pointtype 6 pointsize 1.2 linecolor rgb membrane title "oracle: membrane in the exact middle"
unset multiplot
