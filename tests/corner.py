"""One corner of the versions that setup.cfg admits, in an environment of its own: does everything still run?

`oldest` takes the lowest version of each package that setup.cfg names, `pinned` those of constraints.txt, `newest` the
newest that the bounds allow. Each step is a selection of the tests or a command as a user types it. The table goes to
standard output, what the steps say to WHICH/log; the exit code is 1 where a step failed, with the packages that differ
from constraints.txt.

Usage: `python tests/corner.py oldest|pinned|newest [--smoke] [--python 3.13]`, or `make corner WHICH=oldest`.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTEST = ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadscope")
TINY = ("lmms-eval", "--model", "halo_tiny", "--tasks", "halo_count", "--limit", "4", "--log_samples")
CACHES = ("qwen3_vl", "gemma3", "qwen3_5", "llama4", "mllama")
"""A family of each kind of cache: full, sliding, with layers without attention, chunked, with the image's own keys."""


def steps(out, *, smoke):
    """The steps by name, each a command."""
    checkpoint = ROOT / "halo_probe" / "embedded" / "checkpoints" / "counts"
    bare = ("lmms-eval", "--model", "qwen3_vl", "--model_args", f"pretrained={checkpoint},device_map=cpu")
    runs = {
        "run without the probe": (*bare, "--device", "cpu", *TINY[3:], "--output_path", out / "bare"),
        "probed run, counts": (*TINY, "--output_path", out / "counts"),
    }
    families = "tests/halo_probe/capture/test_families.py"
    if smoke:
        chosen = " or ".join(f"[{name}]" for name in CACHES)
        return {**runs, "capture, a family of each cache": (*PYTEST, families, "-k", chosen)}
    return {
        "capture against eager, every family": (*PYTEST, families),
        "capture, kernels and decoding": (*PYTEST, "tests/halo_probe/capture", "--deselect", families),
        "every task in lmms-eval": (*PYTEST, "tests/lmms_eval_tasks"),
        **runs,
        "probed run, takeover": (*TINY, "--model_args", "variant=takeover", "--output_path", out / "takeover"),
        "resume": (*PYTEST, "tests/halo_probe/lmms/test_resume.py"),
        "score": ("halo-probe", "score", out / "counts", "--null"),
        "compare": ("halo-probe", "compare", out / "counts", out / "takeover"),
        "report": ("halo-probe", "report", out / "counts", out / "takeover", "--out", out / "site", "--force"),
    }


def install(which, folder, interpreter):
    """Make the environment of a corner for an interpreter: its path, or its version.

    Returns:
        Its folder of commands.
    """
    uv, python = Path(sys.executable).with_name("uv"), folder / "venv" / "bin" / "python"
    if not python.exists():
        run([uv, "venv", "--quiet", "--python", interpreter, folder / "venv"])
    install = [uv, "pip", "install", "--quiet", "--python", python, "--editable", ".[dev]"]
    if which == "oldest":
        lowest = folder / "oldest.txt"
        compile_ = [uv, "pip", "compile", "--quiet", "--python", python, "setup.cfg", "--resolution", "lowest-direct"]
        run([*compile_, "--output-file", lowest])
        run([*install, "--constraint", lowest])
    else:
        run([*install, *(("--constraint", "constraints.txt") if which == "pinned" else ("--upgrade",))])
    return python.parent


def run(command):
    """Run a command that has to succeed."""
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)


def moved(python):
    """The packages whose version is not that of constraints.txt, those that are pinned alone."""
    listed = subprocess.run(
        [Path(sys.executable).with_name("uv"), "pip", "freeze", "--python", python],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    installed, pinned = (dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)) for text in (
        listed, (ROOT / "constraints.txt").read_text()
    ))  # fmt: skip
    return [
        f"{name} {pinned[name]} -> {version}"
        for name, version in installed.items()
        if pinned.get(name, version) != version
    ]


def main():
    """Make the environment, run the steps, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("oldest", "pinned", "newest"))
    parser.add_argument("--smoke", action="store_true", help="the shortest steps alone")
    parser.add_argument("--python", default=sys.executable, help="another interpreter: its path, or its version")
    given = parser.parse_args()
    named = "" if given.python == sys.executable else f"-{Path(given.python).name}"
    folder = ROOT / ".corners" / f"{given.which}{named}"
    (folder / "log").mkdir(parents=True, exist_ok=True)
    commands = install(given.which, folder, given.python)
    failed = []
    out = folder / f"runs-{time.strftime('%Y%m%d-%H%M%S')}"
    version = subprocess.run([commands / "python", "--version"], capture_output=True, text=True, check=True).stdout
    print(f"{given.which}: {version.strip()}", flush=True)
    for name, command in steps(out, smoke=given.smoke).items():
        log, started = folder / "log" / f"{name.replace(' ', '-')}.txt", time.monotonic()
        with log.open("w") as told:
            code = subprocess.run(
                [commands / command[0], *map(str, command[1:])],
                cwd=ROOT, stdout=told, stderr=subprocess.STDOUT, check=False,
            ).returncode  # fmt: skip
        # lmms-eval's command exits 0 where the evaluation failed: then it left no results.
        if command[0] == "lmms-eval" and not list(Path(command[-1]).rglob("*_results.json")):
            code = code or 1
        failed += [name] * (code != 0)
        print(f"{'ok' if code == 0 else 'FAILED':<8}{name:<40}{time.monotonic() - started:>6.0f} s", flush=True)
        if code:
            print("\n".join(f"        {line}" for line in log.read_text().splitlines()[-12:]), flush=True)
    if failed:
        print(f"{given.which}: {', '.join(failed)} failed. Versions that differ from constraints.txt:")
        print("\n".join(f"  {one}" for one in moved(commands / "python")) or "  none")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
