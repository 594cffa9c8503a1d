"""Records a meeting, decrypted, on this machine: one Matroska file for each person and stay.

Everybody in the meeting sees it: this device has to be there with the role recorder, and is before the first frame
is written.  Ctrl-C finishes the files; whatever ends it otherwise, what was written so far plays.
"""
import argparse
import os
import re
import shutil
import signal
import sys
import time

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst

from agent import Agent

PARSERS = {"video/x-h264": "h264parse", "video/x-h265": "h265parse", "video/x-av1": "av1parse",
           "audio/x-opus": "opusparse", "audio/mpeg": "aacparse", "audio/x-flac": "flacparse"}
#: How long a person's later tracks may take to come into the same file.
GATHER_MS = 1500
#: How long a file may take to be finished.
PATIENCE_MS = 3000
#: Warns when the disk is full in less than that.
WARN_S = 600
MIB = 1024 * 1024


def say(text):
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{clear}{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def safe(name):
    """A file name of what a stranger calls themselves."""
    name = re.sub(r"[^\w .()-]", "_", name).strip(" .")
    return name.encode()[:60].decode(errors="ignore") or "somebody"


def fresh(folder, name):
    """A new private file in the folder; never one that is there."""
    stem = f"{time.strftime('%Y-%m-%d %H.%M.%S')} {safe(name)}"
    for number in range(1, 1000):
        path = os.path.join(folder, f"{stem}{f' ({number})' if number > 1 else ''}.mkv")
        try:
            return path, os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
    raise OSError(f"there are 1,000 files named {stem} in {folder}")


def describe(pad):
    return pad.get_current_caps().get_structure(0)


class File:
    """One Matroska file, being written from some pads until their end or its own."""

    def __init__(self, pipeline, pads, folder, name, closed):
        self.pipeline, self.pads, self.closed = pipeline, pads, closed
        self.path, self.fd = fresh(folder, name)
        self.last = (time.monotonic(), 0)
        branches = (f"queue name=q{n} max-size-time=5000000000 max-size-bytes=0 max-size-buffers=0 ! e2eeopen "
                    f"! {PARSERS.get(describe(pad).get_string('original-media-type'), 'identity')} ! mux."
                    for n, pad in enumerate(pads))
        # Clusters of a second: what a crash can cost.
        self.bin = Gst.parse_bin_from_description(
            f"matroskamux name=mux max-cluster-duration=1000000000 ! fdsink name=file fd={self.fd} sync=false "
            f"async=false {' '.join(branches)}", False)
        self.bin.get_by_name("file").get_static_pad("sink").add_probe(Gst.PadProbeType.EVENT_DOWNSTREAM, self.on_event)
        for n in range(len(pads)):
            self.bin.add_pad(Gst.GhostPad.new(f"sink{n}", self.bin.get_by_name(f"q{n}").get_static_pad("sink")))
        pipeline.add(self.bin)
        self.bin.sync_state_with_parent()
        for n, pad in enumerate(pads):
            pad.link(self.bin.get_static_pad(f"sink{n}"))

    def on_event(self, _pad, info):
        if info.get_event().type == Gst.EventType.EOS:
            # The sink writes what is left while it handles the event, so it is closed later.
            GLib.timeout_add(100, self.close)
        return Gst.PadProbeReturn.OK

    def finish(self):
        """Lets the pads go; what they gave so far is written."""
        for n, pad in enumerate(self.pads):
            sink = self.bin.get_static_pad(f"sink{n}")
            pad.unlink(sink)
            sink.send_event(Gst.Event.new_eos())
        self.close_soon()

    def close_soon(self):
        """No end comes out of a muxer into which nothing went."""
        GLib.timeout_add(PATIENCE_MS, self.close)

    def close(self):
        if self.bin is not None:
            # Locked, or a change of state that the pipeline has begun would bring it up again.
            self.bin.set_locked_state(True)
            self.bin.set_state(Gst.State.NULL)
            self.pipeline.remove(self.bin)
            os.fsync(self.fd)
            size = os.fstat(self.fd).st_size
            os.close(self.fd)
            self.bin = None
            if size:
                say(f"finished {self.path} ({size / MIB:.1f} MiB)")
            else:
                os.unlink(self.path)
            self.closed(self)
        return False

    def progress(self):
        """Bytes so far, and bytes a second since the last look."""
        (then, before), now, size = self.last, time.monotonic(), os.fstat(self.fd).st_size
        self.last = (now, size)
        return size, (size - before) / max(now - then, 0.1)


class Recording:
    """One person's tracks, from their coming until the last of them ends; a file at a time."""

    def __init__(self, recorder, pad):
        # Files before this one are still being finished for a moment.
        self.recorder, self.pads, self.file, self.former = recorder, [], None, []
        # What renew() needs: pads that stand still, the probes that hold them, and how often it was done.
        self.held, self.holds, self.renewals, self.watches = set(), {}, 0, {}
        self.name, self.identity = describe(pad).get_string("participant-name"), describe(pad).get_string("participant")
        self.take(pad)
        GLib.timeout_add(GATHER_MS, self.start)

    def take(self, pad):
        """One more track."""
        self.pads.append(pad)
        self.watch(pad)

    def watch(self, pad):
        self.watches[pad] = pad.add_probe(Gst.PadProbeType.BLOCK | Gst.PadProbeType.EVENT_DOWNSTREAM, self.on_event)

    def start(self):
        self.pads = [pad for pad in self.pads if pad.get_parent()]
        if not self.pads:
            self.recorder.forget(self)
            return False
        try:
            self.recorder.agent.me()
            self.formats = {pad: pad.get_current_caps() for pad in self.pads}
            self.file = File(self.recorder.pipeline, self.pads, self.recorder.folder, self.name, self.closed)
        except (OSError, RuntimeError) as error:
            say(f"{self.name} is not recorded: {error}")
            self.recorder.forget(self)
            return False
        tracks = ", ".join(describe(pad).get_string("track") for pad in self.pads)
        say(f"recording {self.name} ({tracks}) into {self.file.path}")
        return False

    def on_event(self, pad, info):
        """Matroska has no way to change a track's format: a change waits for a new file."""
        event = info.get_event()
        if event.type != Gst.EventType.CAPS or self.file is None or event.parse_caps().is_equal(self.formats[pad]):
            return Gst.PadProbeReturn.PASS
        GLib.idle_add(self.held_at_change, pad)
        return Gst.PadProbeReturn.OK

    def on_frame(self, pad, _info):
        self.watch(pad)
        return Gst.PadProbeReturn.REMOVE

    def held_at_change(self, pad):
        self.held.add(pad)
        for other in self.pads:
            if other not in self.holds and other not in self.held and other.get_parent():
                self.holds[other] = other.add_probe(
                    Gst.PadProbeType.IDLE | Gst.PadProbeType.BLOCK_DOWNSTREAM, self.on_hold, self.renewals)
        return self.renew()

    def on_hold(self, pad, _info, renewal):
        GLib.idle_add(self.held_between_frames, pad, renewal)
        return Gst.PadProbeReturn.OK

    def held_between_frames(self, pad, renewal):
        if renewal == self.renewals:
            self.held.add(pad)
            self.renew()
        return False

    def renew(self):
        """Goes on in a new file once every pad is held."""
        if not self.held or any(pad not in self.held for pad in self.pads if pad.get_parent()):
            return False
        old, self.file = self.file, None
        self.former.append(old)
        old.finish()
        self.start()
        for pad, probe in self.holds.items():
            pad.remove_probe(probe)
        for pad in self.held:
            # A thread that waits goes on only once it finds no probe that could block it: the next one comes with a frame.
            pad.remove_probe(self.watches[pad])
            pad.add_probe(Gst.PadProbeType.BUFFER, self.on_frame)
        self.held, self.holds, self.renewals = set(), {}, self.renewals + 1
        return False

    def finish(self):
        if self.file is None:
            self.recorder.forget(self)
        else:
            self.file.finish()

    def closed(self, file):
        if file == self.file:
            self.recorder.forget(self)
        elif file in self.former:
            self.former.remove(file)


class Recorder:
    def __init__(self, arguments, agent):
        self.agent, self.folder, self.reserve = agent, arguments.into, arguments.reserve * MIB
        self.recordings, self.failed, self.ending, self.warned = [], False, False, False
        self.loop = GLib.MainLoop()
        self.pipeline = Gst.parse_launch("meetingkey name=keys meetingsrc name=in")
        source = self.pipeline.get_by_name("in")
        for element in (source, self.pipeline.get_by_name("keys")):
            element.set_property("meeting", arguments.meeting)
        source.set_property("participant", arguments.participant)
        source.connect("pad-added", lambda _, pad: GLib.idle_add(self.come, pad))
        source.connect("pad-removed", lambda *_: GLib.idle_add(self.go))
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", self.on_error)

    def come(self, pad):
        identity = describe(pad).get_string("participant")
        gathering = (one for one in self.recordings if one.identity == identity and one.file is None and not one.held)
        recording = next(gathering, None)
        if recording is None:
            self.recordings.append(Recording(self, pad))
        else:
            recording.take(pad)
        return False

    def go(self):
        """A pad is gone: nobody waits for it."""
        for recording in list(self.recordings):
            recording.renew()
            if recording.file is not None and not any(pad.get_parent() for pad in recording.pads):
                recording.file.close_soon()
        return False

    def forget(self, recording):
        if recording in self.recordings:
            self.recordings.remove(recording)
        if self.ending and not self.recordings:
            self.loop.quit()

    def on_error(self, _bus, message):
        error, where = message.parse_error()[0].message, message.src
        for recording in self.recordings:
            for file in filter(None, [recording.file, *recording.former]):
                if where is not None and where.has_as_ancestor(file.bin):
                    say(f"{recording.name}: {error}; what was written so far stays")
                    file.close()
                    return
        say(error)
        self.failed = True
        self.end()

    def look(self):
        """Once a second: progress, and the disk."""
        sizes = [(one.name, *one.file.progress()) for one in self.recordings if one.file is not None]
        rate = sum(rate for _, _, rate in sizes)
        free = shutil.disk_usage(self.folder).free - self.reserve
        if free <= 0 and not self.ending:
            say(f"the disk is full but for {self.reserve // MIB} MiB: finishing. Make room, then record again")
            self.failed = True
            self.end()
        elif rate and free / rate < WARN_S and not self.warned:
            self.warned = True
            say(f"at this rate the disk is full in {duration(free / rate)}: make room in {self.folder}")
        if sys.stderr.isatty() and sizes:
            line = "   ".join(f"{name} {size / MIB:.1f} MiB {rate * 8 / 1000:.0f} kbit/s" for name, size, rate in sizes)
            print(f"\r\033[K\033[31m●\033[0m {line}", end="", file=sys.stderr, flush=True)
        return True

    def end(self):
        if self.ending:
            # A second Ctrl-C: enough waiting.
            self.loop.quit()
        self.ending = True
        for recording in list(self.recordings):
            recording.finish()
        if not self.recordings:
            self.loop.quit()
        GLib.timeout_add_seconds(10, self.loop.quit)
        return True

    def run(self, me):
        for number in (signal.SIGINT, signal.SIGTERM):
            GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, self.end)
        GLib.timeout_add_seconds(1, self.look)
        if self.pipeline.set_state(Gst.State.PLAYING) != Gst.StateChangeReturn.FAILURE:
            say(f"in the meeting as {me['name']}, recorder: waiting for people (Ctrl-C finishes)")
        self.loop.run()
        self.pipeline.set_state(Gst.State.NULL)
        return 1 if self.failed else 0


def duration(seconds):
    return f"{seconds / 60:.0f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"


def main():
    parser = argparse.ArgumentParser(prog="record", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participant", default="", metavar="NAME", help="only this person [default: everybody]")
    parser.add_argument("--into", default=".", metavar="FOLDER", help="where the files go [default: here]")
    parser.add_argument("--link-file", metavar="FILE", help="join the meeting of this link as a recorder first")
    parser.add_argument("--meeting", default="", metavar="ID", help="which meeting, where the agent is in several")
    parser.add_argument("--reserve", type=int, default=200, metavar="MIB", help="leave so much of the disk free [default: 200]")
    arguments = parser.parse_args()
    agent = Agent("record", "recorder", arguments.meeting)
    if arguments.link_file:
        joined = agent.run("join", "--role", "recorder", "--link-file", arguments.link_file)
        if joined.returncode:
            sys.exit(joined.stderr.strip())
    try:
        me = agent.me()
    except RuntimeError as error:
        sys.exit(str(error))
    try:
        os.makedirs(arguments.into, mode=0o700, exist_ok=True)
        free = shutil.disk_usage(arguments.into).free
    except OSError as error:
        sys.exit(f"record: cannot write to {arguments.into}: {error.strerror}")
    if free < arguments.reserve * MIB:
        sys.exit(f"record: {arguments.into} has {free // MIB} MiB left and {arguments.reserve} stay reserved: make room, or lower --reserve")
    Gst.init(None)
    return Recorder(arguments, agent).run(me)


if __name__ == "__main__":
    sys.exit(main())
