"""Makes docs/skew.png of docs/skew.csv, which the test `sound_and_picture_stay_together_for_ten_minutes` writes to out/."""
import csv
import pathlib

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

here = pathlib.Path(__file__).parent
rows = list(csv.DictReader((here / "skew.csv").open()))
figure, (apart, late) = pyplot.subplots(2, 1, sharex=True, figsize=(9, 5.5), layout="constrained")
for person, colour, clock in [("Alice", "tab:blue", "100 ppm fast"), ("Bob", "tab:orange", "100 ppm slow")]:
    hers = [row for row in rows if row["person"] == person]
    seconds = [int(row["second"]) for row in hers]
    column = lambda name: [float(row[name]) for row in hers]
    label = f"{person}, whose clock is {clock}"
    apart.fill_between(seconds, column("least ms"), column("most ms"), color=colour, alpha=0.6, linewidth=1, label=label)
    late.plot(seconds, column("late ms"), color=colour, linewidth=1, label=label)
apart.axhspan(-40, 40, color="tab:green", alpha=0.08)
apart.set(ylim=(-50, 50), ylabel="picture after sound, ms", title="Sound against picture: least and most in each second, 40 ms allowed")
late.set(ylim=(0, 80), xlabel="seconds", ylabel="later than the quickest, ms", title="When frames are shown: clocks that are 60 ms off in the end are followed")
for axes in (apart, late):
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize=8)
figure.savefig(here / "skew.png", dpi=110)
