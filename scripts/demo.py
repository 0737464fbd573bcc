"""Runs the experiments, two at a time, whatever fails, and gathers what they show in out/demo.md."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

# The longest first; demo.md has the shortest first. Those with a quick form run in it.
EXPERIMENTS = {
    "claims": [],
    "twins": ["--quick"],
    "heatmaps": ["--quick"],
    "gain": ["--quick"],
    "adjoint": ["--quick"],
    "probes": [],
    "photograph": [],
    "worked_examples": [],
}
OUT = Path("out")
PROCESSES: list[subprocess.Popen] = []
started = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - started:4.0f} s  {text}", flush=True)


def run(name: str) -> int:
    """The exit status of an experiment; what it says goes to its log."""
    say(f"{name} begins")
    command = [sys.executable, "-m", f"research.{name}", "--out", str(OUT), *EXPERIMENTS[name]]
    for earlier in [OUT / f"{name}.md", *OUT.glob(f"{name}*.png")]:
        earlier.unlink(missing_ok=True)
    with (OUT / f"{name}.log").open("w") as log:
        PROCESSES.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        return PROCESSES[-1].wait()


def results(names: list[str], statuses: dict[str, int]) -> Iterator[str]:
    """Of each experiment what it wrote, and where it failed why."""
    for name in names:
        if statuses[name]:
            log = (OUT / f"{name}.log").read_text(errors="replace").splitlines()
            yield "\n".join([f"# {name} FAILED with exit status {statuses[name]}", "", "```", *log[-20:], "```", ""])
        if (OUT / f"{name}.md").exists():
            yield (OUT / f"{name}.md").read_text()


def main() -> str | int:
    wanted = sys.argv[1:] or list(EXPERIMENTS)
    if unknown := [name for name in wanted if name not in EXPERIMENTS]:
        return f"no experiment is called {unknown[0]!r}: choose among {', '.join(EXPERIMENTS)}"
    OUT.mkdir(exist_ok=True)
    statuses: dict[str, int] = {}
    with ThreadPoolExecutor(2) as pool:
        running = {pool.submit(run, name): name for name in EXPERIMENTS if name in wanted}
        try:
            for done in as_completed(running):
                name, error = running[done], done.exception()
                statuses[name] = 1 if error else done.result()
                if error:  # it did not even begin
                    (OUT / f"{name}.log").write_text(f"{error}\n")
                ending = f"FAILED with exit status {statuses[name]}" if statuses[name] else "done"
                say(f"{name} {ending}, {len(statuses)} of {len(running)}")
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in PROCESSES:
                process.terminate()
            return "interrupted"
    names = [name for name in reversed(EXPERIMENTS) if name in wanted]
    (OUT / "demo.md.part").write_text("\n".join(results(names, statuses)))
    os.replace(OUT / "demo.md.part", OUT / "demo.md")
    say(f"see {OUT}/demo.md and the pictures beside it")
    failed = [name for name in names if statuses[name]]
    if failed:
        say(f"FAILED: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
