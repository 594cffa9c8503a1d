#!/bin/sh
# cargo.sh CARGO SOURCE OUT DEPFILE: builds for release and puts the results into OUT with their dependencies, so that
# ninja calls cargo again only when a source has changed.
set -eu
cargo=$1 source=$2 out=$3 depfile=$4
target=${CARGO_TARGET_DIR:-$source/target}
"$cargo" build --release --locked --manifest-path "$source/Cargo.toml" --target-dir "$target" \
    -p gst-plugin-e2ee -p meeting-agent -p meeting-relay
for name in libgste2ee.so meeting-agent meeting-relay; do
    cp "$target/release/$name" "$out/$name"
done
{
    printf 'libgste2ee.so meeting-agent meeting-relay:'
    sed 's/^[^:]*://' "$target/release/libgste2ee.d" "$target/release/meeting-agent.d" "$target/release/meeting-relay.d" |
        tr '\n' ' '
    echo
} >"$depfile"
