# make            everything, into build/
# make asan       the same with address and undefined-behaviour sanitizers,
#                 its own nginx included, into build-asan/
# make unit       C unit tests, built and run
# make install    into DESTDIR, below PREFIX
# make clean

VERSION  := $(shell cat VERSION)
BUILD    ?= build
PREFIX   ?= /usr
NGINX_SRC ?= /usr/share/nginx/src

CC       ?= cc
CFLAGS   ?= -g -O2
WARN     := -Wall -Wextra -Wshadow -Wformat=2 -Wvla -Wstrict-prototypes \
            -Wmissing-prototypes -Wpointer-arith -Wcast-qual \
            -Wno-unused-parameter -Werror
HARDEN   := -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fPIE
HARDEN_L := -Wl,-z,relro -Wl,-z,now -pie
SANITIZE :=

ifneq ($(filter %-asan,$(BUILD)),)
CFLAGS   := -g -O1
SANITIZE := -fsanitize=address,undefined -fno-sanitize=alignment \
            -fno-omit-frame-pointer
HARDEN   := -fPIE
endif

ALL_CFLAGS = -std=gnu11 $(CFLAGS) $(WARN) $(HARDEN) $(SANITIZE) -Ihelper \
             -DLEMONADE_VERSION='"$(VERSION)"' -DLEMONADE_PREFIX='"$(PREFIX)"'

# Files with a main() of their own, and files that several programs share.
TOOLS    := helper/scripted_model.c helper/scripted_gguf.c
SHARED   := helper/state.c helper/paths.c
HELPER   := $(filter-out $(TOOLS),$(wildcard helper/*.c))
CLI      := $(wildcard lemonade-cli/*.c) helper/paths.c
UNIT     := $(wildcard tests/unit/test_*.c)

HELPER_LIBS := -levent_core -ljansson -lcrypto
CLI_LIBS    := -lcurl -ljansson

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))

.PHONY: all asan module helper cli model share unit install clean FORCE
all: module helper cli model share
module: $(BUILD)/ngx_http_lemonade_module.so
helper: $(BUILD)/lemonade-helper
cli: $(BUILD)/lemonade-cli
model: $(BUILD)/share/models/Lemonade-Demo.gguf

asan:
	script/build-nginx-asan
	$(MAKE) BUILD=build-asan all

$(BUILD)/obj/%.o: %.c VERSION Makefile
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/lemonade-helper: $(call obj,$(HELPER))
	$(CC) $(SANITIZE) $(LDFLAGS) $(HARDEN_L) -o $@ $^ $(HELPER_LIBS)

$(BUILD)/lemonade-cli: $(call obj,$(CLI))
	$(CC) $(SANITIZE) $(LDFLAGS) $(HARDEN_L) -o $@ $^ $(CLI_LIBS)

$(BUILD)/scripted-model: $(call obj,$(TOOLS))
	$(CC) $(SANITIZE) $(LDFLAGS) $(HARDEN_L) -o $@ $^

# The demo model: what it says is in registry/demo.txt.
$(BUILD)/share/models/Lemonade-Demo.gguf: $(BUILD)/scripted-model \
    registry/demo.txt
	@mkdir -p $(@D)
	$(BUILD)/scripted-model --answer-file registry/demo.txt $@

share:
	@mkdir -p $(BUILD)/share
	@for d in conf html registry; do \
	    ln -sfn $(CURDIR)/$$d $(BUILD)/share/$$d; done

# The module is built by nginx's own configure, from the files of nginx-dev,
# so that its signature is the installed nginx's.
MODULE_SRC := $(wildcard ngx_lemonade_module/*.[ch]) helper/state.c \
              helper/state.h

$(BUILD)/nginx-src/objs/Makefile: config Makefile
	rm -rf $(BUILD)/nginx-src
	mkdir -p $(BUILD)
	cp -rs $(realpath $(NGINX_SRC)) $(BUILD)/nginx-src
	bash -c 'set -e; . $(NGINX_SRC)/conf_flags; cd $(BUILD)/nginx-src; \
	    ./configure "$${NGX_CONF_FLAGS[@]}" \
	    --with-cc-opt="$(CFLAGS) -Wextra -Wshadow -Wformat=2 \
	        -Wno-unused-parameter -Wno-cast-function-type \
	        -fstack-protector-strong -D_FORTIFY_SOURCE=2" \
	    --with-ld-opt="-Wl,-z,relro -Wl,-z,now" \
	    --add-dynamic-module=$(CURDIR) > configure.log'

ifeq ($(SANITIZE),)
$(BUILD)/ngx_http_lemonade_module.so: $(BUILD)/nginx-src/objs/Makefile \
    $(MODULE_SRC)
	$(MAKE) -C $(BUILD)/nginx-src -s -f objs/Makefile modules
	cp --remove-destination $(BUILD)/nginx-src/objs/$(@F) $@
else
$(BUILD)/ngx_http_lemonade_module.so: $(MODULE_SRC)
	$(MAKE) -C $(BUILD)/nginx-src -s -f objs/Makefile modules
	cp --remove-destination $(BUILD)/nginx-src/objs/$(@F) $@
endif

# Each unit test is one program: tests/unit/test_X.c, linked with the files
# it names in a line "link: helper/x.c ...".
UNIT_BINS := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT))

$(BUILD)/unit/%: tests/unit/%.c $(wildcard helper/*.[ch]) \
    $(wildcard ngx_lemonade_module/*scan*)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -Ingx_lemonade_module -o $@ $< \
	    $$(sed -n 's/.*link: *//p' $<) $(LDFLAGS) $(HELPER_LIBS)

unit: $(UNIT_BINS)
	@for t in $(UNIT_BINS); do echo "$$t"; $$t || exit 1; done

# Programs find their data relative to themselves, so a tree installed below
# DESTDIR runs from there, too.
D = $(DESTDIR)$(PREFIX)

install: all
	install -D -m 755 $(BUILD)/lemonade-cli $(D)/bin/lemonade-cli
	install -D -m 755 $(BUILD)/lemonade-helper $(D)/sbin/lemonade-helper
	ln -sf lemonade-cli $(D)/bin/lemonade-server
	ln -sf lemonade-cli $(D)/bin/lemonade-server-dev
	install -D -m 644 $(BUILD)/ngx_http_lemonade_module.so \
	    $(D)/lib/nginx/modules/ngx_http_lemonade_module.so
	install -D -m 644 conf/mod-http-lemonade.conf \
	    $(D)/share/nginx/modules-available/mod-http-lemonade.conf
	install -D -m 644 conf/lemonade-helper.service \
	    $(D)/lib/systemd/system/lemonade-helper.service
	install -D -m 644 lemonade-cli/lemonade-cli.1 \
	    $(D)/share/man/man1/lemonade-cli.1
	install -D -m 644 conf/lemonade-helper.8 \
	    $(D)/share/man/man8/lemonade-helper.8
	install -d $(D)/share/lemonade/conf $(D)/share/lemonade/html \
	    $(D)/share/lemonade/registry $(D)/share/lemonade/models
	install -m 644 conf/lemonade.conf conf/lemonade-locations.conf \
	    conf/serve.conf.in $(D)/share/lemonade/conf
	cp -R html/. $(D)/share/lemonade/html
	install -m 644 registry/*.json $(D)/share/lemonade/registry
	install -m 644 $(BUILD)/share/models/Lemonade-Demo.gguf \
	    $(D)/share/lemonade/models

clean:
	rm -rf build build-asan

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
