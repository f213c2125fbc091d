"""What a base model holds, hashed: whatever it was loaded from."""

import json
import os
import shutil
import time
import warnings
from types import SimpleNamespace

import peft
import pytest
import torch
from accelerate import cpu_offload
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from halo_probe.capture.fingerprint import fingerprint, tensors_sha256
from halo_probe.lmms.loaded import code_sha256, settings_sha256, weights_sha256


def held(model, processor):
    """What lmms-eval's models keep of a checkpoint."""
    return SimpleNamespace(_model=model, processor=processor, _tokenizer=processor.tokenizer, batch_size=1)


def hashes(folder, change=lambda *_: None):
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    change(model, processor)
    lm = held(model.eval(), processor)
    return weights_sha256(lm, model), settings_sha256(lm, model), code_sha256(lm, model)


def retrain(file):
    """Another last number of the weights; size and time of the file stay."""
    content, before = bytearray(file.read_bytes()), file.stat()
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture(scope="module")
def original(qwen3_vl_checkpoint):
    return hashes(qwen3_vl_checkpoint)


def copied(checkpoint, folder):
    return shutil.copytree(checkpoint, folder, copy_function=shutil.copyfile)


def linked(checkpoint, folder):
    """A folder of links to blobs, as in the cache of the Hub."""
    blobs = copied(checkpoint, folder.with_name("blobs"))
    folder.mkdir()
    for file in blobs.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def pointing(checkpoint, folder):
    """A folder whose index of weights names a file of another folder."""
    copied(checkpoint, folder)
    elsewhere = shutil.move(folder / "model.safetensors", folder.with_name("elsewhere.safetensors"))
    content = elsewhere.read_bytes()
    names = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    weights = {name: f"../{elsewhere.name}" for name in names if name != "__metadata__"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))
    return folder


@pytest.mark.parametrize(
    ("lay", "source"),
    [(copied, "folder/model.safetensors"), (linked, "blobs/model.safetensors"), (pointing, "elsewhere.safetensors")],
)
def test_weights_are_those_of_their_source_wherever_it_is(lay, source, original, qwen3_vl_checkpoint, tmp_path):
    folder = lay(qwen3_vl_checkpoint, tmp_path / "folder")
    assert hashes(folder) == original
    retrain(tmp_path / source)
    weights, *others = hashes(folder)
    assert weights != original[0]
    assert others == list(original[1:])


def adapter(folder, *, strength):
    """An adapter with weights of its own, in a folder of its own."""

    def change(model, _):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            config = peft.LoraConfig(r=2, lora_alpha=strength, target_modules=["q_proj"], init_lora_weights=False)
            # peft asks transformers for something by its former name.
            with warnings.catch_warnings(action="ignore", category=FutureWarning):
                tuned = peft.get_peft_model(model, config)
        tuned.save_pretrained(folder)

    return change


def test_an_adapter_is_part_of_the_weights_and_its_strength_of_the_settings(qwen3_vl_checkpoint, original, tmp_path):
    """Its folder names the checkpoint that it is for, and no argument names that one."""
    found = {}
    for strength in (4, 8):
        folder = tmp_path / str(strength)
        hashes(qwen3_vl_checkpoint, adapter(folder, strength=strength))
        source = json.loads((folder / "adapter_config.json").read_text())
        copied(qwen3_vl_checkpoint, tmp_path / f"base{strength}")
        source["base_model_name_or_path"] = str(tmp_path / f"base{strength}")
        (folder / "adapter_config.json").write_text(json.dumps(source))
        model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        lm = held(model, AutoProcessor.from_pretrained(qwen3_vl_checkpoint))
        found[strength] = weights_sha256(lm, model), settings_sha256(lm, model)
    assert found[4][0] == found[8][0] != original[0]
    assert len({found[4][1], found[8][1], original[1]}) == 3


def set_alpha(model, _):
    model.generation_config.repetition_penalty = 2.0


def reword(_, processor):
    processor.chat_template += " "


def grow(_, processor):
    processor.image_processor.size.longest_edge = 2**20


def add_token(_, processor):
    processor.tokenizer.add_tokens(["<dot>"])


def turn_on_dropout(model, _):
    model.get_decoder().layers[0].self_attn.attention_dropout = 0.5


@pytest.mark.parametrize("change", [set_alpha, reword, grow, add_token, turn_on_dropout])
def test_whatever_decides_on_the_prompt_or_on_what_is_made_of_it_is_part_of_the_settings(
    change, original, qwen3_vl_checkpoint
):
    weights, settings, _ = hashes(qwen3_vl_checkpoint, change)
    assert weights == original[0]
    assert settings != original[1]


def test_code_that_comes_with_a_checkpoint_is_hashed_with_all_of_its_folder(tmp_path, monkeypatch):
    folder = tmp_path / "transformers_modules"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "tower.py").write_text("from torch import nn\nclass Tower(nn.Linear):\n    pass\n")
    (folder / "norms.py").write_text("EPSILON = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    from transformers_modules.tower import Tower

    model = nn.Sequential(Tower(2, 2))
    lm = SimpleNamespace()
    before = code_sha256(lm, model)
    (folder / "norms.py").write_text("EPSILON = 2\n")
    assert code_sha256(lm, model) != before
    assert code_sha256(lm, nn.Sequential(nn.Linear(2, 2))) != before


def test_a_network_that_a_base_model_keeps_beside_its_model_counts():
    model, tower = nn.Linear(2, 2), nn.Linear(2, 2)
    alone, beside = SimpleNamespace(model=model), SimpleNamespace(model=model, tower=tower)
    assert weights_sha256(alone, model) != weights_sha256(beside, model)
    before = weights_sha256(beside, model)
    tower.weight.data[1, 1] += 1
    assert weights_sha256(beside, model) != before


def test_weights_that_are_kept_off_the_device_are_read_all_the_same():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    plain = weights_sha256(SimpleNamespace(), model)
    cpu_offload(model, execution_device="cpu")
    assert model[0].weight.device.type == "meta"
    assert weights_sha256(SimpleNamespace(), model) == plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.bool])
@pytest.mark.parametrize("count", [1, 7, 2**20, 2**20 + 3])
def test_any_other_number_is_another_fingerprint_and_so_is_another_order(dtype, count):
    numbers = torch.randint(0, 2, (count,)).to(dtype)
    numbers[0] = 1
    before = fingerprint(numbers)
    assert torch.equal(fingerprint(numbers.clone()), before)
    for place in {0, count // 2, count - 1}:
        changed = numbers.clone()
        changed[place] = 1 - changed[place].int()
        assert not torch.equal(fingerprint(changed), before)
    mixed = torch.arange(count) % 2
    assert count == 1 or not torch.equal(fingerprint(mixed), fingerprint(1 - mixed))


def test_views_of_one_storage_are_fingerprinted_as_their_own_numbers():
    numbers = torch.randn(100, dtype=torch.float32)
    for view in (numbers[3:50], numbers[::2], numbers.view(10, 10).T):
        assert torch.equal(fingerprint(view), fingerprint(view.clone(memory_format=torch.contiguous_format)))


def test_dtype_and_shape_are_part_of_a_hash():
    numbers = torch.ones(4, 2)
    shown = {tensors_sha256([("a", one)]) for one in (numbers, numbers.T, numbers.view(torch.int32))}
    assert len(shown) == 3
    assert tensors_sha256([("b", numbers)]) not in shown


def test_a_gigabyte_of_weights_is_hashed_within_a_second_of_one_core():
    """About .3 s: the best of three, as the first also fetches the memory."""
    weights = torch.ones(2**29, dtype=torch.bfloat16)
    taken = []
    for _ in range(3):
        started = time.process_time()
        tensors_sha256([("weights", weights)])
        taken.append(time.process_time() - started)
    assert min(taken) < 1
