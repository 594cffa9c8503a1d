"""The captions of `watch --captions`: a person's track of text, over their pictures and on the terminal."""
from gi.repository import GLib

OVERLAY = 'textoverlay name=words shaded-background=true wrap-mode=word font-desc="Sans 22"'
#: No sentence is longer.
LETTERS = 300
#: For how long a sentence stands there.
STAY_MS = 6000


class Captions:
    """Everybody's last sentence, and every picture that shows it."""

    def __init__(self):
        self.pictures, self.sentences, self.timers = {}, {}, {}

    def cover(self, overlay, who):
        """One more picture of a person, by its textoverlay."""
        self.pictures[overlay] = who
        self.show(who)

    def uncover(self, overlay):
        self.pictures.pop(overlay, None)

    def hear(self, who, name, text):
        """A frame of a person's track of text."""
        if sentence := harmless(text):
            print(f"{name}: {sentence}", flush=True)
            if timer := self.timers.pop(who, None):
                GLib.source_remove(timer)
            self.timers[who] = GLib.timeout_add(STAY_MS, self.forget, who)
            self.sentences[who] = sentence
            self.show(who)

    def forget(self, who):
        del self.timers[who], self.sentences[who]
        self.show(who)

    def show(self, who):
        for overlay, whose in self.pictures.items():
            if whose == who:
                # Its words are marked-up text to the overlay.
                overlay.set_property("text", GLib.markup_escape_text(self.sentences.get(who, ""), -1))


def harmless(text):
    """What somebody else wrote, and nothing in it that a terminal would obey."""
    letters = text.decode(errors="replace")[:LETTERS]
    return "".join(letter if letter.isprintable() else " " for letter in letters).strip()
