"""The `lmms-eval` command as often as tests want it, for the price of one start.

Importing lmms-eval, torch and transformers takes most of the time of a short evaluation. So a process that has imported
them, and in which nothing of torch has run, forks a child for each command line: a process of its own, with its own
arguments, environment, folder and output, that runs lmms-eval's own entry function to its own exit code.

Variables that libraries read when they are imported (`HF_HOME`, `HF_HUB_OFFLINE`) are those of the parent: it is started
offline, with a home of its own.
"""

import atexit
import importlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

AT_IMPORT = ("HF_HOME", "HF_HUB_OFFLINE")
IMPORTED = (
    *("lmms_eval.__main__", "lmms_eval.models.chat.qwen3_vl", "lmms_eval.models.simple.gemma3"),
    *("halo_probe.lmms.model", "halo_probe.lmms.transformers_chat", "halo_probe.score.run"),
    *("nltk", "pytablewriter", "rich.console", "sklearn.metrics"),  # which lmms-eval imports on the way
)


class LmmsEval:
    """Runs command lines of lmms-eval, each in a forked process.

    Args:
        folder: Where the home of the libraries and the output of the commands go.
    """

    def __init__(self, folder):
        self.folder = folder
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HALO_", "LMMS_", "COV_"))},
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_OFFLINE": "1",
        }
        self._lock = threading.Lock()
        self._server = None

    def __call__(self, arguments, *, cwd=None, **environment):
        """Run `lmms-eval` with these arguments and, beside those of all commands, these environment variables.

        Returns:
            What `subprocess.run` would return.
        """
        assert not environment.keys() & set(AT_IMPORT), "libraries have read these already"
        with self._lock:
            if self._server is None:
                self._server = self._start()
            with tempfile.TemporaryDirectory(dir=self.folder) as output:
                request = {
                    "arguments": [str(one) for one in arguments],
                    "environment": {**self._environment, **environment},
                    "cwd": str(cwd or Path.cwd()),
                    "output": output,
                }
                self._server.stdin.write(json.dumps(request) + "\n")
                self._server.stdin.flush()
                ended = self._server.stdout.readline()
                assert ended, "the process that starts the commands has died"
                stdout, stderr = (Path(output, name).read_text() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(["lmms-eval", *arguments], json.loads(ended), stdout, stderr)

    @property
    def environment(self):
        """The variables of every command, for processes that are started otherwise."""
        return self._environment

    def close(self):
        """End the process that starts the commands."""
        if self._server is not None:
            self._server.communicate()

    def _start(self):
        return subprocess.Popen(
            [sys.executable, "-P", __file__],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )


def _run(request):
    """Run lmms-eval in this process, a child, with the exit code that Python would end it with."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.argv = ["lmms-eval", *request["arguments"]]
    for number, name in ((0, os.devnull), (1, "stdout"), (2, "stderr")):
        file = os.open(Path(request["output"], name), os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(file, number)
    from lmms_eval.cli.dispatch import main

    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as Python itself does at the top
        traceback.print_exc()
        return 1
    return 0


def remember_task_files():
    """Read the 3,000 task files of lmms-eval once a process: each evaluation reads them all to find its tasks."""
    from lmms_eval import tasks, utils

    own, known = str(Path(tasks.__file__).parent), {}
    load = utils.load_yaml_config

    def load_known(yaml_path=None, *args, mode="full", **kwargs):
        if mode != "simple" or args or kwargs or not str(yaml_path).startswith(own):
            return load(yaml_path, *args, mode=mode, **kwargs)
        if yaml_path not in known:
            known[yaml_path] = pickle.dumps(load(yaml_path, mode=mode))
        return pickle.loads(known[yaml_path])

    utils.load_yaml_config = load_known
    tasks.TaskManager()  # which reads them


def _serve():
    commands = os.fdopen(os.dup(0), "r")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # lmms-eval logs to standard output
    for module in IMPORTED:
        importlib.import_module(module)
    remember_task_files()
    for line in commands:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            code = _run(request)
            threading._shutdown()
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        answers.write(json.dumps(os.waitstatus_to_exitcode(status)) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
