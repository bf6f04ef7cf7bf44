# What the figures have in common. gnuplot -e "folder='build/figures'" tests/figures/<name>.gp
#
# Colours after Okabe and Ito, distinguishable to the colour-blind; the quantity, not the panel, has the colour.

set encoding utf8
set terminal pngcairo size 1600, 1100 font "DejaVu Sans,17" linewidth 1.6 background rgb "white"
data(name) = folder . "/" . name . ".dat"

membrane = 0x56606b
truth = 0xd55e00
ruby = 0x9fb9d0
target = 0x000000

ramp = 0x8ec1e8
back_off = 0xf5c266
recentre = 0xd9a3c4
watch = 0x8fd3b8
isobar = 0xe9e9e6
other = 0xe05050
state_color(s) = s == 1 ? ramp : s == 2 ? back_off : s == 3 ? recentre : s == 4 ? watch : s == 8 ? isobar : other

set border 3 linecolor rgb "#404040"
set tics out nomirror
set grid xtics ytics linecolor rgb "#dddddd" linewidth 0.8
set minussign
set key Left reverse opaque box linecolor rgb "#dddddd" samplen 2 spacing 1.2 font ",15"
