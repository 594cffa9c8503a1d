#!/usr/bin/env python3
"""A meeting endpoint in one file: joins, publishes a picture and a tone, receives everybody else's.

    embed.py LINK-FILE SECONDS [--main-loop]

It needs PyGObject with plain GStreamer, the plugin and a running `meeting-agent`: nothing else of the meeting.
"""
import os
import subprocess
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst

PIPELINE = """meetingkey meetingsink name=out meetingsrc name=in
    videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=15/1 ! vp8enc deadline=1 ! e2eeseal ! out.
    audiotestsrc is-live=true ! opusenc ! e2eeseal ! out."""


def receive(_source, pad, pipeline):
    """Opens, decodes and counts: a window or a file would go in place of the fakesink."""
    branch = Gst.parse_bin_from_description("queue name=first ! e2eeopen ! decodebin ! fakesink", False)
    branch.add_pad(Gst.GhostPad.new("sink", branch.get_by_name("first").get_static_pad("sink")))
    pipeline.add(branch)
    branch.sync_state_with_parent()
    pad.link(branch.get_static_pad("sink"))
    print("receiving", pad.get_name(), flush=True)


link_file, seconds = sys.argv[1], int(sys.argv[2])
subprocess.run([os.environ.get("MEETING_AGENT", "meeting-agent"), "join", "--link-file", link_file], check=True)

Gst.init(None)
pipeline = Gst.parse_launch(PIPELINE)
pipeline.get_by_name("in").connect("pad-added", receive, pipeline)
pipeline.set_state(Gst.State.PLAYING)

if "--main-loop" in sys.argv:
    loop = GLib.MainLoop()
    GLib.timeout_add_seconds(seconds, loop.quit)
    loop.run()
else:
    message = pipeline.get_bus().timed_pop_filtered(seconds * Gst.SECOND, Gst.MessageType.ERROR)
    if message:
        sys.exit(str(message.parse_error()[0]))
pipeline.set_state(Gst.State.NULL)
