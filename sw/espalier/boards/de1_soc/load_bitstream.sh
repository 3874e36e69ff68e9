#!/bin/sh
# Put a bitstream into the FPGA: load_bitstream.sh espalier.rbf
#
# Where the kernel can do it (FPGA region, overlays through configfs), it is done now. Elsewhere
# the file goes to the boot partition, from which U-Boot loads it at the next start (boot.cmd).
# BOOT, FIRMWARE, CONFIGFS and ESPALIER may name other folders and another program.
set -eu

BOOT=${BOOT:-/boot/firmware}
FIRMWARE=${FIRMWARE:-/lib/firmware}
CONFIGFS=${CONFIGFS:-/sys/kernel/config}
OVERLAYS=$CONFIGFS/device-tree/overlays
REGION=${REGION:-$FIRMWARE/espalier-region.dtbo}

fail() {
    echo "load_bitstream.sh: $1" >&2
    exit 1
}

# A burst that is cut short can hang the memory port until the next power-up: nobody may use the
# accelerator, and what a killed process left running is stopped (the doctor does that).
settle() {
    for uio in /sys/class/uio/uio*; do
        if [ -e "$uio/name" ] && [ "$(cat "$uio/name")" = espalier ]; then
            flock -n "/dev/${uio##*/}" true ||
                fail "a process uses the accelerator; end it first (espalier doctor says which)"
        fi
    done
    "${ESPALIER:-espalier}" doctor >/dev/null 2>&1 || true
}

load_now() {
    settle
    install -m 644 "$1" "$FIRMWARE/espalier.rbf"
    [ ! -d "$OVERLAYS/espalier" ] || rmdir "$OVERLAYS/espalier"
    mkdir "$OVERLAYS/espalier"
    cat "$REGION" >"$OVERLAYS/espalier/dtbo"
    [ "$(cat "$OVERLAYS/espalier/status")" = applied ] ||
        fail "the kernel refused the bitstream; dmesg says why (MSEL switches? compression?)"
    echo "loaded; now: espalier doctor"
}

load_at_boot() {
    install -m 644 "$1" "$BOOT/espalier.rbf"
    echo "this kernel cannot configure the FPGA; U-Boot does at the next start: reboot, then" \
        "espalier doctor"
}

[ $# -eq 1 ] || fail "usage: load_bitstream.sh FILE.rbf"
[ -s "$1" ] || fail "$1: no such file, or it is empty"
if [ -d "$OVERLAYS" ] && [ -s "$REGION" ]; then
    load_now "$1"
elif [ -d "$BOOT" ]; then
    load_at_boot "$1"
else
    fail "neither $OVERLAYS with $REGION nor a boot partition at $BOOT is there (docs/board.md)"
fi
