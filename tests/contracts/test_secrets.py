"""What may stand in a config where a secret could: plain addresses and references, nothing else."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from aot_core.contracts.code import CodeNotAllowedError, demand_allowed
from aot_core.contracts.loading import ConfigError, load_campaign
from aot_core.contracts.markdown import as_text
from aot_core.contracts.secrets import SecretError, redacted, references_in, reveal, variable_of

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.toml"
WEBHOOK, ENDPOINT = "promotion.webhook", "run.s3.endpoint_url"
OPPONENT = ["attacker_round.reward.efficacy=share", "attacker_round.reward.dense=0", "attacker_round.opponent.model=m"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (WEBHOOK, "https://hooks.example.com/aot/promoted"),
        (WEBHOOK, "http://127.0.0.1:8080/api/v1.2/hooks/7"),
        (WEBHOOK, "env:AOT_WEBHOOK"),
        (WEBHOOK, "prefect-block:secret/aot-webhook"),
        (ENDPOINT, "http://seaweed:8333"),
        (ENDPOINT, "env:S3_ENDPOINT"),
        (ENDPOINT, "https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com"),
    ],
)
def test_plain_addresses_and_references_pass(field: str, value: str) -> None:
    assert value in load_campaign(SMOKE, [f"{field}={value}"]).model_dump_json()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (WEBHOOK, "https://hooks.slack.com/services/T00000000/B00000000/PLANTEDplantedPLANTED"),
        (WEBHOOK, "https://discord.com/api/webhooks/123456789012345678/PLANTED-planted"),
        (WEBHOOK, "https://example.com/hook?key=PLANTED"),
        (WEBHOOK, "https://example.com/hook#PLANTED"),
        (WEBHOOK, "https://user:PLANTED@example.com/hook"),
        (WEBHOOK, "https://PLANTED@example.com/hook"),
        (WEBHOOK, "env:PLANTED-with-a-dash"),
        (WEBHOOK, "ftp://PLANTED"),
        (ENDPOINT, "https://user:PLANTED@s3.example.com"),
        (ENDPOINT, "https://s3.example.com/?X-Amz-Security-Token=PLANTED"),
        ("defender_round.vllm.server", "https://user:PLANTED@trl.example.com"),
        ("evaluate.benchmarks.vllm.arguments", '["--api-key", "PLANTED"]'),
        ("evaluate.benchmarks.vllm.arguments", '["--hf-token=PLANTED"]'),
        ("run.store", "s3://key:PLAN/TED-PLANTED@bucket/x"),
        (ENDPOINT, "https://user:PLAN/TED-PLANTED@s3.example.com"),
        (ENDPOINT, "https://user/PLANTED@s3.example.com"),
        ("attacker_round.opponent", '{url = "https://u:PLANTED@e.com/v1", model = "m"}'),
        ("attacker_round.opponent", '{url = "https://e.com/v1", model = "m", api_key_env = "sk-PLANTED"}'),
    ],
)
def test_a_secret_is_refused_with_the_fix_and_not_repeated(field: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_campaign(SMOKE, [*OPPONENT[:2], f"{field}={value}"])
    told = str(caught.value)
    assert field.split(".")[-1] in told
    assert "PLANTED" not in told


def test_arguments_that_only_sound_like_a_secret_pass() -> None:
    given = 'evaluate.benchmarks.vllm.arguments=["--max-num-batched-tokens", "8192"]'
    assert load_campaign(SMOKE, [given]).evaluate.benchmarks.vllm is not None


def test_a_reference_is_revealed_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SecretError, match="AOT_TEST_URL, which is not set"):
        reveal("env:AOT_TEST_URL", "url")
    monkeypatch.setenv("AOT_TEST_URL", "not a url: hunter2")
    with pytest.raises(SecretError) as caught:
        reveal("env:AOT_TEST_URL", "url")
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("AOT_TEST_URL", "https://u:hunter2@e.com/token/v1")
    secret = reveal("env:AOT_TEST_URL", "url")
    assert "hunter2" not in repr(secret) and secret.get_secret_value().endswith("/token/v1")
    assert variable_of("prefect-block:secret/my-hook") == "AOT_SECRET_MY_HOOK"
    assert reveal("https://plain.example/v1", "url") == SecretStr("https://plain.example/v1")
    told = "POST https://u:hunter2@e.com/token/v1/chat: no route /token/v1"
    assert redacted(told, secret, "env:X") == "POST env:X/chat: no route env:X"


def test_references_are_found_wherever_they_stand() -> None:
    value = {"a": ["env:ONE", {"api_key_env": "TWO"}], "b": "prefect-block:secret/three", "c": "environment", "d": None}
    assert references_in(value) == {"env:ONE", "env:TWO", "prefect-block:secret/three"}


@pytest.mark.parametrize(
    ("allowed", "name", "fine"),
    [
        (None, "anything:at_all", True),
        ("", "ours:reward", False),
        ("", "accuracy", True),
        ("ours", "ours:reward", True),
        ("ours", "ours.deep.down:reward", True),
        ("ours", "ours_not:reward", False),
        ("a:b, ours.rewards:", "ours.rewards:x", True),
        ("ours.rewards:", "ours.rewards.more:x", False),
    ],
)
def test_a_shared_machine_says_which_code_configs_may_name(
    monkeypatch: pytest.MonkeyPatch, allowed: str | None, name: str, fine: bool
) -> None:
    monkeypatch.delenv("AOT_ALLOWED_CODE", raising=False)
    if allowed is not None:
        monkeypatch.setenv("AOT_ALLOWED_CODE", allowed)
    if fine:
        demand_allowed([name], "here")
    else:
        with pytest.raises(CodeNotAllowedError, match=r"^here: .*AOT_ALLOWED_CODE"):
            demand_allowed([name], "here")


def test_a_licence_is_text_in_markdown() -> None:
    told = as_text("<script>x</script> | [click](javascript:x) `code`\n| a | row |")
    assert "<" not in told and "\n" not in told and "[click](" not in told.replace("\\[", "")
    assert told.count("\\|") == 4
