"""The style of the gallery: colours that a colour-blind reader can tell apart, and one way to write a picture."""

import sys
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.figure import Figure
from PIL import Image

INK, GREY, PALE = "#1b2a41", "#8d99ae", "#e9ecf2"
#: Okabe & Ito's colours, in the order to use them; then a line style for each, for prints in grey
BLUE, ORANGE, GREEN, PURPLE, SKY, RED = COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))

mpl.use("Agg")
plt.rcParams.update(
    {
        "figure.dpi": 100,
        "savefig.dpi": 160,
        "figure.constrained_layout.use": True,
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 10,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "axes.edgecolor": GREY,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": PALE,
        "xtick.color": INK,
        "ytick.color": INK,
        "text.color": INK,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "image.cmap": "cividis",
        "lines.linewidth": 1.8,
    }
)


def save(figure: Figure) -> None:
    """Write the picture beside the script being run, NAME.py to NAME.png, in 256 colours: a third of the bytes."""
    path = Path(sys.argv[0]).resolve().with_suffix(".png")
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    picture = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
    print(f"wrote {path.name}, {path.stat().st_size / 1000:.0f} kB")
