"""/v5/models through scale-gp-beta."""

import datetime

import pytest
import scale_gp_beta as sgp
from scale_gp_beta.types import (InferenceModel, LaunchVendorConfiguration,
                                 LlmEngineVendorConfiguration)

from helpers import problems, raised

IMAGE = {"registry": "registry.example", "repository": "acme/m", "tag": "1", "command": ["serve"]}


def launch(name, **infra):
    return {"name": name, "model_vendor": "launch",
            "vendor_configuration": {"model_image": IMAGE, "model_infra": infra}}


def hosted(name, vendor="openai", **more):
    return {"name": name, "model_vendor": vendor, "model_type": "chat_completion", **more}


def create(caller, model):
    return caller(lambda client: client.models.create(model=model))


def test_a_hosted_model_is_ready_as_it_is_made(v5, name):
    model = create(v5, hosted(name, model_metadata={"owner": "ml", "n": 12345678901234567890}))
    assert type(model) is InferenceModel
    assert (model.name, model.api_model_vendor, model.api_model_type) == (
        name, "openai", "chat_completion")
    assert (model.object, model.status) == ("model", "ready")
    assert model.created_by_identity_type in {"user", "service_account"}
    assert model.metadata == {"owner": "ml", "n": 12345678901234567890}
    assert model.vendor_configuration is None
    assert model.api_model_availability in {"unknown", "available", "unavailable"}
    assert model.created_by_user_id
    age = datetime.datetime.now(datetime.timezone.utc) - model.created_at
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=1)


def test_a_launch_model_comes_back_with_its_configuration(v5, name):
    configuration = create(v5, launch(name, endpoint_type="async", max_workers=2)).vendor_configuration
    assert type(configuration) is LaunchVendorConfiguration
    assert configuration.image.command == ["serve"]
    assert (configuration.infra.endpoint_type, configuration.infra.max_workers) == ("async", 2)
    assert (configuration.infra.min_workers, configuration.infra.per_worker) == (0, 10)


def test_an_llm_engine_model_comes_back_with_its_configuration(v5, name):
    model = create(v5, {"name": name, "model_vendor": "llmengine",
                        "vendor_configuration": {"model": "llama", "num_shards": 1, "max_len": 7}})
    assert type(model.vendor_configuration) is LlmEngineVendorConfiguration
    assert model.vendor_configuration.model == "llama"
    assert model.vendor_configuration.max_len == 7, "what a framework is told is kept"
    assert model.api_model_type == "chat_completion"


@pytest.mark.parametrize("word", ["openai", "cohere", "vertex_ai", "anthropic", "azure", "gemini",
                                    "model_zoo", "bedrock", "xai", "fireworks_ai"])
def test_every_hosted_vendor_is_known(make_v5, name, word):
    model = make_v5(_strict_response_validation=True).models.create(model=hosted(name, word))
    assert model.api_model_vendor == word


def test_every_word_of_a_launch_configuration_is_known(make_v5, name):
    client = make_v5(_strict_response_validation=True)
    gpus = ["nvidia-tesla-t4", "nvidia-ampere-a10", "nvidia-ampere-a100", "nvidia-ampere-a100e",
            "nvidia-hopper-h100", "nvidia-hopper-h100-1g20gb", "nvidia-hopper-h100-3g40gb"]
    for infra in [{"gpus": 1, "gpu_type": gpu} for gpu in gpus] + [
            {"endpoint_type": kind} for kind in ["async", "sync", "streaming"]]:
        model = client.models.create(model={**launch(name, **infra), "on_conflict": "update"})
        given = model.vendor_configuration.infra.to_dict()
        assert {word: given[word] for word in infra} == infra


def test_a_model_is_found_by_its_id_and_by_its_name(v5, name):
    model = create(v5, hosted(f"{name}/with space"))
    assert v5(lambda client: client.models.retrieve(model.id)) == model
    by_name = f"openai/{name}/with space"
    assert v5(lambda client: client.models.retrieve(by_name)).id == model.id


def test_a_taken_name_is_a_conflict_that_is_not_repeated(v5, name):
    first = create(v5, hosted(name))
    error = raised(sgp.ConflictError, lambda: create(v5, hosted(name)))
    assert error.response.headers["x-should-retry"] == "false"
    assert "x-stainless-retry-count" in error.request.headers
    assert error.request.headers["x-stainless-retry-count"] == "0"
    updated = create(v5, hosted(name, on_conflict="update", model_metadata={"v": 2}))
    assert (updated.id, updated.metadata) == (first.id, {"v": 2})
    # Another vendor's name is another name.
    assert create(v5, hosted(name, "xai")).id != first.id


def test_metadata_is_changed_alone(v5, name):
    model = create(v5, launch(name))
    changed = v5(lambda client: client.models.update(model.id, model={"model_metadata": {"a": 1}}))
    assert type(changed) is InferenceModel
    assert (changed.id, changed.metadata) == (model.id, {"a": 1})
    assert changed.vendor_configuration == model.vendor_configuration


def test_a_configuration_is_changed_in_part(v5, name):
    model = create(v5, launch(name, max_workers=2, min_workers=1))
    changed = v5(lambda client: client.models.update(model.id, model={
        "vendor_configuration": {"model_infra": {"max_workers": 3}}}))
    infra = changed.vendor_configuration.infra
    assert (infra.min_workers, infra.max_workers) == (1, 3)
    assert changed.vendor_configuration.image == model.vendor_configuration.image


def test_a_model_is_renamed_or_swaps_its_name(v5, name):
    one, two = create(v5, hosted(f"{name}-1")), create(v5, hosted(f"{name}-2"))
    rename = lambda how: v5(lambda client: client.models.update(
        one.id, model={"name": two.name, "on_conflict": how}))
    error = raised(sgp.ConflictError, lambda: rename("error"))
    assert error.response.headers["x-should-retry"] == "false"
    assert rename("swap").name == two.name
    assert v5(lambda client: client.models.retrieve(two.id)).name == one.name
    renamed = v5(lambda client: client.models.update(one.id, model={"name": f"{name}-3"}))
    assert (renamed.id, renamed.name) == (one.id, f"{name}-3")


def test_a_deleted_model_is_gone(v5, name):
    model = create(v5, hosted(name))
    gone = v5(lambda client: client.models.delete(model.id))
    assert (gone.id, gone.deleted, gone.object) == (model.id, True, "model")
    for call in (lambda client: client.models.retrieve(model.id),
                 lambda client: client.models.delete(model.id)):
        error = raised(sgp.NotFoundError, lambda: v5(call))
        assert isinstance(error.body["detail"], str)
    assert create(v5, hosted(name)).id != model.id, "its name is free again"


def test_lists_are_read_page_by_page_in_both_directions(v5, name):
    vendor = "cohere"
    # A list goes by ids, which tell the order of creation down to the millisecond.
    names = {create(v5, hosted(f"{name}-{n}", vendor)).id: f"{name}-{n}" for n in range(5)}
    made = sorted(names)
    newest = made[::-1]

    def ids(**options):
        # Other tests have models too; these are the five of this one.
        items = v5.every(lambda client: client.models.list(model_vendor=vendor, limit=2, **options))
        return [model.id for model in items if model.id in made]

    assert ids() == newest
    assert ids(sort_order="asc") == made
    assert ids(sort_by="created_at:asc") == made
    assert ids(starting_after=newest[1]) == newest[2:]
    page = v5(lambda client: client.models.list(
        model_vendor=vendor, limit=2, ending_before=newest[4]))
    assert [model.id for model in page.items] == newest[2:4]
    # Backwards the SDK asks on before each page's first item.
    assert set(ids(ending_before=newest[4])) == set(newest[:4])
    page = v5(lambda client: client.models.list(name=names[made[3]], model_vendor=vendor))
    assert [model.id for model in page.items] == [made[3]]
    assert (page.object, page.limit, page.total, page.has_more) == ("list", 100, 1, False)


def test_an_exhausted_cursor_gives_an_empty_page(v5, name):
    only = create(v5, hosted(name))
    page = v5(lambda client: client.models.list(name=name, starting_after=only.id))
    assert (page.items, page.has_more) == ([], False)


def test_wrong_queries_and_bodies_are_unprocessable(v5, name):
    def error(call):
        return problems(raised(sgp.UnprocessableEntityError, lambda: v5(call)))

    assert error(lambda client: client.models.list(limit=0)) == [
        ("greater_than_equal", ["query", "limit"])]
    assert error(lambda client: client.models.list(extra_query={"limit": "abc"})) == [
        ("int_parsing", ["query", "limit"])]
    kind, place = error(lambda client: client.models.list(model_vendor="acme"))[0]
    assert (kind in {"enum", "literal_error"}, place) == (True, ["query", "model_vendor"])
    assert ("missing", "name") in [(kind, place[-1]) for kind, place in error(
        lambda client: client.models.create(model={"model_vendor": "openai", "model_type": "generic"}))]
    assert error(lambda client: client.models.create(model=launch(name, endpoint_type="later")))
    assert error(lambda client: client.models.create(model=launch(name, gpus=1)))
