"""The shield of `watch --shield`: a badge over the picture that says how far the meeting can be relied on."""
import pathlib
import string

BADGE = string.Template(pathlib.Path(__file__).with_suffix(".svg").read_text())
#: The size of the badge as it is drawn.
WIDTH, HEIGHT = 220, 48
GREEN, AMBER, RED, GREY = "#2e9e5b", "#d98a00", "#d23b2e", "#78828c"
#: Words for the states in which nothing is sealed or opened, or soon will not be.
WORDS = {"stale": "Paused", "joining": "Joining", "ended": "Ended", "agent-lost": "Agent lost", "loopback": "Loopback"}


class Shield:
    """What `meetingkey` last said about the meeting, and every picture that shows it."""

    def __init__(self):
        self.badges, self.said, self.compared, self.forged, self.svg = set(), None, None, set(), ""

    def read(self, said):
        """Takes a message of any element."""
        kind, value = said.get_name(), said.get_value
        if kind == "e2ee-stream":
            # A stream that ends forged stays so: whoever forged it is there still, and could wipe the warning out.
            change = self.forged.add if value("trust") == "forged" else self.forged.discard
            change((value("participant"), value("stream")))
        # Others tell their state too; the meeting's has its code.
        elif kind == "e2ee-state" and said.has_field("security-code"):
            self.said = said.copy()
            if value("verified"):
                self.compared = value("security-code")
        else:
            return
        if self.said:
            self.draw()

    def look(self, state, code, verified, vouched):
        """Colour and words."""
        if state != "live":
            return GREY, WORDS.get(state, state)
        if self.forged:
            return RED, "Somebody speaks as another"
        if verified:
            return GREEN, "Verified"
        if self.compared not in (None, code):
            return RED, "Code changed: compare again"
        if not vouched:
            return RED, "Unknown leader: compare"
        return AMBER, "Encrypted: compare the code"

    def draw(self):
        fields = "state", "security-code", "verified", "leader-verified"
        colour, words = self.look(*map(self.said.get_value, fields))
        code = self.said.get_value("security-code")
        first, second = code[: len(code) // 2].strip(), code[len(code) // 2 :].strip()
        self.svg = BADGE.substitute(colour=colour, words=words, first=first, second=second)
        for badge in self.badges:
            badge.set_property("data", self.svg)

    def cover(self, badge):
        """One more picture, by its rsvgoverlay."""
        self.badges.add(badge)
        if self.svg:
            badge.set_property("data", self.svg)
        pad = badge.get_static_pad("sink")
        pad.connect("notify::caps", lambda *_: resize(badge, pad))
        resize(badge, pad)

    def uncover(self, badge):
        self.badges.discard(badge)


def resize(badge, pad):
    """As large as it has to be in a small picture, and not much larger in a large one."""
    if caps := pad.get_current_caps():
        across = caps.get_structure(0).get_value("width")
        width = 150 + across // 5
        badge.set_property("width", width)
        badge.set_property("height", width * HEIGHT // WIDTH)
        badge.set_property("x", across // 40)
        badge.set_property("y", across // 40)
