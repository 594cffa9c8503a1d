#!/usr/bin/env python3
"""A meeting endpoint in one file: publishes a picture and a tone, receives everybody else's, and says where the meeting
stands. Ctrl-C ends it.

It needs PyGObject with plain GStreamer, the plugin, and a `meeting-agent` that is in a meeting: nothing else of ours.
"""
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst

PIPELINE = """meetingkey meetingsink name=out meetingsrc name=in
    videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=15/1
      ! vp8enc deadline=1 keyframe-max-dist=30 ! e2eeseal ! out.
    audiotestsrc is-live=true ! opusenc ! e2eeseal ! out."""


def receive(_source, pad):
    """Opens and decodes one track: a window or a file would go in place of the fakesink."""
    branch = Gst.parse_bin_from_description("queue name=first ! e2eeopen ! decodebin ! fakesink", False)
    branch.add_pad(Gst.GhostPad.new("sink", branch.get_by_name("first").get_static_pad("sink")))
    branch.set_name(pad.get_name())
    pipeline.add(branch)
    branch.sync_state_with_parent()
    pad.link(branch.get_static_pad("sink"))
    whose = pad.get_current_caps().get_structure(0)
    print("receiving", whose.get_value("track"), "of", whose.get_value("participant-name"), flush=True)


def end(_pipeline, name):
    if branch := pipeline.get_by_name(name):
        pipeline.remove(branch)
        branch.set_state(Gst.State.NULL)


def words(said):
    """What a person is told about a message of ours."""
    value, kind = said.get_value, said.get_name()
    # Other elements tell their state too; the meeting's has its code.
    if kind == "e2ee-state" and said.has_field("security-code"):
        if value("state") != "live":
            return f"{value('state')}: {value('detail')}"
        compared = "compared" if value("verified") else "not compared yet"
        return f"live: {value('participants')} people, key {value('epoch')}, code {value('security-code')} ({compared})"
    if kind == "e2ee-stream":
        return value("detail")
    if kind == "e2ee-open-failure":
        return f"a frame of {value('name')}'s {value('track')} is refused: {value('reason')}"


def hear(_bus, message):
    if said := words(message.get_structure()):
        print(said, flush=True)


def interrupt():
    pipeline.send_event(Gst.Event.new_eos())
    return True


Gst.init(None)
pipeline, loop, failures = Gst.parse_launch(PIPELINE), GLib.MainLoop(), []
pipeline.get_by_name("in").connect("pad-added", receive)
# Not from there: a streaming thread cannot stop what it runs in.
pipeline.get_by_name("in").connect("pad-removed", lambda _, pad: pipeline.call_async(end, pad.get_name()))
bus = pipeline.get_bus()
bus.add_signal_watch()
bus.connect("message::element", hear)
bus.connect("message::error", lambda _, m: failures.append(m.parse_error()[0].message) or loop.quit())
bus.connect("message::eos", lambda *_: loop.quit())
GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGINT, interrupt)
pipeline.set_state(Gst.State.PLAYING)
loop.run()
pipeline.set_state(Gst.State.NULL)
sys.exit(failures[0] if failures else 0)
