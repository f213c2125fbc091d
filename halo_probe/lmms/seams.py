"""Every place where halo-probe puts something in the place of a name of lmms-eval or transformers.

All are made by `halo_probe.replacing`; `tests/test_relied_on.py` holds this list against the code and against what is
installed.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Seam:
    """One replaced name."""

    name: str
    """As `module:name`, or `module:Class.attribute`."""
    made_in: str
    """The file of this package that replaces it."""
    relies_on: str
    """What must stay true of the other package."""
    noticed_by: str
    """The test that fails where that is no longer true, as `file::test` below `tests/`."""


_EMISSION = "halo_probe/lmms/test_lmms.py::test_attention_stands_in_the_table_and_the_results_with_standard_errors"
_GENERATE = "transformers:GenerationMixin.generate"

SEAMS = (
    Seam(
        name="lmms_eval.tasks:TaskManager.initialize_tasks",
        made_in="lmms/plugin.py",
        relies_on="a task manager asks it for its index of tasks, and reads a folder by `_get_task_and_group`",
        noticed_by="halo_probe/lmms/test_lmms.py::test_the_task_is_found_and_scored_without_the_probe",
    ),
    Seam(
        name="importlib.machinery:SourceFileLoader.exec_module",
        made_in="lmms/plugin.py",
        relies_on="`lmms_eval.tasks` is imported after the entry points were read, by the import system",
        noticed_by="halo_probe/lmms/test_lmms.py::test_the_task_is_found_and_scored_without_the_probe",
    ),
    Seam(
        name="lmms_eval.evaluator_utils:stderr_for_metric",
        made_in="lmms/plugin.py",
        relies_on="standard errors are looked up by aggregation, through this name of the module",
        noticed_by=_EMISSION,
    ),
    Seam(
        name="lmms_eval.evaluator:get_task_dict",
        made_in="lmms/run.py",
        relies_on="the evaluator loads tasks through this name, after it has created the model",
        noticed_by="halo_probe/lmms/test_model.py::test_prompts_are_those_of_the_base_model",
    ),
    Seam(
        name="lmms_eval.evaluator:evaluate",
        made_in="lmms/run.py",
        relies_on="the evaluator runs model and tasks through this name, `lm` and `task_dict` given by name",
        noticed_by="halo_probe/lmms/test_model.py::test_every_probed_model_is_recorded_and_no_other_one",
    ),
    Seam(
        name="lmms_eval.tasks:TaskManager.model_name",
        made_in="lmms/run.py",
        relies_on="prompts are chosen by this attribute of the task manager",
        noticed_by="halo_probe/lmms/test_model.py::test_prompts_are_those_of_the_base_model",
    ),
    Seam(
        name="lmms_eval.loggers.evaluation_tracker:EvaluationTracker.save_results_samples",
        made_in="lmms/sealing.py",
        relies_on="samples are saved by it after the results, in `{date_id}_results.json` beside them",
        noticed_by="halo_probe/archive/test_damage.py::test_no_changed_byte_in_a_number_of_a_probed_run_is_silent",
    ),
    Seam(
        name="lmms_eval.__main__:make_table",
        made_in="lmms/boundary.py",
        relies_on="the command prints its table last, through this name, after everything is saved",
        noticed_by="halo_probe/lmms/test_lmms.py::"
        "test_a_document_whose_attention_is_missing_fails_the_run_after_everything_else_is_saved",
    ),
    Seam(
        name="lmms_eval.api.task:Task.apply_filters",
        made_in="lmms/emission.py",
        relies_on="it fills `filtered_resps` of the instances before they are scored",
        noticed_by=_EMISSION,
    ),
    Seam(
        name="lmms_eval.api.instance:Instance.filtered_resps",
        made_in="lmms/emission.py",
        relies_on="the responses of a request are read by the thread that then scores it",
        noticed_by=_EMISSION,
    ),
    Seam(
        name="lmms_eval.api.task:Task.process_results",
        made_in="lmms/emission.py",
        relies_on="a document is scored by it, from its replies alone",
        noticed_by=_EMISSION,
    ),
    Seam(
        name="lmms_eval.api.task:Task.aggregation",
        made_in="lmms/emission.py",
        relies_on="a metric is taken up in the table where it has an aggregation",
        noticed_by=_EMISSION,
    ),
    Seam(
        name="lmms_eval.api.task:Task.higher_is_better",
        made_in="lmms/emission.py",
        relies_on="the table asks it for every metric",
        noticed_by=_EMISSION,
    ),
    Seam(
        name="lmms_eval.api.model:lmms.generate_until",
        made_in="lmms/answering/answering.py",
        relies_on="the evaluator looks it up on the instance",
        noticed_by="halo_probe/lmms/test_lmms.py::test_the_probe_changes_no_answer",
    ),
    Seam(
        name="lmms_eval.api.model:lmms.generate_until_multi_round",
        made_in="lmms/answering/answering.py",
        relies_on="the evaluator looks it up on the instance",
        noticed_by="halo_probe/lmms/test_tasks.py::test_every_round_of_a_document_is_a_call_of_its_own",
    ),
    Seam(
        name="lmms_eval.api.model:lmms.clean",
        made_in="lmms/answering/answering.py",
        relies_on="the evaluator calls it before it scores",
        noticed_by="halo_probe/lmms/test_model.py::"
        "test_the_model_is_the_base_model_itself_and_is_let_go_before_scoring",
    ),
    Seam(
        name="lmms_eval.caching.response_cache:ResponseCache.execute",
        made_in="lmms/answering/answering.py",
        relies_on="it asks the model that it is given for what the cache lacks",
        noticed_by="halo_probe/lmms/test_batches.py::"
        "test_what_the_cache_answers_is_recorded_with_the_same_replies_and_values",
    ),
    Seam(
        name="lmms_eval.api.model:lmms.task_dict",
        made_in="lmms/answering/batches.py",
        relies_on="base models read documents from it, by task, split and index",
        noticed_by="halo_probe/lmms/test_batches.py::test_a_batch_records_for_each_document_what_it_records_alone",
    ),
    Seam(
        name="lmms_eval.models.chat.qwen3_vl:tqdm",
        made_in="lmms/quiet.py",
        relies_on="modules of base models have their progress bar by this name, or none",
        noticed_by="test_relied_on.py::test_a_name_that_is_looked_up_is_there",
    ),
    Seam(
        name="lmms_eval.api.instance:Instance.arguments",
        made_in="lmms/requests.py",
        relies_on="a copy of a request may hold other callables for its images",
        noticed_by="halo_probe/lmms/test_reliance.py::"
        "test_the_distributions_are_those_of_the_model_after_the_true_digits",
    ),
    Seam(
        name=_GENERATE,
        made_in="lmms/thoughts.py",
        relies_on="base models call `model.generate` on the instance, the prompt as `input_ids`, `inputs` or first",
        noticed_by="halo_probe/lmms/test_thoughts.py::"
        "test_the_ends_of_prompts_are_noted_row_by_row_and_generate_is_left_as_it_was",
    ),
    Seam(
        name=_GENERATE,
        made_in="lmms/passes/passes.py",
        relies_on="it takes options of decoding by name, and returns sequences and logits where asked",
        noticed_by="halo_probe/lmms/test_reliance.py::test_a_pass_of_forced_tokens_sees_the_logits_of_the_plain_answer",
    ),
    Seam(
        name=_GENERATE,
        made_in="capture/recorder.py",
        relies_on="it is looked up on the instance, and returns one sequence a row",
        noticed_by="halo_probe/capture/test_capture.py::"
        "test_tokens_and_logits_are_bit_identical_with_and_without_the_recording",
    ),
    Seam(
        name=_GENERATE,
        made_in="capture/check.py",
        relies_on="a call can be made again with the same arguments, without its cache",
        noticed_by="halo_probe/lmms/test_model.py::"
        "test_unchecked_maps_that_could_outgrow_their_cap_are_refused_before_the_first_is_kept",
    ),
    Seam(
        name="transformers.modeling_utils:AttentionInterface.get_interface",
        made_in="capture/dispatch.py",
        relies_on="attention modules ask the one mapping of kernels for theirs at every call",
        noticed_by="test_relied_on.py::test_the_mapping_of_kernels_asks_itself_for_each_of_them",
    ),
)
"""All of them. The tables of models that `lmms-eval models` lists are added to in `lmms/plugin.py`, not replaced."""
