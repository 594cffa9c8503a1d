#!/usr/bin/env python3
"""A window that shows two people of the meeting, and below them how far the meeting can be relied on: a shield with a
padlock, what to do, and the security code.

It needs PyGObject with GTK 3, gtksink, the plugin, and a `meeting-agent` that is in a meeting: nothing else of ours.
"""
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("Gtk", "3.0")
gi.require_version("GdkPixbuf", "2.0")
from gi.repository import GdkPixbuf, GLib, Gst, Gtk

STYLE = b"""
window { background: #171b20; color: #e8ebee; font-family: "DejaVu Sans", sans-serif; }
.place { background: #0c0f12; border-radius: 8px; }
.name { font-size: 13px; padding: 6px 2px; }
.words { font-weight: bold; font-size: 15px; }
.code { font-family: "DejaVu Sans Mono", monospace; font-size: 14px; }
"""
SHIELD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="9 4 34 40" width="51" height="60">
<path d="M26 4.8 L42 9.8 V22.5 C42 33 35.5 40 26 43.2 C16.5 40 10 33 10 22.5 V9.8 Z" fill="{0}" stroke="#fff" stroke-width="1.4"/>
<path d="M21.4 21 V17 A4.6 4.6 0 0 1 30.6 17 V21" fill="none" stroke="#fff" stroke-width="2.5"/>
<rect x="18.2" y="20.6" width="15.6" height="12" rx="2.2" fill="#fff"/>
<path d="M26 23.6 a1.9 1.9 0 0 1 1 3.5 V30 h-2 V27.1 A1.9 1.9 0 0 1 26 23.6 Z" fill="{0}"/></svg>"""
GREEN, AMBER, RED, GREY = "#2e9e5b", "#d98a00", "#d23b2e", "#78828c"
WIDTH, HEIGHT = 384, 216


class Place(Gtk.Box):
    """Where one person is seen."""

    def __init__(self):
        super().__init__(orientation=Gtk.Orientation.VERTICAL)
        self.frame = Gtk.Box(width_request=WIDTH, height_request=HEIGHT)
        self.frame.get_style_context().add_class("place")
        self.label = Gtk.Label(label="nobody yet", xalign=0)
        self.label.get_style_context().add_class("name")
        self.pack_start(self.frame, True, True, 0)
        self.pack_start(self.label, False, False, 0)
        self.branch = None

    def show_branch(self, branch, name):
        self.branch = branch
        widget = branch.get_by_name("screen").get_property("widget")
        self.frame.pack_start(widget, True, True, 0)
        widget.show()
        self.label.set_text(name)

    def clear(self):
        for widget in self.frame.get_children():
            self.frame.remove(widget)
        self.branch = None
        self.label.set_text("nobody yet")


class Window(Gtk.Window):
    def __init__(self):
        super().__init__(title="A meeting", border_width=16, resizable=False)
        self.meeting, self.compared, self.forged, self.places = None, None, set(), [Place(), Place()]
        self.shield, self.words, self.code = Gtk.Image(), Gtk.Label(xalign=0), Gtk.Label(xalign=0)
        self.words.get_style_context().add_class("words")
        self.code.get_style_context().add_class("code")
        people = Gtk.Box(spacing=16)
        for place in self.places:
            people.pack_start(place, True, True, 0)
        text = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=6, valign=Gtk.Align.CENTER)
        text.pack_start(self.words, False, False, 0)
        text.pack_start(self.code, False, False, 0)
        trust = Gtk.Box(spacing=14, margin_top=8)
        trust.pack_start(self.shield, False, False, 0)
        trust.pack_start(text, False, False, 0)
        whole = Gtk.Box(orientation=Gtk.Orientation.VERTICAL)
        whole.pack_start(people, True, True, 0)
        whole.pack_start(trust, False, False, 0)
        self.add(whole)
        self.rely(GREY, "Not in a meeting yet", "")

        self.pipeline = Gst.parse_launch("meetingkey meetingsrc name=in")
        source, bus = self.pipeline.get_by_name("in"), self.pipeline.get_bus()
        # Pads come and go in threads of GStreamer's; widgets belong to this one.
        source.connect("pad-added", lambda _, pad: GLib.idle_add(self.come, pad))
        source.connect("pad-removed", lambda _, pad: GLib.idle_add(self.go, pad.get_name()))
        bus.add_signal_watch()
        bus.connect("message::element", lambda _, message: self.hear(message.get_structure()))
        bus.connect("message::latency", lambda *_: self.pipeline.recalculate_latency())
        bus.connect("message::error", lambda _, message: self.fail(message.parse_error()[0].message))
        self.connect("destroy", Gtk.main_quit)

    def come(self, pad):
        kind, whose = pad.get_name().split("_")[0], pad.get_current_caps().get_structure(0)
        place = next((place for place in self.places if place.branch is None), None)
        if kind == "audio":
            sink = "autoaudiosink"
        elif kind == "video" and place:
            sink = "videoconvert ! gtksink name=screen"
        else:
            return
        branch = Gst.parse_bin_from_description(f"queue name=first ! e2eeopen ! decodebin ! queue ! {sink}", False)
        branch.add_pad(Gst.GhostPad.new("sink", branch.get_by_name("first").get_static_pad("sink")))
        branch.set_name(pad.get_name())
        if kind == "video":
            place.show_branch(branch, whose.get_value("participant-name"))
        self.pipeline.add(branch)
        branch.sync_state_with_parent()
        pad.link(branch.get_static_pad("sink"))

    def go(self, name):
        if branch := self.pipeline.get_by_name(name):
            self.pipeline.remove(branch)
            branch.set_state(Gst.State.NULL)
            for place in self.places:
                if place.branch == branch:
                    place.clear()

    def hear(self, said):
        value, kind = said.get_value, said.get_name()
        # Other elements tell their state too; the meeting's has its code.
        if kind == "e2ee-state" and said.has_field("security-code"):
            self.meeting = said.copy()
            if value("verified"):
                self.compared = value("security-code")
            self.look()
        elif kind == "e2ee-stream":
            change = self.forged.add if value("trust") == "forged" else self.forged.discard
            change((value("participant"), value("stream")))
            if self.meeting:
                self.look()
        elif kind == "e2ee-open-failure":
            print(f"a frame of {value('name')}'s {value('track')} is refused: {value('reason')}", flush=True)

    def look(self):
        """How far to rely on the meeting, by what was last heard of it."""
        value = self.meeting.get_value
        code = value("security-code")
        if value("state") != "live":
            self.rely(GREY, value("detail") or value("state"), code)
        elif self.forged:
            self.rely(RED, "Somebody in the meeting speaks as another", code)
        elif value("verified"):
            self.rely(GREEN, "Encrypted, code compared: nobody is in between", code)
        elif self.compared not in (None, code):
            self.rely(RED, "The code has changed: compare it again", code)
        elif value("leader-verified"):
            self.rely(AMBER, "Encrypted: compare this code with the leader's", code)
        else:
            self.rely(RED, "Nobody vouches for the leader: compare the code", code)

    def rely(self, colour, words, code):
        loader = GdkPixbuf.PixbufLoader.new_with_type("svg")
        loader.write(SHIELD.format(colour).encode())
        loader.close()
        self.shield.set_from_pixbuf(loader.get_pixbuf())
        if words != self.words.get_text():
            print(words, flush=True)
        self.words.set_text(words)
        self.code.set_text(code)

    def fail(self, why):
        self.failed = why
        Gtk.main_quit()

    def run(self):
        self.failed = None
        self.show_all()
        self.pipeline.set_state(Gst.State.PLAYING)
        Gtk.main()
        self.pipeline.set_state(Gst.State.NULL)
        return self.failed


Gst.init(None)
style = Gtk.CssProvider()
style.load_from_data(STYLE)
window = Window()
Gtk.StyleContext.add_provider_for_screen(window.get_screen(), style, Gtk.STYLE_PROVIDER_PRIORITY_APPLICATION)
GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGINT, Gtk.main_quit)
sys.exit(window.run())
