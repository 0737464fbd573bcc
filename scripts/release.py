"""Build a release, and try it as a user would who has nothing else installed.

./scripts/release                       # all extras: some minutes
./scripts/release --extra flax          # without extras, and with one
"""

import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Annotated
from zipfile import ZipFile

import typer

import jaxconv

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "out" / "release"
NOT_TRIED = ("test", "bench")  # of developers
INSIDE = ("jaxconv/costs.json", "jaxconv/py.typed", "jaxconv/__init__.py", "jaxconv/engines/__init__.py")


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def build() -> Path:
    """The wheel, after a look into it and into the sdist."""
    rmtree(OUT, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", OUT, ROOT)
    ((wheel,), (sdist,)) = OUT.glob("*.whl"), OUT.glob("*.tar.gz")
    assert f"-{jaxconv.__version__}-" in wheel.name, wheel.name
    names = ZipFile(wheel).namelist()
    assert all(name.startswith(("jaxconv/", "jaxconv-")) for name in names), names
    assert not [name for name in INSIDE if name not in names]
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "jaxconv").rglob("*.py")}
    assert sources <= set(names), sources - set(names)
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", *sources} <= packed
    print(f"{wheel.name}: {len(names)} files; {sdist.name}: {len(packed)}")
    return wheel


def example() -> str:
    """The README's first example, as a program that fails if an answer is not the one that stands there."""
    return f"import doctest; raise SystemExit(doctest.testfile({str(ROOT / 'README.md')!r}, False).failed)"


def tried(wheel: Path, extra: str) -> None:
    """Install the wheel in a new environment, away from the repository, and use it."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        venv.create(home / "venv", with_pip=True)
        python = home / "venv" / "bin" / "python"
        what = f"jaxconv[{extra}] @ {wheel.as_uri()}" if extra else str(wheel)
        run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", what, cwd=home)
        where = run(python, "-c", "import jaxconv; print(jaxconv.__file__)", cwd=home)
        assert str(home) in where, where
        assert run(home / "venv" / "bin" / "jaxconv", "--version", cwd=home).split()[-1] == jaxconv.__version__
        run(python, "-c", example(), cwd=home)
        last = run(home / "venv" / "bin" / "jaxconv", "verify", "--theme", "adjoint", cwd=home).strip().splitlines()[-1]
        print(f"{extra or 'no extra':10} {last}", flush=True)


def main(
    extra: Annotated[list[str] | None, typer.Option(help="an extra to try; repeatable, by default all")] = None,
) -> None:
    """Build, look inside, and try the wheel without extras and with each."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wheel = build()
    for name in ["", *(extra or (name for name in known if name not in NOT_TRIED))]:
        tried(wheel, name)


if __name__ == "__main__":
    typer.run(main)
