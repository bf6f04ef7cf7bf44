# One Makefile for everything. `make rehearse` and `make test` do their own set-up, once, and say what they install.
#
#   make            the programs, in build/release/bin
#   make rehearse   a small compression and decompression on simulated instruments, in minutes
#   make test       unit, wire and end-to-end tests
#   make rehearse-ten  ten rehearsals with ten seeds
#   make bench      frames to photon events to two-time correlation, beside what bounds each, and the analysis as a whole;
#                   bench-peers: beside h5py and numpy; bench-online: one scan at its real pace, with all that runs in a night
#                   bench-bright: bright scans, photon by photon and in bit planes
#   make soak-ruby  a million ruby spectra of every faulty kind through the fit
#   make soak-fits  tau, beta and contrast of simulated scans whose truth is known, and their uncertainties
#   make figures    pictures of the loading protocol at work
#   make fuzz       every parser fed with damaged input under the sanitizers (SECONDS=60 each, PARSERS="ocean pace")
#   make check      the same unit and wire tests under ASan and UBSan, lint, format
#   make clean      removes what was built (not what was installed)

VARIANT ?= release
B := build/$(VARIANT)

DEBIAN_PACKAGES := gcc libc6-dev make pkg-config libmodbus-dev libserialport-dev libsqlite3-dev libgsl-dev libhdf5-dev \
	liblz4-dev libxxhash-dev libjansson-dev liblua5.4-dev libcmocka-dev libcap-dev python3 python3-venv python3-pip \
	python3-pyepics python3-h5py python3-numpy python3-scipy python3-pyfai python3-pymodbus bitshuffle
EPICSCORELIBS := 7.0.7.99.1.1
PYTHON := /usr/bin/python3

PROGRAMS := controller/isobard controller/isobar analysis/isobar-analyze sim/isobar-sim
FOLDERS := base sequences db drivers analysis sim controller

.DEFAULT_GOAL := all

ifneq ($(filter-out clean,$(or $(MAKECMDGOALS),all)),)
include build/config.mk
endif

# ---- set-up: Debian packages, and EPICS from the pinned wheel or from EPICS_BASE --------------------------------------

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

build/config.mk: Makefile
	@mkdir -p build
	@missing=""; for p in $(DEBIAN_PACKAGES); do \
	  dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  echo "set-up: installing Debian packages:$$missing"; \
	  $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends $$missing >build/apt.log 2>&1 || \
	    { tail -n 20 build/apt.log; echo "set-up: apt-get failed; see build/apt.log"; exit 1; }; fi
	@rm -rf build/epics
	@if [ -n "$(EPICS_BASE)" ]; then ln -s "$(EPICS_BASE)" build/epics; else \
	  if [ ! -f build/venv/.epicscorelibs-$(EPICSCORELIBS) ]; then \
	    echo "set-up: installing epicscorelibs $(EPICSCORELIBS) with pip into build/venv"; \
	    rm -rf build/venv && $(PYTHON) -m venv build/venv && \
	    build/venv/bin/pip install -q --disable-pip-version-check --no-deps epicscorelibs==$(EPICSCORELIBS) && \
	    touch build/venv/.epicscorelibs-$(EPICSCORELIBS) || exit 1; fi; \
	  cd build && ln -s venv/lib/python3*/site-packages/epicscorelibs epics; fi
	@{ echo "PKG_CFLAGS := $$(pkg-config --cflags libmodbus libserialport sqlite3 gsl hdf5-serial liblz4 libxxhash jansson lua5.4 | sed 's/-I/-isystem /g')"; \
	   echo "PKG_LIBS := $$(pkg-config --libs libmodbus libserialport sqlite3 gsl hdf5-serial liblz4 libxxhash jansson lua5.4)"; \
	   echo "EPICS_LIB := $$([ -d build/epics/lib/linux-x86_64 ] && echo lib/linux-x86_64 || echo lib)"; } >$@

EPICS_CFLAGS := -DUNIX -Dlinux -isystem build/epics/include -isystem build/epics/include/os/Linux \
	-isystem build/epics/include/compiler/gcc
EPICS_LIBS = -Lbuild/epics/$(EPICS_LIB) -Wl,-rpath,'$$ORIGIN/../../epics/$(EPICS_LIB)' -ldbRecStd -ldbCore -lca -lCom

# ---- compile and link --------------------------------------------------------------------------------------------------

SANITIZE_release :=
# The fuzzed objects are clang's: libFuzzer counts the edges that its compiler marks.
ifeq ($(VARIANT),fuzz)
CC := clang-14
endif
SANITIZE_fuzz := -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined -fno-omit-frame-pointer
SANITIZE_asan := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer

WAIVED_gcc := -Wno-format-truncation # snprintf bounds what it writes; long sentences are cut, not refused
WAIVED_clang := -Wno-string-conversion # assert(!"sentence")
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Werror \
	$(WAIVED_$(if $(filter clang%,$(CC)),clang,gcc))
CFLAGS := -std=c17 -O2 -g -D_GNU_SOURCE -ffp-contract=off $(WARNINGS) $(SANITIZE_$(VARIANT))
CPPFLAGS = -I. $(EPICS_CFLAGS) $(PKG_CFLAGS)
LDLIBS = $(PKG_LIBS) $(EPICS_LIBS) -lcap -lpthread -lm
LDFLAGS := -rdynamic -Wl,--as-needed $(SANITIZE_$(VARIANT))

SOURCES := $(filter-out $(PROGRAMS:%=%.c),$(wildcard $(FOLDERS:%=%/*.c)))
OBJECTS := $(SOURCES:%.c=$(B)/%.o)
BINARIES := $(patsubst %,$(B)/bin/%,$(notdir $(PROGRAMS)))
FUZZ_PROGRAMS := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/fuzz_*.c))
TEST_PROGRAMS := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/test_*.c)) $(FUZZ_PROGRAMS)
NIGHTS := $(patsubst %.c,$(B)/%.o,$(wildcard tests/nights/*.c))

all: $(BINARIES)

# `make V=1` shows the commands.
Q := $(if $(V),,@)
say = @printf '  %-4s %s\n' $(1) $(2)

$(B)/%.o: %.c build/config.mk
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS) $(CPPFLAGS) -MMD -MP -c -o $@ $<

# The sums along a row of the two-time correlation are for the vector units.
$(B)/analysis/ttcf.o $(B)/analysis/ttcf_result.o: CFLAGS += -O3

# The schema is taken in by the assembler, which leaves no dependency behind.
$(B)/db/store.o: db/schema.sql

$(B)/libisobar.a: $(OBJECTS)
	@rm -f $@
	$(call say,AR,$@)
	$(Q)ar rcs $@ $^

define program
$(B)/bin/$(notdir $(1)): $(B)/$(1).o $(B)/libisobar.a
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)
	$$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(LDLIBS)
endef
$(foreach p,$(PROGRAMS),$(eval $(call program,$(p))))

# A fuzz target's main is libFuzzer's, or the one that replays its seeds.
FUZZ_MAIN := $(B)/tests/fuzz/$(if $(filter fuzz,$(VARIANT)),libfuzzer,replay).o
$(B)/tests/fuzz_%: $(B)/tests/fuzz_%.o $(B)/tests/fuzz/file.o $(FUZZ_MAIN) $(B)/libisobar.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) $(if $(filter fuzz,$(VARIANT)),-fsanitize=fuzzer) -o $@ $^ $(LDLIBS)

$(B)/tests/%: $(B)/tests/%.o $(NIGHTS) $(B)/libisobar.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

.SECONDARY:
-include $(wildcard $(B)/*/*.d $(B)/*/*/*.d)

# ---- run ---------------------------------------------------------------------------------------------------------------

rehearse: all
	@$(B)/bin/isobar rehearse sequences/first_light.lua

# Ten seeds drawn and printed; every verdict must be good. About a quarter of an hour on two cores.
rehearse-ten: all
	@failed=0; for i in 1 2 3 4 5 6 7 8 9 10; do \
	  $(B)/bin/isobar rehearse sequences/first_light.lua --dir build/rehearsal-ten/$$i >build/rehearsal-ten.log 2>&1 || failed=$$((failed + 1)); \
	  head -n 1 build/rehearsal-ten.log; grep -E 'FAIL|^  +[0-9]\.[0-9]{2} |^rehearsal:' build/rehearsal-ten.log; \
	  rm -rf build/rehearsal-ten/$$i/raw; done; \
	echo "rehearse-ten: $$((10 - failed)) of 10 seeds passed"; [ $$failed = 0 ]

test: all $(TEST_PROGRAMS)
	@tests/run $(B)

# The loading protocol on cells drawn at random, two laws of creep, beside two lesser protocols: JSON lines.
bench-loading: $(B)/tests/bench_loading
	$< $(CELLS)

# Compressed frames to photon events, beside the walk over their LZ4 tokens that bounds it: JSON lines.
# Then the analysis as a whole, on a series of 2.6 GB that is drawn once.
bench: all $(B)/tests/bench_decode $(B)/tests/bench_ttcf $(B)/tests/bench_series
	@$(B)/tests/bench_decode $(CASES)
	@$(B)/tests/bench_ttcf
	@$(PYTHON) tests/bench_whole.py $(B)

# Bright scans, counted photon by photon and in bit planes: JSON lines, of all means or of one (MEAN=0.05).
bench-bright: $(B)/tests/bench_ttcf
	@$< bright $(MEAN)

# One scan at its real pace beside the daemon that has it followed: FRAMES=14000 at RATE=10 take 24 minutes.
bench-online: all
	@$(PYTHON) tests/bench_online.py $(B)

# The same beside h5py and numpy on the same files.
bench-peers: $(B)/tests/bench_decode
	@$(PYTHON) tests/bench_decode_peer.py $(B) $(CASES)

# A million ruby spectra of every faulty kind through the fit: one JSON line per kind. An hour of one core.
SPECTRA ?= 1000000
soak-ruby: $(B)/tests/soak_ruby
	$< $(SPECTRA) $(or $(SEED),1) $(KINDS)

# tau, beta and contrast of simulated scans, 200 per case, and how honest their sigmas are: one JSON line per case. Two hours
# of one core; SCANS=N, SEED=N, CASES="tau=30,beta=1.5,contrast=0.1 ..." (tau in frames).
soak-fits: all
	@OMP_NUM_THREADS=1 nice $(PYTHON) tests/soak_fits.py $(B)

# Pictures of the protocol at work, with their data, in build/figures: the ladder, one load in four ways, the drift.
figures: $(B)/tests/figure_loading
	@command -v gnuplot >/dev/null || { echo "set-up: installing Debian package gnuplot-nox"; \
	  $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends gnuplot-nox >build/apt.log 2>&1 || \
	    { tail -n 20 build/apt.log; echo "set-up: apt-get failed; see build/apt.log"; exit 1; }; }
	@mkdir -p build/figures
	@$< build/figures $(SEED)
	@for f in ladder load drift; do gnuplot -e "folder='build/figures'" tests/figures/$$f.gp && \
	  echo "build/figures/$$f.png" || exit 1; done

# Nights with faults from seeds drawn and printed, ten times as many as the tests play; SEED= of a line repeats it.
soak-nights: $(B)/tests/test_night
	@failed=0; for i in 1 2 3 4 5 6 7 8 9 10; do seed=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); \
	  SEED=$$seed $< >build/soak-nights.log 2>&1 && echo "soak-nights: SEED=$$seed passed" || \
	  { failed=$$((failed + 1)); echo "soak-nights: SEED=$$seed FAILED"; grep -B3 -E 'complaint|broken|ERROR' build/soak-nights.log | tail -n 20; }; \
	done; [ $$failed = 0 ]

# The night with other hands at a PACE, twenty times with twenty cells. A quarter of an hour.
soak-membrane: all
	@failed=0; for i in $$(seq 20); do $(PYTHON) tests/night_membrane.py $(B) >build/soak-membrane.log 2>&1 || \
	  { failed=$$((failed + 1)); grep -E 'SEED=|FAIL|Error' build/soak-membrane.log; }; done; \
	echo "soak-membrane: $$((20 - failed)) of 20 nights passed"; [ $$failed = 0 ]

# Every parser under libFuzzer, AddressSanitizer and UBSan, one after the other; the corpus stays in build/fuzz/corpus.
SECONDS ?= 60
PARSERS ?= $(patsubst tests/fuzz_%.c,%,$(wildcard tests/fuzz_*.c))
fuzz: $(PARSERS:%=build/release/tests/fuzz_%)
	@command -v clang-14 >/dev/null && [ -d /usr/lib/llvm-14/lib/clang ] && ls /usr/lib/llvm-14/lib/clang/*/lib/linux/libclang_rt.fuzzer-* >/dev/null 2>&1 || { \
	  echo "set-up: installing Debian packages clang-14 and libclang-rt-14-dev"; \
	  $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends clang-14 libclang-rt-14-dev >build/apt.log 2>&1 || \
	    { tail -n 20 build/apt.log; echo "set-up: apt-get failed; see build/apt.log"; exit 1; }; }
	@$(MAKE) --no-print-directory VARIANT=fuzz $(PARSERS:%=build/fuzz/tests/fuzz_%)
	@tests/fuzz/run $(SECONDS) $(PARSERS)

# Lines of the loading protocol and the interlock that no test reaches: there must be none.
coverage: $(B)/libisobar.a
	@tests/coverage $(B)

test-short: all $(TEST_PROGRAMS)
	@tests/run --no-nights $(B)

check:
	$(MAKE) VARIANT=asan test-short
	tests/lint
	$(MAKE) format-check

format format-check:
	@command -v clang-format-14 >/dev/null || { echo "set-up: installing Debian package clang-format-14"; \
	  $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends clang-format-14 >build/apt.log 2>&1; }
	clang-format-14 $(if $(filter format,$@),-i,--dry-run --Werror) $$(git ls-files '*.c' '*.h')

clean:
	rm -rf build/release build/asan build/fuzz build/coverage build/rehearsal* build/config.mk

.PHONY: all rehearse rehearse-ten test test-short check coverage format format-check fuzz figures bench bench-bright \
	bench-peers bench-online bench-loading soak-ruby soak-fits soak-nights soak-membrane clean
