"""Records a meeting sealed: what the relay saw, into one file that nobody can watch without the key file beside it.

Everybody in the meeting sees it: this device has to be there with the role recorder.  The file can lie anywhere; FILE.keys,
which `meeting-agent record-keys` writes, opens it.  Ctrl-C finishes both; what a crash leaves plays, too.
"""
import argparse
import os
import signal
import subprocess
import sys
import time

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst

from agent import Agent
from record import say

#: How long a pipeline may take to write its index.
PATIENCE_S = 10


class Recorder:
    def __init__(self, arguments, agent, fd):
        self.agent, self.fd, self.failed = agent, fd, False
        self.loop = GLib.MainLoop()
        self.pipeline = Gst.parse_launch(f"meetingsrc name=in e2eemux name=mux ! fdsink fd={fd} sync=false async=false")
        self.mux, source = (self.pipeline.get_by_name(name) for name in ("mux", "in"))
        for name in ("meeting", "participant", "track"):
            source.set_property(name, getattr(arguments, name))
        source.connect("pad-added", self.come)
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", self.on_error)
        bus.connect("message::eos", lambda *_: self.loop.quit())

    def come(self, _source, pad):
        """In the thread of the source: no frame comes before the pad is linked."""
        try:
            # Another role, and nothing is written any more.
            self.agent.me()
        except RuntimeError as error:
            say(error)
            return
        about = pad.get_current_caps().get_structure(0)
        say(f"recording {about.get_string('participant-name')} ({about.get_string('track')})")
        sink = self.mux.request_pad_simple("sink_%u")
        pad.add_probe(Gst.PadProbeType.EVENT_DOWNSTREAM, self.on_event, sink)
        pad.link(sink)

    def on_event(self, _pad, info, sink):
        """A track that ends lets its pad go; the recording ends when it is told to."""
        if info.get_event().type != Gst.EventType.EOS:
            return Gst.PadProbeReturn.OK
        GLib.idle_add(lambda: self.mux.release_request_pad(sink))
        return Gst.PadProbeReturn.DROP

    def on_error(self, _bus, message):
        say(message.parse_error()[0].message + "; what was written so far stays")
        self.failed = True
        self.loop.quit()

    def end(self):
        self.mux.send_event(Gst.Event.new_eos())
        GLib.timeout_add_seconds(PATIENCE_S, self.loop.quit)
        return True

    def run(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, self.end)
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        frames = self.mux.get_property("stats").get_value("frames")
        self.pipeline.set_state(Gst.State.NULL)
        os.fsync(self.fd)
        return frames


def keep_keys(arguments):
    """Starts what keeps the keys, and waits until it does: no frame is to be without its key."""
    path = arguments.file + ".keys"
    command = ["meeting-agent", "record-keys", path]
    for option, value in (("--meeting", arguments.meeting), ("--participant", arguments.participant),
                          ("--track", arguments.track), ("--passphrase-file", arguments.passphrase_file)):
        command += [option, value] if value else []
    if os.path.lexists(path):
        raise RuntimeError(f"record-sealed: {path} is there already: name another FILE")
    keys = subprocess.Popen(command)
    # As long as somebody takes to think of a passphrase.
    while keys.poll() is None and not (os.path.exists(path) and os.path.getsize(path)):
        time.sleep(0.05)
    if keys.poll() is not None:
        raise RuntimeError("record-sealed: nothing is recorded without keys")
    return keys


def main():
    parser = argparse.ArgumentParser(prog="record-sealed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="FILE", help="where the recording goes; its keys go to FILE.keys")
    parser.add_argument("--participant", default="", metavar="NAME", help="only this person [default: everybody]")
    parser.add_argument("--track", default="", metavar="LABEL", help="only tracks with this label [default: all]")
    parser.add_argument("--meeting", default="", metavar="ID", help="which meeting, where the agent is in several")
    parser.add_argument("--passphrase-file", metavar="FILE", help="holds the key file's passphrase [default: asks for it]")
    parser.add_argument("--without-keys", action="store_true", help="somebody else keeps the keys")
    arguments = parser.parse_args()
    agent = Agent("record-sealed", "recorder", arguments.meeting)
    try:
        me = agent.me()
        fd = os.open(arguments.file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except RuntimeError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"record-sealed: cannot make {arguments.file}: {error.strerror}")
    try:
        keys = None if arguments.without_keys else keep_keys(arguments)
    except RuntimeError as error:
        os.unlink(arguments.file)
        sys.exit(str(error))
    Gst.init(None)
    say(f"in the meeting as {me['name']}, recorder: recording into {arguments.file} (Ctrl-C finishes)")
    recorder = Recorder(arguments, agent, fd)
    frames = recorder.run()
    if keys is not None:
        keys.send_signal(signal.SIGINT)
        recorder.failed |= keys.wait() != 0
    say(f"finished {arguments.file} ({frames} frames)")
    return 1 if recorder.failed else 0


if __name__ == "__main__":
    sys.exit(main())
