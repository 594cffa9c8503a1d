# For the scripts beside it: finds the programs and the plugin, and an agent that is in a meeting. Sourced.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
built=${E2EE_BUILD:-$here/target/release}
if [ -e "$built/libgste2ee.so" ]; then
    # A folder for the plugin alone: GStreamer searches this path to its depth.
    mkdir -p "$built/gstreamer-1.0" && ln -sf ../libgste2ee.so "$built/gstreamer-1.0/"
    export PATH=$built:$PATH GST_PLUGIN_PATH=$built/gstreamer-1.0${GST_PLUGIN_PATH:+:$GST_PLUGIN_PATH}
fi
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }
gst-inspect-1.0 e2eeseal >/dev/null 2>&1 || die "the plugin is not there: 'cargo build --release' in $here, or install it"

# Says what is missing before GStreamer does.
in_a_meeting() {
    meeting-agent status >/dev/null || die "join a meeting first: 'meeting-agent run &', then 'meeting-agent join'"
}

# For a script that needs more than the others: an element, and the packages that bring it.
needs() {
    gst-inspect-1.0 "$1" >/dev/null 2>&1 && return
    [ -x "$here/pipelines/setup" ] || die "the element $1 is not there: 'sudo apt-get install ${*:2}'"
    "$here/pipelines/setup" "${@:2}"
}

# What stands in where there is no camera, screen, microphone or loudspeaker: any gst-launch-1.0 description.
camera=${CAMERA:-v4l2src ! videoconvert}
microphone=${MICROPHONE:-autoaudiosrc}
export SCREEN=${SCREEN:-videoconvert ! autovideosink} SPEAKER=${SPEAKER:-audioconvert ! audioresample ! autoaudiosink}
h264="videoconvert ! x264enc tune=zerolatency speed-preset=veryfast bitrate=${BITRATE:-1500} key-int-max=60 ! h264parse"
opus="audioconvert ! audioresample ! opusenc"
