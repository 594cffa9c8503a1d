"""Records a meeting, decrypted, on this machine: one Matroska file for each person and stay.

Everybody in the meeting sees it: this device has to be there with the role recorder, and is before the first frame
is written.  Ctrl-C finishes the files; whatever ends it otherwise, what was written so far plays.
"""
import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst

PARSERS = {"video/x-h264": "h264parse", "video/x-h265": "h265parse", "video/x-av1": "av1parse",
           "audio/x-opus": "opusparse", "audio/mpeg": "aacparse", "audio/x-flac": "flacparse"}
#: How long a person's later tracks may take to come into the same file.
GATHER_MS = 1500
#: Warns when the disk is full in less than that.
WARN_S = 600
MIB = 1024 * 1024


def say(text):
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def agent(*arguments):
    return subprocess.run(["meeting-agent", *arguments], capture_output=True, text=True)


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


class Recording:
    """One person's tracks, from their coming until the last of them ends."""

    def __init__(self, recorder, name):
        self.recorder, self.name = recorder, name
        self.pads, self.bin, self.fd, self.path = [], None, None, None
        self.began, self.last = time.monotonic(), (time.monotonic(), 0)
        GLib.timeout_add(GATHER_MS, self.start)

    def start(self):
        self.pads = [pad for pad in self.pads if pad.get_parent()]
        if not self.pads:
            self.recorder.forget(self)
            return False
        try:
            self.path, self.fd = fresh(self.recorder.folder, self.name)
        except OSError as error:
            say(f"{self.name} is not recorded: {error}")
            self.recorder.forget(self)
            return False
        branches = [f"queue name=q{n} max-size-time=5000000000 max-size-bytes=0 max-size-buffers=0 ! e2eeopen ! {self.parser(pad)} ! mux."
                    for n, pad in enumerate(self.pads)]
        # Clusters of a second: what a crash can cost.
        self.bin = Gst.parse_bin_from_description(
            f"matroskamux name=mux max-cluster-duration=1000000000 ! fdsink name=file fd={self.fd} sync=false async=false "
            + " ".join(branches), False)
        self.bin.get_by_name("file").get_static_pad("sink").add_probe(
            Gst.PadProbeType.EVENT_DOWNSTREAM, self.on_event)
        for n, pad in enumerate(self.pads):
            ghost = Gst.GhostPad.new(f"sink{n}", self.bin.get_by_name(f"q{n}").get_static_pad("sink"))
            self.bin.add_pad(ghost)
        self.recorder.pipeline.add(self.bin)
        self.bin.sync_state_with_parent()
        for n, pad in enumerate(self.pads):
            pad.link(self.bin.get_static_pad(f"sink{n}"))
        say(f"recording {self.name} ({', '.join(track(pad) for pad in self.pads)}) into {self.path}")
        return False

    @staticmethod
    def parser(pad):
        media = pad.get_current_caps().get_structure(0).get_string("original-media-type")
        return PARSERS.get(media, "identity")

    def on_event(self, pad, info):
        if info.get_event().type == Gst.EventType.EOS:
            # The sink writes what is left while it handles the event, so it is closed later.
            GLib.timeout_add(100, self.close)
        return Gst.PadProbeReturn.OK

    def finish(self):
        for pad in self.pads:
            pad.push_event(Gst.Event.new_eos())
        if self.bin is None:
            self.recorder.forget(self)

    def close(self):
        if self.bin is not None:
            self.bin.set_state(Gst.State.NULL)
            self.recorder.pipeline.remove(self.bin)
            os.fsync(self.fd)
            size = os.fstat(self.fd).st_size
            os.close(self.fd)
            self.bin = None
            say(f"finished {self.path} ({size / MIB:.1f} MiB)")
        self.recorder.forget(self)
        return False

    def progress(self):
        """Bytes so far, and bytes a second since the last look."""
        if self.bin is None:
            return 0, 0.0
        (then, before), now, size = self.last, time.monotonic(), os.fstat(self.fd).st_size
        self.last = (now, size)
        return size, (size - before) / max(now - then, 0.1)


def track(pad):
    return pad.get_current_caps().get_structure(0).get_string("track")


class Recorder:
    def __init__(self, arguments):
        self.folder, self.reserve = arguments.into, arguments.reserve * MIB
        self.recordings, self.failed, self.ending, self.warned = [], False, False, False
        self.loop = GLib.MainLoop()
        self.pipeline = Gst.parse_launch("meetingkey meetingsrc name=in")
        source = self.pipeline.get_by_name("in")
        source.set_property("participant", arguments.participant)
        source.connect("pad-added", lambda _, pad: GLib.idle_add(self.come, pad))
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", self.on_error)

    def come(self, pad):
        who = pad.get_current_caps().get_structure(0)
        identity = who.get_string("participant")
        for recording in self.recordings:
            if recording.identity == identity and recording.bin is None and not self.ending:
                recording.pads.append(pad)
                return False
        recording = Recording(self, who.get_string("participant-name"))
        recording.identity = identity
        recording.pads.append(pad)
        self.recordings.append(recording)
        return False

    def forget(self, recording):
        if recording in self.recordings:
            self.recordings.remove(recording)
        if self.ending and not self.recordings:
            self.loop.quit()

    def on_error(self, _bus, message):
        error, where = message.parse_error()[0].message, message.src
        for recording in self.recordings:
            if recording.bin is not None and where is not None and where.has_as_ancestor(recording.bin):
                say(f"{recording.name}: {error}; what was written so far stays")
                recording.close()
                return
        say(error)
        self.failed = True
        self.end()

    def look(self):
        """Once a second: progress, and the disk."""
        sizes = [(recording.name, *recording.progress()) for recording in self.recordings]
        rate = sum(rate for _, _, rate in sizes)
        free = shutil.disk_usage(self.folder).free - self.reserve
        if free <= 0 and not self.ending:
            say(f"the disk is full but for {self.reserve // MIB} MiB: finishing. Make room, then record again")
            self.failed = True
            self.end()
        elif rate and free / rate < WARN_S and not self.warned:
            self.warned = True
            say(f"at this rate the disk is full in {free / rate / 60:.0f} minutes: make room in {self.folder}")
        if sys.stderr.isatty() and sizes:
            line = "   ".join(f"{name} {size / MIB:.1f} MiB {rate * 8 / 1000:.0f} kbit/s" for name, size, rate in sizes)
            print(f"\r\033[K● {line}", end="", file=sys.stderr, flush=True)
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

    def run(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, self.end)
        GLib.timeout_add_seconds(1, self.look)
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        self.pipeline.set_state(Gst.State.NULL)
        return 1 if self.failed else 0


def main():
    parser = argparse.ArgumentParser(prog="record", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participant", default="", metavar="NAME", help="only this person [default: everybody]")
    parser.add_argument("--into", default=".", metavar="FOLDER", help="where the files go [default: here]")
    parser.add_argument("--link-file", metavar="FILE", help="join the meeting of this link as a recorder first")
    parser.add_argument("--reserve", type=int, default=200, metavar="MIB", help="leave so much of the disk free [default: 200]")
    arguments = parser.parse_args()
    if arguments.link_file:
        joined = agent("join", "--role", "recorder", "--link-file", arguments.link_file)
        if joined.returncode:
            sys.exit(joined.stderr.strip())
    answer = agent("status", "--json")
    if answer.returncode:
        sys.exit(answer.stderr.strip())
    status = json.loads(answer.stdout)
    me = next((person for person in status["people"] if person["me"]), None)
    if status["phase"] != "live" or me is None:
        sys.exit(f"record: not in a meeting yet: {status['detail'] or status['phase']}")
    if me["role"] != "recorder":
        sys.exit("record: the others do not see a recorder in you: `meeting-agent leave`, then "
                 "`meeting-agent join --role recorder`")
    try:
        os.makedirs(arguments.into, mode=0o700, exist_ok=True)
        free = shutil.disk_usage(arguments.into).free
    except OSError as error:
        sys.exit(f"record: cannot write to {arguments.into}: {error.strerror}")
    if free < arguments.reserve * MIB:
        sys.exit(f"record: {arguments.into} has {free // MIB} MiB left and {arguments.reserve} stay reserved: make room, or lower --reserve")
    Gst.init(None)
    say(f"in the meeting as {me['name']}, recorder: waiting for people (Ctrl-C finishes)")
    return Recorder(arguments).run()


if __name__ == "__main__":
    sys.exit(main())
