# Shared by the scripts of this directory: the project's root, its Debian packages and its build.
# shellcheck shell=bash disable=SC2034

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# source_of PACKAGE: prints the source package of a package in the archive.
source_of() {
    local source
    source=$(apt-cache show "$1" 2>/dev/null | sed -nE 's/^Source: ([^ ]+).*/\1/p' | head -n 1)
    printf '%s' "${source:-$1}"
}

# beside_installed PACKAGE: prints PACKAGE=VERSION if a package of the same source is installed in a version in which
# PACKAGE is available too, else PACKAGE. A newer version would upgrade the installed package.
beside_installed() {
    local version
    version=$(comm -12 <(apt-cache madison "$1" | awk -F ' *[|] *' '{ print $2 }' | sort -u) \
        <(dpkg-query -W -f='${db:Status-Abbrev} ${source:Package} ${Version}\n' |
            awk -v source="$(source_of "$1")" '$1 == "ii" && $2 == source { print $3 }' | sort -u) | tail -n 1)
    printf '%s' "$1${version:+=$version}"
}

# changes PLAN [COMPANIONS]: prints the installed packages that a simulated apt-get would upgrade or remove. With
# COMPANIONS it omits upgrades of packages of the same source as a new package: they must have its version, because the
# archive no longer has the installed one.
changes() {
    local package source new=
    # "Inst NAME [VERSION] (...)" replaces VERSION; without VERSION the package is new.
    [ -z "${2:-}" ] || new=$(sed -nE 's/^Inst ([^ ]+) \(.*/\1/p' <<<"$1" | while read -r package; do
        printf ' %s ' "$(source_of "$package")"
    done)
    sed -nE 's/^Remv ([^ ]+).*/\1/p' <<<"$1"
    sed -nE 's/^Inst ([^ ]+) \[.*/\1/p' <<<"$1" | while read -r package; do
        source=$(dpkg-query -W -f='${source:Package}\n' "$package" | head -n 1)
        if [[ $new == *" $source "* ]]; then say "this upgrades $package, too"; else printf '%s\n' "$package"; fi
    done
}

# need [--companions] PACKAGE...: as root installs missing packages, otherwise prints the command for it. It does not
# upgrade or remove installed packages: the machine may have other uses, and an upgrade restarts its services.
# Exceptions: CI machines (CI=true), and with --companions packages of the same source as a missing one.
need() {
    local missing=() wanted=() lists package plan changed companions=
    if [ "$1" = --companions ]; then
        companions=yes
        shift
    fi
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if [ "$(id -u)" -ne 0 ]; then
        die "missing packages; run: sudo apt-get update && sudo apt-get install -y ${missing[*]}"
    fi
    say "installing ${missing[*]}"
    # An old package list may have versions that are no longer available.
    for lists in old new; do
        wanted=()
        for package in "${missing[@]}"; do wanted+=("$(beside_installed "$package")"); done
        if plan=$(LC_ALL=C apt-get -s -q --no-install-recommends install "${wanted[@]}" 2>&1); then
            changed=$(changes "$plan" $companions | paste -sd ' ')
            [ -z "$changed" ] || [ "${CI:-}" = true ] || die "installing ${missing[*]} would upgrade or remove $changed; to allow it, run: \
apt-get install --no-install-recommends ${missing[*]}"
            plan=$(DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o DPkg::Lock::Timeout=300 --no-install-recommends "${wanted[@]}" 2>&1) && return 0
        fi
        [ $lists = new ] || apt-get update -qq || die "apt-get update failed"
    done
    die "cannot install ${missing[*]}: $(grep '^E: ' <<<"$plan" || tail -n 1 <<<"$plan")"
}

# need_tool PACKAGE FILE: extracts one program of a Debian package to .build/tools. Use it for packages that would start
# a service when installed.
need_tool() {
    local package=$1 file=$2 directory tool
    tool=$root/.build/tools/$(basename "$file")
    { command -v "$(basename "$file")" >/dev/null || [ -x "$tool" ]; } && return 0
    say "fetching $(basename "$file")"
    directory=$(mktemp -d)
    # apt-get verifies the package's signature, and downloads as another user if it can.
    chmod 755 "$directory"
    (cd "$directory" && { apt-get download -qq "$package" || { apt-get update -qq && apt-get download -qq "$package"; }; }) \
        >/dev/null 2>&1 || die "cannot download $package"
    mkdir -p "$root/.build/tools"
    dpkg-deb --fsys-tarfile "$directory"/*.deb | tar -xO "./$file" >"$tool.new" || die "$package does not contain $file"
    chmod 755 "$tool.new"
    mv "$tool.new" "$tool"
    rm -rf "$directory"
}

need_swift() {
    command -v swift >/dev/null || die "swift not found; install Swift 6.2 or later from https://www.swift.org/install/linux/"
}

# Installs the build dependencies. They are indispensable, so a machine that has missed a point release of Debian gets
# the new version of a library together with its headers.
need_build() {
    need --companions libcurl4-openssl-dev libtomlplusplus-dev libuv1-dev libssl-dev pkg-config
    need_swift
}

# Build options of the programs that are shipped and tested end to end. They need no Swift on the target machine and
# search no library next to themselves; relocations are read-only once they run (-z now). They have no build ID, which
# would differ with each build.
# Colours are a compiler argument: without --no-color-diagnostics, a build with redirected output would recompile all.
shipped=(-c release --no-color-diagnostics --static-swift-stdlib --disable-local-rpath -Xlinker -z -Xlinker now -Xlinker
    --build-id=none)

# build PRODUCT: builds a program as it is shipped. Hides the linker's warning about mktemp(3), which the static
# Foundation uses and no source here can change. All other output and, with pipefail, the exit code are kept.
build() {
    swift build "${shipped[@]}" --product "$1" 2>&1 |
        sed -u "/libFoundationEssentials\.a(.*: warning: the use of \`mktemp' is dangerous/d" >&2
}
