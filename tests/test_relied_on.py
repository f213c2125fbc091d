"""Every name of other packages that halo-probe relies on and that no import would miss, held against what is installed.

A line that fails here is what moved. Names that are imported are missed by the import itself.
"""

import ast
import importlib.util
import inspect
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AttentionInterface, DynamicCache, StaticCache
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import halo_probe
from halo_probe.lmms.seams import SEAMS

SIGNATURES = {
    # The seam of the recording (capture/dispatch.py) and what follows it.
    "transformers.modeling_utils:AttentionInterface.get_interface": ("attn_implementation", "default"),
    "transformers:PreTrainedModel.get_decoder": (),
    "transformers:PreTrainedModel.set_attn_implementation": ("attn_implementation",),
    "transformers:PreTrainedModel.can_generate": (),
    "transformers:GenerationConfig.get_generation_mode": ("assistant_model",),
    "transformers:GenerationConfig.update": ("defaults_only", "allow_custom_entries"),
    "transformers.cache_utils:Cache.get_seq_length": (),
    "transformers:PretrainedConfig.get_config_dict": (),
    "transformers:PretrainedConfig.get_text_config": (),
    # What lmms-eval is met by (lmms/plugin.py, run.py, emission.py, boundary.py).
    "lmms_eval.tasks:TaskManager.initialize_tasks": ("include_path", "include_defaults"),
    "lmms_eval.tasks:TaskManager._get_task_and_group": (),
    "lmms_eval.evaluator_utils:stderr_for_metric": ("metric", "bootstrap_iters"),
    "lmms_eval.evaluator:get_task_dict": ("task_manager",),
    "lmms_eval.loggers.evaluation_tracker:EvaluationTracker.save_results_samples": ("task_name", "samples"),
    "lmms_eval.evaluator:evaluate": ("lm", "task_dict", "cli_args", "response_cache"),
    "lmms_eval.api.task:Task.apply_filters": (),
    "lmms_eval.api.task:Task.process_results": (),
    "lmms_eval.api.task:Task.aggregation": (),
    "lmms_eval.api.task:Task.higher_is_better": (),
    "lmms_eval.api.model:lmms.create_from_arg_string": ("arg_string", "additional_config"),
    "lmms_eval.api.model:lmms.clean": (),
    "lmms_eval.api.model:lmms.generate_until": (),
    "lmms_eval.api.model:lmms.generate_until_multi_round": (),
    "transformers:GenerationMixin.generate": ("inputs",),
    "importlib.machinery:SourceFileLoader.exec_module": (),
    "lmms_eval.caching.response_cache:ResponseCache.execute": (),
    "lmms_eval.models:get_model": ("model_name", "force_simple"),
    "lmms_eval.models:list_available_models": ("include_aliases",),
    "lmms_eval.utils:make_table": (),
    "lmms_eval.protocol:ChatMessages.to_hf_messages": (),
    "lmms_eval.api.instance:unwrap_generation_output": (),
}
"""Functions that are called or replaced, with the parameters that are given by name."""

ATTRIBUTES = (
    "lmms_eval.models:AVAILABLE_CHAT_TEMPLATE_MODELS",
    "lmms_eval.models:AVAILABLE_SIMPLE_MODELS",
    "lmms_eval.tasks:TaskManager",
    "lmms_eval.models.chat.qwen3_vl:tqdm",
    "transformers:GenerationConfig.extra_output_flags",
    "datasets.table:InMemoryTable",
    "datasets:Dataset._fingerprint",
)
"""Names that are looked up where they lie; `_fingerprint` is of instances."""

FIELDS = {
    "lmms_eval.api.instance:Instance": ("request_type", "arguments", "idx", "metadata", "filtered_resps", "resps"),
    "lmms_eval.api.instance:TokenCounts": ("input_tokens", "output_tokens", "reasoning_tokens"),
    "lmms_eval.api.instance:GenerationResult": ("text", "token_counts"),
    "lmms_eval.models.registry_v2:ModelManifest": ("model_id", "chat_class_path", "simple_class_path"),
    "lmms_eval.api.task:TaskConfig": ("task", "repeats", "num_fewshot", "metadata", "generation_kwargs", "output_type"),
}
"""Dataclasses whose fields are read or given by name."""

OF_INSTANCES = {
    "lmms_eval.tasks:TaskManager.model_name": ("lmms_eval.tasks:TaskManager.__init__", "self.model_name ="),
    "lmms_eval.api.model:lmms.task_dict": ("lmms_eval.api.model:lmms.__init__", "self.task_dict ="),
}
"""Attributes that only instances have: the function that sets them, and how."""
PACKAGE = Path(halo_probe.__file__).parent
TESTS = Path(__file__).parent


def found(name):
    module, _, path = name.partition(":")
    thing = importlib.import_module(module)
    for part in path.split("."):
        thing = getattr(thing, part)
    return thing


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_function_is_there_and_takes_what_it_is_given_by_name(name):
    assert set(SIGNATURES[name]) <= set(inspect.signature(found(name)).parameters), name


@pytest.mark.parametrize("name", [one for one in ATTRIBUTES if not one.endswith("_fingerprint")])
def test_a_name_that_is_looked_up_is_there(name):
    assert found(name) is not None


@pytest.mark.parametrize("name", FIELDS)
def test_a_record_has_the_fields_that_are_read(name):
    assert set(FIELDS[name]) <= set(found(name).__dataclass_fields__), name


@pytest.mark.parametrize("name", OF_INSTANCES)
def test_an_attribute_that_is_replaced_is_set_where_an_instance_is_made(name):
    function, words = OF_INSTANCES[name]
    assert words in inspect.getsource(found(function))


def _calls(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]


def _replaced_names(tree):
    """The names that a file replaces; None for one that is not written out."""
    given = [call.args[1] for call in _calls(tree) if call.func.id in ("replaced", "replace_for_good")]
    return [name.value if isinstance(name, ast.Constant) else None for name in given]


def _patches_by_hand(tree):
    """Lines that give another object an attribute in any other way than by `halo_probe.replacing`."""
    for call in _calls(tree):
        if call.func.id in ("setattr", "delattr"):
            yield ast.unparse(call)
    for node in ast.walk(tree):
        for target in node.targets if isinstance(node, ast.Assign) else []:
            for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                inner = part.value if isinstance(part, ast.Subscript | ast.Attribute) else None
                if isinstance(part, ast.Attribute) and isinstance(inner, ast.Name) and inner.id != "self":
                    yield ast.unparse(node)
                if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "vars":
                    yield ast.unparse(node)


MARKS = {
    "setattr(get_task_dict, _ORIGINAL, original_get_task_dict)",
    "setattr(evaluate, _ORIGINAL, original_evaluate)",
    "setattr(save_and_seal, _ORIGINAL, save)",
    "vars(run.lm)[_RUN] = run",
    "vars(module)[_LISTENER] = listener",
    "installed.users = users",
    "current.request = request",
    "waiting.key, waiting.arguments = (call.key, call.arguments)",
    "delattr(ALL_ATTENTION_FUNCTIONS, _SEAM)",
}
"""What is written on objects of our own, or under names of our own, and what takes a seam away again."""


def test_every_name_that_the_package_replaces_is_in_the_list_of_seams_and_nothing_else_is():
    listed = sorted((seam.made_in, seam.name.rpartition(":")[2].rpartition(".")[2]) for seam in SEAMS)
    trees = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
    made = {(file, name) for file, tree in trees.items() if file != "replacing.py" for name in _replaced_names(tree)}
    assert sorted(made) == listed
    by_hand = {
        line
        for file, tree in trees.items()
        if file.startswith(("lmms/", "capture/"))
        for line in _patches_by_hand(tree)
    }
    assert by_hand == MARKS


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: f"{seam.made_in}-{seam.name}")
def test_a_seam_is_held_against_what_is_installed_and_names_a_test_that_is_there(seam):
    owner, _, name = seam.name.rpartition(".")
    held = {*SIGNATURES, *ATTRIBUTES, *OF_INSTANCES, "lmms_eval.__main__:make_table"}
    assert seam.name in held or name in FIELDS.get(owner, ())
    file, _, test = seam.noticed_by.partition("::")
    tree = ast.parse((TESTS / file).read_text())
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_command_prints_its_table_by_a_name_of_its_own():
    """Read and not imported: where it is imported, an error ends the process as it ends the command."""
    source = ast.parse(Path(importlib.util.find_spec("lmms_eval").origin).with_name("__main__.py").read_text())
    names = {alias.name for one in ast.walk(source) if isinstance(one, ast.ImportFrom) for alias in one.names}
    assert "make_table" in names


def test_the_mapping_of_kernels_asks_itself_for_each_of_them():
    assert isinstance(ALL_ATTENTION_FUNCTIONS, AttentionInterface)
    assert ALL_ATTENTION_FUNCTIONS.get_interface("sdpa", None) is ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert ALL_ATTENTION_FUNCTIONS.get_interface("eager", len) is len


@pytest.mark.parametrize("name", ["sdpa", "flex_attention", "flash_attention_2"])
def test_kernels_take_module_query_key_value_and_mask_in_this_order(name):
    parameters = list(inspect.signature(ALL_ATTENTION_FUNCTIONS[name]).parameters)
    assert parameters[:5] == ["module", "query", "key", "value", "attention_mask"]
    assert "scaling" in parameters


def test_caches_are_of_one_type_and_count_their_positions(qwen3_vl_model):
    config = qwen3_vl_model.config.get_text_config()
    for cache in (DynamicCache(config=config), StaticCache(config, max_cache_len=8)):
        assert isinstance(cache, Cache)
        assert int(cache.get_seq_length()) == 0
    assert DynamicCache(config=config).offloading is False


def test_the_configuration_names_the_kernel(qwen3_vl_model):
    assert qwen3_vl_model.get_decoder().config._attn_implementation == "sdpa"


def test_the_decoder_is_given_its_cache_and_its_tokens_by_names_that_are_known(qwen3_vl_model, qwen3_vl_processor):
    """The keywords themselves: the first to move when transformers renames one."""
    from PIL import Image
    from tiny_models import make_inputs

    given = []

    def note(module, args, kwargs):
        given.append((args, dict(kwargs)))

    hook = qwen3_vl_model.get_decoder().register_forward_pre_hook(note, with_kwargs=True)
    try:
        inputs = make_inputs(qwen3_vl_processor, [Image.new("RGB", (64, 64))], ["How many?"])
        qwen3_vl_model.generate(**inputs, max_new_tokens=2, do_sample=False)
    finally:
        hook.remove()
    for args, kwargs in given:
        assert args == ()
        assert sum(isinstance(value, Cache) for value in kwargs.values()) == 1
        assert isinstance(kwargs["inputs_embeds"], torch.Tensor) or isinstance(kwargs["input_ids"], torch.Tensor)


def test_a_data_set_says_what_it_was_made_from():
    import datasets

    assert datasets.Dataset.from_dict({"a": [1]})._fingerprint


def test_a_deprecated_call_of_ours_is_an_error_in_this_suite(qwen3_vl_model, qwen3_vl_processor):
    """What transformers renames is warned of a release before it breaks."""
    from transformers.utils.deprecation import deprecate_kwarg

    @deprecate_kwarg("old", "99.0.0", new_name="new")
    def renamed(new=None):
        return new

    with pytest.raises(FutureWarning, match="old"):
        renamed(old=1)
    assert transformers.__version__
