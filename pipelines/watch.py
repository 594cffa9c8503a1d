"""What pipelines/watch and watch-all run: a branch for each track of one person or all, as they come and go."""
import os
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst

from captions import OVERLAY, Captions
from shield import Shield

NAME = "watch" if sys.argv[1] else "watch-all"
shield = Shield() if "--shield" in sys.argv[2:] else None
captions = Captions() if "--captions" in sys.argv[2:] else None
# A picture that stands still is shown again and again, or the shield could not tell why.
SHIELDED = "compositor background=black ! rsvgoverlay name=badge !" if shield else ""
CAPTIONED = f"{OVERLAY} !" if captions else ""
ENDS = {"video": f"decodebin ! queue ! {SHIELDED} {CAPTIONED} {os.environ['SCREEN']}",
        "audio": f"decodebin ! queue ! {os.environ['SPEAKER']}",
        "data": "fakesink name=data signal-handoffs=true sync=false async=false"}


def come(_source, pad):
    kind, who = pad.get_name().split("_")[0], pad.get_current_caps().get_structure(0)
    participant, name = who.get_string("participant"), who.get_string("participant-name")
    branch = Gst.parse_bin_from_description(f"queue name=first ! e2eeopen ! {ENDS[kind]}", False)
    branch.add_pad(Gst.GhostPad.new("sink", branch.get_by_name("first").get_static_pad("sink")))
    if badge := branch.get_by_name("badge"):
        GLib.idle_add(shield.cover, badge)
    if words := branch.get_by_name("words"):
        GLib.idle_add(captions.cover, words, participant)
    if captions and who.get_string("original-media-type") == "text/x-raw":
        branch.get_by_name("data").connect("handoff", lambda _, frame, __: GLib.idle_add(
            captions.hear, participant, name, frame.extract_dup(0, frame.get_size())))
    pipeline.add(branch)
    branch.sync_state_with_parent()
    pad.link(branch.get_static_pad("sink"))
    branches[pad.get_name()] = branch
    print("+", name, who.get_string("track"), flush=True)


def go(_source, pad):
    if branch := branches.pop(pad.get_name(), None):
        GLib.idle_add(end, branch)
        print("-", pad.get_name(), flush=True)


def end(branch):
    # Locked, or a change of state that the pipeline has begun would bring it up again.
    branch.set_locked_state(True)
    branch.set_state(Gst.State.NULL)
    pipeline.remove(branch)
    if badge := branch.get_by_name("badge"):
        shield.uncover(badge)
    if words := branch.get_by_name("words"):
        captions.uncover(words)
    return False


def fail(error):
    errors.append(f"{NAME}: {error}")
    loop.quit()


Gst.init(None)
errors, branches, loop, pipeline = [], {}, GLib.MainLoop(), Gst.parse_launch("meetingkey meetingsrc name=in")
pipeline.get_by_name("in").set_property("participant", sys.argv[1])
pipeline.get_by_name("in").connect("pad-added", come)
pipeline.get_by_name("in").connect("pad-removed", go)
pipeline.get_bus().add_signal_watch()
if shield:
    pipeline.get_bus().connect("message::element", lambda _, message: shield.read(message.get_structure()))
pipeline.get_bus().connect("message::latency", lambda *_: pipeline.recalculate_latency())
pipeline.get_bus().connect("message::warning", lambda _, m: m.src.get_name() == "in" and print(m.parse_warning()[0].message, flush=True))
pipeline.get_bus().connect("message::error", lambda _, message: fail(message.parse_error()[0].message))
GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGINT, loop.quit)
pipeline.set_state(Gst.State.PLAYING)
loop.run()
pipeline.set_state(Gst.State.NULL)
sys.exit("\n".join(errors) or 0)
