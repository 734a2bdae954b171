"""Files of what was drawn: a picture, arrays, and a table that any program opens."""

from pathlib import Path

import numpy as np
from torch import Tensor

from ornstein.experiment.cells import draws_rows
from ornstein.experiment.rows import write_rows
from ornstein.experiment.run import Run
from ornstein.experiment.stream import Drawing, rows_of


def save(folder: Path, run: Run, asked: Drawing, drawn: Tensor) -> tuple[Path, Path, Path]:
    """Write samples, (N, *shape) in model space, as .png, .npz and .csv.

    The .npz is that of `ornstein sample`; the .csv has a line for each sample, in the data's own units: a table's row
    as the table was written, of all else the numbers in the order of axes that the data came in.
    """
    picture, arrays, table = (folder / f"drawn.{end}" for end in ("png", "npz", "csv"))
    condition = asked.condition(run)
    run.picture(drawn, picture)
    run.save_arrays(drawn, condition, asked.seed, arrays)
    if draws_rows(run):
        write_rows(run, table, iter([rows_of(run, asked, drawn)]))
    else:
        own = run.layout.give_back(run.transform.inverse(drawn, quantise=True)).flatten(1).numpy()
        names = run.about["data"].get("columns") or []
        head = ",".join(names if len(names) == own.shape[1] else [f"x{i}" for i in range(own.shape[1])])
        whole = np.issubdtype(own.dtype, np.integer)
        np.savetxt(table, own, fmt="%d" if whole else "%.9g", delimiter=",", header=head, comments="", encoding="utf-8")
    return picture, arrays, table
