"""What pipelines/caption runs: a recogniser whose sentences are a sealed track of text."""
import os
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst

PIPELINE = f"""{sys.argv[1]} ! queue ! audioconvert ! audioresample ! audio/x-raw,rate=16000,channels=1
      ! pocketsphinx ! fakesink async=false
    meetingkey appsrc name=words is-live=true do-timestamp=true format=time caps=text/x-raw,format=utf8
      ! e2eeseal track=captions ! meetingsink"""


def hear(said):
    if said.get_name() == "pocketsphinx" and said.get_value("final"):
        if sentence := said.get_string("hypothesis").strip():
            print(sentence, flush=True)
            pipeline.get_by_name("words").emit("push-buffer", Gst.Buffer.new_wrapped(sentence.encode()))


def fail(error):
    errors.append(f"caption: {error}")
    loop.quit()


Gst.init(None)
# The recogniser writes pages about itself there.
sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
errors, loop, pipeline = [], GLib.MainLoop(), Gst.parse_launch(PIPELINE)
bus = pipeline.get_bus()
bus.add_signal_watch()
bus.connect("message::element", lambda _, message: hear(message.get_structure()))
bus.connect("message::error", lambda _, message: fail(message.parse_error()[0].message))
GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGINT, loop.quit)
pipeline.set_state(Gst.State.PLAYING)
loop.run()
pipeline.set_state(Gst.State.NULL)
sys.exit("\n".join(errors) or 0)
