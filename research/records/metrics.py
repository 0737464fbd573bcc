"""Metrics of a training: a CSV file for the reader, and the same as events for TensorBoard."""

import csv
import io
import os
from pathlib import Path

from tensorboardX import SummaryWriter

COLUMNS: tuple[str, ...] = ("step", "epoch", "rate", "loss", "accuracy", "gradient_norm", "test_loss", "test_accuracy")


class Metrics:
    """Rows of numbers by step. After a checkpoint's step come no rows of the run that was stopped."""

    def __init__(self, folder: Path, step: int):
        self.path = folder / "metrics.csv"
        self.rows = [row for row in read(self.path) if int(row["step"]) <= step]
        part = self.path.with_suffix(".csv.part")
        part.write_text(written([dict(zip(COLUMNS, COLUMNS, strict=True)), *self.rows]))
        os.replace(part, self.path)
        # The rows once more: TensorBoard drops the events past purge_step of the files before.
        self.events = SummaryWriter(str(folder / "events"), purge_step=step + 1)

    def add(self, row: dict[str, float]) -> None:
        step = int(row["step"])
        self.rows.append({name: format(value, ".9g") for name, value in row.items()})
        with self.path.open("a") as file:
            file.write(written(self.rows[-1:]))
        for name, value in row.items():
            if name != "step":
                self.events.add_scalar(name.replace("test_", "test/"), value, step)

    def close(self) -> None:
        self.events.close()

    def column(self, name: str) -> tuple[list[float], list[float]]:
        """(steps, values) where there is a value."""
        rows = [row for row in self.rows if row.get(name)]
        return [float(row["step"]) for row in rows], [float(row[name]) for row in rows]


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a file, without a last one that a kill has cut off."""
    if not path.exists():
        return []
    text = path.read_text()
    rows = list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))
    return [{k: v for k, v in row.items() if v} for row in rows if None not in row and None not in row.values()]


def written(rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, lineterminator="\n").writerows(rows)
    return text.getvalue()
