"""Checkpoints from which a training goes on bit for bit, whatever stopped it.

orbax writes a checkpoint into a folder of another name and renames it when all is on the disk, so that a kill or a
full disk leaves the earlier ones as they were. One that cannot be read, or has numbers that are not finite, is passed
over for the one before, and goes when the next is written.
"""

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

KEPT = 3


class Checkpoints:
    """The last three states of a training, by step; a state is any pytree of arrays."""

    def __init__(self, folder: Path):
        logging.getLogger("absl").setLevel(logging.ERROR)
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, enable_async_checkpointing=False)
        self.folder = folder.absolute()
        # With a handler, orbax does not take what it is to read from the last folder, which may be an empty one.
        handler = ocp.StandardCheckpointHandler()
        self.manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handler)
        self.damaged: list[int] = []  # the steps that restore passed over

    @property
    def steps(self) -> list[int]:
        return sorted(self.manager.all_steps())

    def save(self, step: int, state: Any) -> None:
        """Write the state; OSError if it cannot be, and then the earlier ones are still there."""
        if step in self.steps and step not in self.damaged:
            return
        try:
            while self.damaged:
                self.manager.delete(self.damaged[-1])
                self.damaged.pop()
            self.manager.save(step, args=ocp.args.StandardSave(named(state)), force=True)  # also below the last step
            self.manager.wait_until_finished()
        except Exception as e:  # orbax and tensorstore raise ValueError, OSError and their own
            last = f"step {self.steps[-1]} is whole" if self.steps else "there is no earlier one"
            raise OSError(
                f"the checkpoint of step {step} could not be written to {self.folder} ({first_line(e)}); {last}. "
                "Make room, and go on with --resume."
            ) from e

    def restore(self, like: Any) -> tuple[int, Any, list[str]] | None:
        """(step, state, what was passed over) of the last checkpoint that can be read; None if there is none."""
        names, passed, self.damaged = named(like), [], []
        for step in reversed(self.steps):
            try:
                found = self.manager.restore(step, args=ocp.args.StandardRestore(names))
                leaves = [found[name] for name in names]
                wrong = [n for n, a, b in zip(names, leaves, names.values(), strict=True) if a.shape != b.shape]
                if wrong:
                    raise ValueError(f"other shapes: {', '.join(wrong)}")
                if wrong := not_finite(dict(zip(names, leaves, strict=True))):
                    raise ValueError(f"not finite: {', '.join(wrong)}")
            except Exception as e:  # whatever a damaged file leads to
                self.damaged.append(step)
                passed.append(f"the checkpoint of step {step} could not be read ({first_line(e)})")
                continue
            return step, jax.tree.unflatten(jax.tree.structure(like), leaves), passed
        if passed:
            raise OSError(f"no checkpoint in {self.folder} can be read: {'; '.join(passed)}.")
        return None


def named(state: Any) -> dict[str, np.ndarray]:
    """The leaves by their paths: a dictionary, which orbax keeps as it is."""
    leaves, _ = jax.tree.flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def not_finite(state: Any) -> list[str]:
    """The paths of the leaves in which there is a NaN or an infinity."""
    return [name for name, leaf in named(state).items() if not np.isfinite(leaf).all()]


def first_line(e: Exception) -> str:
    return f"{type(e).__name__}: {(str(e).splitlines() or [''])[0][:200]}"
