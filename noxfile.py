"""The project's tasks. ``nox -l`` lists them. Arguments after ``--`` go to the program that a session runs."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = True
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")


WORKERS = str(os.cpu_count() or 1)


def install(session: nox.Session, *groups: str, project: str | None = ".[cuda,export]") -> None:
    """Install the project and dependency groups at the versions in constraints.txt.

    The extra ``cuda`` compiles CUDA without a GPU, so every machine can test that the kernels compile. ``export``
    writes and runs ONNX.
    """
    packages = nox.project.dependency_groups(PYPROJECT, *groups) if groups else ()
    editable = ("-e", project) if project else ()
    session.install("-c", str(ROOT / "constraints.txt"), *editable, *packages)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, one worker per core. Arguments go to pytest. With --cov, a package below 90% coverage fails."""
    install(session, "tests")
    # one thread per worker: the workers already use all cores
    session.env["OMP_NUM_THREADS"] = "1"
    session.run("pytest", "-n", WORKERS, "--dist", "loadgroup", *session.posargs)
    if "--cov" in session.posargs:
        for package in ("cornernet", "kernels", "ablations"):
            session.run("coverage", "report", f"--include={package}/*", "--format=total", "--fail-under=90")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff, and that imports run one way (the layers in pyproject.toml)."""
    install(session, "lint", project=None)
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    session.run("lint-imports", env={"PYTHONPATH": str(ROOT)})


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy in strict mode."""
    install(session, "types")
    session.install("-c", str(ROOT / "constraints.txt"), "nox")
    session.run("mypy", *session.posargs)


def build_wheel(session: nox.Session) -> Path:
    """Build the wheel, check what it holds at top level, and return its path."""
    dist = Path(session.create_tmp()) / "dist"
    for folder in (dist, ROOT / "build"):  # setuptools would build from the remains of an earlier build
        shutil.rmtree(folder, ignore_errors=True)
    session.run("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(dist), str(ROOT))
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        top = {name.partition("/")[0] for name in archive.namelist()}
    packages = {name for name in top if not name.endswith(".dist-info")}
    if packages != {"cornernet"}:
        session.error(f"{wheel.name} must install cornernet and nothing else at top level; it has {sorted(packages)}")
    return wheel


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel, install it, and run both programs outside the source tree."""
    wheel = build_wheel(session)
    session.install("-c", str(ROOT / "constraints.txt"), "--force-reinstall", "--no-deps", str(wheel))
    session.install("-c", str(ROOT / "constraints.txt"), str(wheel))
    with session.chdir(session.create_tmp()):
        for leftover in ("runs", "reports"):
            shutil.rmtree(leftover, ignore_errors=True)
        session.run("cornernet", "--help")
        session.run("cornernet", "ablate", "--profile", "smoke")
        session.run("python", "-m", "cornernet.ablations", "status", "--profile", "smoke")
        session.run("python", str(ROOT / "tests" / "former_tables.py"), "smoke", "runs/ablations")


BOTH_IMPORTED = """
import kernels as theirs
from cornernet import kernels as ours

assert "cornernet" not in theirs.__file__ and hasattr(theirs, "get_kernel"), theirs.__file__
assert ours.__name__ == "cornernet.kernels" and "cornernet" in ours.__file__, ours.__file__
print("kernels of Hugging Face:", theirs.__version__, "- ours:", len(ours.implementations()), "implementations")
"""


@nox.session(default=False)
def wheel(session: nox.Session) -> None:
    """Install the wheel and Hugging Face's ``kernels`` in both orders, import both, train; uninstall theirs, train.

    Both packages once installed a folder ``kernels``, and whichever came last broke the other.
    """
    ours = str(build_wheel(session))
    for order in ((ours, "kernels"), ("kernels", ours)):
        folder = Path(session.create_tmp()).resolve() / ("ours-first" if order[0] == ours else "theirs-first")
        shutil.rmtree(folder, ignore_errors=True)
        session.run("python", "-m", "venv", str(folder / "venv"))
        program = folder / "venv" / "bin"
        for package in order:
            session.run(
                *(str(program / "python"), "-m", "pip", "install", "--quiet"),
                *("-c", str(ROOT / "constraints.txt"), package),
                external=True,
            )
        with session.chdir(folder):
            session.run(str(program / "python"), "-c", BOTH_IMPORTED, external=True)
            train = (str(program / "cornernet"), "train", "--recipe", "tiny", "--training.iterations", "8")
            small = ("--data.source.train-images", "16", "--data.source.val-images", "4")
            session.run(*train, *small, "--out", "with-theirs", external=True)
            session.run(str(program / "python"), "-m", "pip", "uninstall", "--quiet", "--yes", "kernels", external=True)
            session.run(*train, *small, "--out", "without-theirs", external=True)


@nox.session(default=False)
def ablate(session: nox.Session) -> None:
    """Train and evaluate the ablations and write their tables. Arguments go to ``python -m ablations``."""
    install(session)
    session.run("python", "-m", "ablations", *session.posargs)


@nox.session(default=False)
def report(session: nox.Session) -> None:
    """Rewrite reports/ from the committed records and benchmarks. ``-- --check`` fails if reports/ is stale."""
    install(session)
    session.run("python", "-m", "cornernet.ablations.reporting", "--overwrite", *session.posargs)


@nox.session(default=False)
def property(session: nox.Session) -> None:
    """Run the property tests with thousands of examples for each implementation of a kernel.

    Set HYPOTHESIS_PROFILE in the environment to run fewer examples (ci), or more than an hour of them (exhaustive).
    """
    install(session, "tests")
    session.env["HYPOTHESIS_PROFILE"] = os.environ.get("HYPOTHESIS_PROFILE", "thorough")
    session.env["OMP_NUM_THREADS"] = "1"
    session.run("pytest", "-n", WORKERS, "--dist", "loadgroup", "tests/property", *session.posargs)


@nox.session(default=False)
def mutation(session: nox.Session) -> None:
    """Change one thing at a time in code that computes numbers, and see if a fast test notices (docs/reliability.md).

    Pass names of mutants, such as 'cornernet.ablations.statistics.intervals.*', to run only these. An interrupted run
    resumes. pyproject.toml lists the files that are changed and the tests that run. `mutmut show NAME` prints a mutant.
    """
    install(session, "tests", "mutation")
    session.env["OMP_NUM_THREADS"] = "1"
    session.env["HYPOTHESIS_PROFILE"] = "mutation"
    session.run("mutmut", "run", "--max-children", WORKERS, *session.posargs)
    session.run("python", "tests/mutation_score.py")


@nox.session(default=False)
def faults(session: nox.Session) -> None:
    """Kill trainings, studies and the renderer hundreds of times, fill disks, damage files, start with cold caches.

    docs/reliability.md has the outcomes.

    CORNERNET_FAULTS in the environment sets the number of faults of each kind (default 200). Arguments go to pytest.
    """
    install(session, "tests")
    session.env["HYPOTHESIS_PROFILE"] = "thorough"
    session.env["CORNERNET_FAULTS"] = os.environ.get("CORNERNET_FAULTS", "200")
    session.env["OMP_NUM_THREADS"] = "1"
    session.run("pytest", "tests/faults", *session.posargs)


@nox.session(default=False)
def aot(session: nox.Session) -> None:
    """Compile the Triton and CUDA kernels for sm_80, sm_90 and sm_100; print registers and spills; fail on a spill."""
    install(session)
    session.run("python", "-m", "cornernet.kernels.aot", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Run the benchmarks. Arguments, such as --benchmark-json=out.json, go to pytest."""
    install(session, "tests")
    session.run("pytest", "benchmarks", *session.posargs)


@nox.session(default=False)
def gpu(session: nox.Session) -> None:
    """Run the tests that need a CUDA device; without one they are skipped. Arguments go to pytest."""
    install(session, "tests")
    session.run("pytest", "-m", "gpu", *session.posargs)


@nox.session(default=False)
def ray(session: nox.Session) -> None:
    """Run a small study on a local Ray cluster with two workers, and kill one. Arguments go to pytest."""
    install(session, "tests", project=".[ray]")
    session.env["OMP_NUM_THREADS"] = "1"
    session.run("pytest", "tests/ray", *session.posargs)
