"""What pipelines/watch-wall and listen run: all pictures in one and all voices in one, as people come and go."""
import math
import os
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst

from shield import Shield

NAME = "listen" if "--voices" in sys.argv else "watch-wall"
WIDTH, HEIGHT = 1280, 720
BADGE = "rsvgoverlay name=badge !" if "--shield" in sys.argv else ""
# Live even while nobody is there: a black window, and silence.
MIX = {"video": f"""compositor name=video force-live=true background=black
         ! video/x-raw,width={WIDTH},height={HEIGHT},framerate=25/1 ! {BADGE} {os.environ["SCREEN"]}""",
       "audio": f"""audiomixer name=audio force-live=true
         ! audio/x-raw,rate=48000,channels=2 ! {os.environ["SPEAKER"]}"""}
DECODE = {"video": "decodebin ! queue name=last", "audio": "decodebin ! audioconvert ! audioresample ! queue name=last"}
if "--voices" in sys.argv:
    del MIX["video"]


def come(pad):
    kind, who = pad.get_name().split("_")[0], pad.get_current_caps().get_structure(0)
    if kind in MIX:
        branch = Gst.parse_bin_from_description(f"queue name=first ! e2eeopen ! {DECODE[kind]}", False)
        for name, end in (("sink", "first"), ("src", "last")):
            branch.add_pad(Gst.GhostPad.new(name, branch.get_by_name(end).get_static_pad(name)))
        pipeline.add(branch)
        mixed = pipeline.get_by_name(kind).request_pad_simple("sink_%u")
        branch.get_static_pad("src").link(mixed)
        branches[pad.get_name()] = branch, mixed
        arrange()
        branch.sync_state_with_parent()
        pad.link(branch.get_static_pad("sink"))
        print("+", who.get_string("participant-name"), who.get_string("track"), flush=True)


def go(name):
    if name in branches:
        branch, mixed = branches.pop(name)
        pipeline.remove(branch)
        branch.set_state(Gst.State.NULL)
        mixed.get_parent_element().release_request_pad(mixed)
        arrange()
        print("-", name, flush=True)


def arrange():
    """Gives each picture its part of a grid that is as square as can be."""
    pictures = [mixed for name, (_, mixed) in branches.items() if name.startswith("video_")]
    across = max(1, math.ceil(math.sqrt(len(pictures))))
    rows = [pictures[n : n + across] for n in range(0, len(pictures), across)]
    width, height = WIDTH // across, HEIGHT // across
    for down, row in enumerate(rows):
        for n, picture in enumerate(row):
            picture.set_property("sizing-policy", "keep-aspect-ratio")
            picture.set_property("width", width)
            picture.set_property("height", height)
            picture.set_property("xpos", n * width + (WIDTH - len(row) * width) // 2)
            picture.set_property("ypos", down * height + (HEIGHT - len(rows) * height) // 2)


def fail(error):
    errors.append(f"{NAME}: {error}")
    loop.quit()


Gst.init(None)
errors, branches, loop, shield = [], {}, GLib.MainLoop(), Shield()
pipeline = Gst.parse_launch(" ".join(["meetingkey meetingsrc name=in", *MIX.values()]))
# Pads come and go in threads of GStreamer's: one at a time is arranged.
pipeline.get_by_name("in").connect("pad-added", lambda _, pad: GLib.idle_add(come, pad))
pipeline.get_by_name("in").connect("pad-removed", lambda _, pad: GLib.idle_add(go, pad.get_name()))
bus = pipeline.get_bus()
bus.add_signal_watch()
if BADGE:
    shield.cover(pipeline.get_by_name("badge"))
    bus.connect("message::element", lambda _, message: shield.read(message.get_structure()))
bus.connect("message::latency", lambda *_: pipeline.recalculate_latency())
bus.connect("message::warning", lambda _, m: m.src.get_name() == "in" and print(m.parse_warning()[0].message, flush=True))
bus.connect("message::error", lambda _, message: fail(message.parse_error()[0].message))
GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGINT, loop.quit)
pipeline.set_state(Gst.State.PLAYING)
loop.run()
pipeline.set_state(Gst.State.NULL)
sys.exit("\n".join(errors) or 0)
