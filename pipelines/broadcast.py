"""What pipelines/broadcast runs: opens one person's picture and voice, and puts them out in clear as HLS or RTMP."""
import os
import signal
import sys
import time
import urllib.parse

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst

from agent import Agent

#: How long the person's second track may take to come.
GATHER_MS = 1500
#: How long the end may take to be written.
PATIENCE_MS = 5000
#: A player starts three segments behind what is live.
HLS = "hlssink2 name=out target-duration=5"
RTMP = "flvmux name=out streamable=true ! rtmp2sink name=server async=false"
#: H.264 goes out as it came.
PASS = "h264parse config-interval=-1"
ENCODE = {"video": f"decodebin ! {os.environ['H264']}",
          "audio": "decodebin ! audioconvert ! audioresample ! avenc_aac ! aacparse"}


def say(text):
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def describe(pad):
    return pad.get_current_caps().get_structure(0)


def kind(pad):
    return pad.get_name().split("_")[0]


class Broadcast:
    def __init__(self, agent, name, to):
        self.agent, self.to, self.is_rtmp = agent, to, "://" in to
        # The rest of an RTMP address is often a password.
        self.shown = urllib.parse.urlsplit(to).hostname if self.is_rtmp else to
        self.tracks, self.bin, self.status, self.loop = {}, None, 0, GLib.MainLoop()
        self.pipeline = Gst.parse_launch("meetingkey meetingsrc name=in")
        source = self.pipeline.get_by_name("in")
        source.set_property("participant", name)
        source.connect("pad-added", lambda _, pad: GLib.idle_add(self.come, pad))
        source.connect("pad-removed", lambda _, pad: GLib.idle_add(self.go, pad))
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::latency", lambda *_: self.pipeline.recalculate_latency())
        bus.connect("message::eos", lambda *_: self.loop.quit())
        bus.connect("message::error", lambda _, message: self.fail(message.parse_error()[0].message))

    def come(self, pad):
        if self.bin or kind(pad) not in ENCODE or kind(pad) in self.tracks or not pad.get_parent():
            return
        if not self.tracks:
            GLib.timeout_add(GATHER_MS, self.start)
        self.tracks[kind(pad)] = pad

    def start(self):
        """Says what is about to happen, then lets the first frame out."""
        self.tracks = {kind: pad for kind, pad in self.tracks.items() if pad.get_parent()}
        if not self.tracks:
            return
        try:
            self.agent.me()
        except RuntimeError as error:
            return self.fail(str(error).removeprefix("broadcast: "))
        pads = self.tracks.values()
        names = ", ".join(describe(pad).get_string("track") for pad in pads)
        say(f"{describe(next(iter(pads))).get_string('participant-name')} ({names}) goes out IN CLEAR to {self.shown}")
        self.bin = Gst.parse_bin_from_description((RTMP if self.is_rtmp else HLS) + "".join(map(branch, pads)), False)
        if self.is_rtmp:
            self.bin.get_by_name("server").set_property("location", self.to)
        else:
            for name, file in (("location", "segment%05d.ts"), ("playlist-location", "live.m3u8")):
                self.bin.get_by_name("out").set_property(name, os.path.join(self.to, file))
        for kind in self.tracks:
            self.bin.add_pad(Gst.GhostPad.new(kind, self.bin.get_by_name(kind).get_static_pad("sink")))
        self.pipeline.add(self.bin)
        self.bin.sync_state_with_parent()
        for kind, pad in self.tracks.items():
            sink = self.bin.get_static_pad(kind)
            sink.add_probe(Gst.PadProbeType.BUFFER, from_keyframe)
            pad.link(sink)

    def go(self, pad):
        if self.bin and not any(pad.get_parent() for pad in self.tracks.values()):
            say("nothing more comes from there: the broadcast ends")
            self.end()

    def end(self):
        """What went in so far is finished, so that it plays to its end."""
        if self.bin is None:
            self.loop.quit()
            return
        for kind, pad in self.tracks.items():
            sink = self.bin.get_static_pad(kind)
            pad.unlink(sink)
            sink.send_event(Gst.Event.new_eos())
        GLib.timeout_add(PATIENCE_MS, self.loop.quit)

    def fail(self, error):
        say(f"the broadcast ends: {error}")
        self.status = 1
        self.loop.quit()

    def run(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, self.end)
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        self.pipeline.set_state(Gst.State.NULL)
        return self.status


def from_keyframe(_pad, info):
    """Nobody out there has the pictures on which the first would lean."""
    leans = info.get_buffer().has_flags(Gst.BufferFlags.DELTA_UNIT)
    return Gst.PadProbeReturn.DROP if leans else Gst.PadProbeReturn.REMOVE


def branch(pad):
    is_h264 = describe(pad).get_string("original-media-type") == "video/x-h264"
    return f" queue name={kind(pad)} ! e2eeopen ! {PASS if is_h264 else ENCODE[kind(pad)]} ! queue ! out.{kind(pad)}"


def main():
    name, to = sys.argv[1:]
    agent = Agent("broadcast", "gateway")
    try:
        me = agent.me()
        if "://" not in to:
            # What is there stays as it is, and a web server may read what comes.
            os.umask(0o022)
            os.makedirs(to)
    except FileExistsError:
        sys.exit(f"broadcast: {to} is there already: name a new folder")
    except OSError as error:
        sys.exit(f"broadcast: cannot make the folder {to}: {error.strerror}")
    except RuntimeError as error:
        sys.exit(str(error))
    Gst.init(None)
    say(f"in the meeting as {me['name']}, gateway, which everybody sees: waiting for {name}")
    say("what goes out is NOT encrypted: whoever gets it can see it, and keep it (Ctrl-C ends it)")
    return Broadcast(agent, name, to).run()


if __name__ == "__main__":
    sys.exit(main())
