#!/bin/sh
# cargo.sh CARGO SOURCE OUT DEPFILE PROFILE ARGUMENT...: builds and puts the results into OUT with their dependencies, so
# that ninja calls cargo again only when a source has changed.
set -eu
cargo=$1 source=$2 out=$3 depfile=$4 profile=$5
shift 5
target=${CARGO_TARGET_DIR:-$source/target}
built=$target/$profile
if [ "$profile" = dev ]; then
    built=$target/debug
    # What a packager sets would make cargo compile all C code anew.
    unset CFLAGS CXXFLAGS CPPFLAGS LDFLAGS SOURCE_DATE_EPOCH
else
    # No path of this machine goes into a release, so that it comes out the same wherever it is built (tests/checks/reproducible).
    # As cargo reads them: RUSTFLAGS come apart at blanks, of which there may be many. Flags of cargo's configuration do not count here.
    between=$(printf '\037')
    set -f
    flags=${CARGO_ENCODED_RUSTFLAGS:-}
    [ -n "$flags" ] || for flag in ${RUSTFLAGS:-}; do flags=${flags:+$flags$between}$flag; done
    set +f
    for place in "$source=/gst-e2ee" "$target=/gst-e2ee/target" "${CARGO_HOME:-$HOME/.cargo}=/cargo"; do
        flags=${flags:+$flags$between}--remap-path-prefix=$place
    done
    export CARGO_ENCODED_RUSTFLAGS="$flags"
fi
"$cargo" build --profile "$profile" --locked --manifest-path "$source/Cargo.toml" --target-dir "$target" "$@"
install -m 644 "$built/libgste2ee.so" "$out/"
install -m 755 "$built/meeting-agent" "$built/meeting-relay" "$out/"
{
    printf '%s ' "$out/libgste2ee.so" "$out/meeting-agent" "$out/meeting-relay:" "$source/Cargo.toml" "$source/Cargo.lock"
    sed 's/^[^:]*://' "$built/libgste2ee.d" "$built/meeting-agent.d" "$built/meeting-relay.d" | tr '\n' ' '
    echo
} >"$depfile"
