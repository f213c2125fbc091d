"""The built wheel, away from the source tree, and the weight of the entry point."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source") / "tree"
    run(["git", "clone", "--quiet", ROOT, source])  # only what is committed can be built from a fresh clone
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source])
    (path,) = out.glob("halo_probe-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel alone, before the source tree on the path of a process that starts elsewhere."""
    folder = tmp_path_factory.mktemp("site")
    run([sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", folder, wheel])
    return folder


def test_the_wheel_holds_tasks_and_types_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith("dist-info")} == {
        "dataset_builder",
        "halo_probe",
        "lmms_eval_tasks",
    }
    for name in (
        "lmms_eval_tasks/tasks/halo_count.yaml",
        "lmms_eval_tasks/tasks/set.jsonl",
        "halo_probe/embedded/checkpoints/counts/model.safetensors",
        "halo_probe/page/site/index.html.jinja",
        "halo_probe/page/site/explorer.js",
        "halo_probe/py.typed",
    ):
        assert name in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_wheel_is_found_by_lmms_eval_without_the_source_tree(installed, tmp_path):
    code = (
        "import lmms_eval.evaluator, lmms_eval.models, lmms_eval_tasks, halo_probe, dataset_builder\n"
        "from lmms_eval.tasks import TaskManager\n"
        "print(halo_probe.__file__, dataset_builder.__file__)\n"
        "manager = TaskManager()\n"
        "print(manager.task_index['halo_count']['yaml_path'])\n"
        "assert 'halo_count' not in TaskManager(include_defaults=False).all_tasks\n"
        "assert type(manager._get_config('halo_count')['process_docs']).__name__ == 'function'\n"
        "print(lmms_eval.models.get_model('halo').__name__, lmms_eval.models.get_model('halo', True).__name__)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    finished = run([sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment)
    files, yaml_path, classes = finished.stdout.strip().splitlines()[-3:]
    assert all(Path(file).is_relative_to(installed) for file in files.split())
    assert Path(yaml_path).is_relative_to(installed)
    assert classes == "HaloChat HaloSimple"


def test_a_task_of_the_user_wins_over_ours_of_the_same_name(tmp_path):
    (tmp_path / "mine.yaml").write_text("task: halo_count\n")
    code = (
        "import sys, lmms_eval.models\n"
        "from lmms_eval.tasks import TaskManager\n"
        "print(TaskManager(include_path=sys.argv[1]).task_index['halo_count']['yaml_path'])\n"
    )
    finished = run([sys.executable, "-c", code, tmp_path])
    assert finished.stdout.strip().splitlines()[-1] == str(tmp_path / "mine.yaml")


def test_lmms_eval_models_lists_the_probe_and_imports_no_model_stack():
    code = (
        "import sys; from lmms_eval.cli.dispatch import main\n"
        "sys.argv = ['lmms-eval', 'models']; main()\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'pyarrow', 'numpy') if name in sys.modules])\n"
        "print(sorted(name for name in sys.modules if name.startswith(('halo_probe', 'lmms_eval_tasks', 'dataset_'))))"
    )
    *listing, heavy, ours = run([sys.executable, "-c", code]).stdout.strip().splitlines()
    assert ["halo", "chat+simple"] in [line.split() for line in listing]
    assert heavy == "[]"
    assert (
        ours
        == "['halo_probe', 'halo_probe._version', 'halo_probe.lmms', 'halo_probe.lmms.plugin', 'halo_probe.replacing']"
    )


def test_looking_for_the_tasks_module_does_not_lose_our_tasks():
    code = (
        "import sys, lmms_eval.models; from importlib.util import find_spec; find_spec('lmms_eval.tasks')\n"
        "waiting = lambda: sum(type(finder).__name__ == '_TasksFinder' for finder in sys.meta_path)\n"
        "before = waiting(); from lmms_eval.tasks import TaskManager\n"
        "print('halo_count' in TaskManager().all_tasks, before, waiting())"
    )
    assert run([sys.executable, "-c", code]).stdout.strip().splitlines()[-1] == "True 1 0"
