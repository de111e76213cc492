"""From a campaign's last Defender to the registry: register it, compare it with the champion, ask, move the alias.

    register -> champion (where there is none yet: the base) measured on the same questions
             -> hard stops, gate -> decision (record, page, tags)
             -> a person's approval, by config (`flows.approval`) -> transaction (`aot_core.promotion.transaction`)

`gate_defender` needs the campaign and its device; `settle` needs neither, so no GPU is held while a person is
asked. Both may be killed and started again at any point: the decision contains no time, the ledger repeats nothing,
and a question whose asker died is asked again.
"""

from dataclasses import replace
from pathlib import Path
from typing import get_args

from filelock import FileLock, Timeout
from prefect.artifacts import create_markdown_artifact

from aot_core.base_models.names import UnknownModelError
from aot_core.contracts.artifact import ArtifactRef, StageName, StageRecord
from aot_core.contracts.campaign import RunSettings
from aot_core.contracts.defender_round import DefenderRoundConfig
from aot_core.contracts.evaluate import FIXED_EXAM, ITEMS_FILE, EvaluateInputs, EvaluateOutputs
from aot_core.contracts.promotion import Decision, LedgerEntry, PromotionSettings
from aot_core.contracts.spec import Place, TrackingTarget
from aot_core.engine.identity import declaration, pin_model
from aot_core.evaluation.decision_page import decision_markdown, decision_page
from aot_core.evaluation.gate import Exam, attempt_alpha, decide, exam_of, right_throughout
from aot_core.evaluation.items import Item, read_items
from aot_core.evaluation.regression_suite import suite_questions
from aot_core.evaluation.stops import (
    benchmarks_seen,
    data_guard,
    lineage_gaps,
    missing_figures,
    seen_in_training,
    unreadable_answers,
)
from aot_core.home import Home
from aot_core.promotion.commands import decided, open_promoter
from aot_core.promotion.leaders import Leader, discrepancy, leaders
from aot_core.promotion.remedy import remedy
from aot_core.promotion.transaction import Promoter, PromotionError, attempt_number
from aot_core.series.planning import BEGUN_FROM_TAG
from aot_core.store import Store, StoreError
from aot_core.store.ledger import Ledger
from aot_core.tracking import mlflow_tracking as tracking
from aot_core.tracking import registry
from aot_core.tracking.mlflow_tracking import ARTIFACT_SHA_TAG, ARTIFACT_URI_TAG
from aot_core.tracking.smoke import SmokeError
from flows import tasks
from flows.approval import with_approval
from flows.campaign import OpenCampaign
from flows.course import Course
from flows.events import tell_ledger
from flows.series import fixed_exam
from flows.telling import write_model_card, write_question


def gate_defender(campaign: OpenCampaign, course: Course) -> Decision:
    """Register the Defender that a campaign has come to, and let the gate decide by its last evaluation, whose inputs
    the champion is given too."""
    settings, home = campaign.config.promotion, campaign.home
    defender, exam, evaluation = course.defender, course.exam, course.evaluation
    figures = EvaluateOutputs.model_validate(evaluation.outputs)
    lineage = _lineage(campaign, defender, evaluation) | {"parent": _parent(home, settings, defender)}
    trained = registry.TrainedDefender(
        campaign.store.fetch(defender),
        defender,
        campaign.defender_base,
        metrics={"worst": figures.worst, **{f"strict.{name}": share for name, share in figures.strict.items()}},
        tags={
            "aot.campaign": campaign.summary.name,
            "aot.campaign_key": campaign.key,
            **campaign.labels(),
            **_edition_tags(campaign),
        }
        | {registry.LINEAGE_TAG + name: value for name, value in lineage.items()},
        packages=evaluation.packages,
        max_new_tokens=campaign.config.evaluate.max_new_tokens,
        dtype=campaign.config.evaluate.dtype,
    )
    version = registry.register_defender(home.mlflow_uri, campaign.summary.mlflow_run_id, trained, settings.model)
    decision = _standing(campaign, version, defender) or _decide(campaign, version, course, lineage)
    _publish(campaign, decision, exam)
    campaign.update(
        registered_version=version,
        aliases=_aliases(home, settings, version),
        promotion_reason=decision.reason,
        decision=decision,
    )
    write_model_card(campaign, decision, "nothing has been done by it yet")
    return decision


def _standing(campaign: OpenCampaign, version: str, defender: ArtifactRef) -> Decision | None:
    """The decision that made this very Defender the champion, where it still leads: a campaign that is run again keeps
    it, with what it was compared with then."""
    settings = campaign.config.promotion
    leading = registry.get_champion(campaign.home.mlflow_uri, settings.model)
    if leading is None or leading[0] != version or leading[1].get(ARTIFACT_SHA_TAG) != defender.sha256:
        return None
    try:
        return decided(open_promoter(campaign.home, settings, campaign.store), version)
    except PromotionError:
        return None  # its ledger is another store's


def settle(campaign: OpenCampaign, decision: Decision) -> None:
    """Act on a decision, and bring the campaign's summary up to date. The campaign may be closed by now."""
    home, settings = campaign.home, campaign.config.promotion
    try:
        told = act_on(decision, home, settings, campaign.store, campaign.config.run, write_question(campaign, decision))
    except (PromotionError, SmokeError) as error:
        told = f"not promoted: {error}"
    version = decision.challenger
    campaign.update(aliases=_aliases(home, settings, version), promotion_reason=f"{decision.reason}; {told}")
    write_model_card(campaign, decision, told)
    campaign.say(f"[bold]{settings.model}[/] version {version}: {told}; gate: {decision.reason}")


def promoter(home: Home, settings: PromotionSettings, store: Store, run: RunSettings) -> Promoter:
    """What moves the alias: as the commands have it, every ledger entry a Prefect event for automations, and with the
    docker launcher the smoke test in a container, where the models' libraries are."""
    acting = open_promoter(home, settings, store)
    if run.launcher == "docker":
        from aot_core.promotion.container_smoke import ContainerSmoke  # imports slowly

        place = Place(
            store=run.store or str(home.store),
            threads=run.threads,
            home=str(home.root),
            tracking=TrackingTarget(uri=home.mlflow_uri, run_id=""),
        )
        smoke = ContainerSmoke(home.mlflow_uri, settings.smoke_seconds, place, run.docker)
        acting = replace(acting, smoke=lambda: smoke)

    def notify(entry: LedgerEntry) -> None:
        acting.notify(entry)
        tell_ledger(entry, home)

    return replace(acting, notify=notify)


def act_on(
    decision: Decision,
    home: Home,
    settings: PromotionSettings,
    store: Store,
    run: RunSettings,
    asked: Path | None = None,
) -> str:
    """Do what a decision allows; returns a description of the outcome.

    Args:
        asked: the file with what a person is shown who is asked (`aot_core.evaluation.approval_page`); the decision
            alone where there is none.

    Raises PromotionError and SmokeError (`aot_core.promotion.transaction.Promoter.promote`).
    """
    acting = promoter(home, settings, store, run)
    acting.recover()
    if acting.champion() == decision.challenger:
        return "it leads already"
    page = {"decision.html": decision_page(decision)}
    registry.set_alias(home.mlflow_uri, registry.CHALLENGER, decision.challenger, settings.model)
    if not decision.promote:
        acting.note("refused", decision, decision.reason, page)
        helps = remedy(decision)
        return f"refused by the gate, the champion stays{'; ' + helps if helps else ''}"
    if settings.approval == "none":
        acting.promote(decision, decision.reason)
        return "promoted"
    acting.note("proposed", decision, decision.reason, page)
    try:
        with FileLock(home.lock_file(f"approval-{decision.sha256[:12]}"), timeout=0):
            return with_approval(decision, settings, acting, asked)
    except Timeout:
        return "another process is already waiting for approval"


def _decide(campaign: OpenCampaign, version: str, course: Course, lineage: dict[str, str]) -> Decision:
    defender, exam, evaluation = course.defender, course.exam, course.evaluation
    settings = campaign.config.promotion
    gate, store = settings.gate, campaign.store
    champion = registry.get_champion(campaign.home.mlflow_uri, settings.model)
    leading, tags = champion or ("", {})
    sha256 = tags.get(ARTIFACT_SHA_TAG, "")
    rival: StageRecord | None = None
    trouble = ""
    if leading and leading != version:
        try:
            rival = _measure_champion(campaign, leading, tags, exam)
        except (StoreError, UnknownModelError) as error:
            trouble = f"champion {leading} cannot be measured on these questions ({error}); compare the two by hand"
    entries = Ledger(store, settings.model).entries()
    if not leading and (led := leaders(entries)) and not led[-1].same(Leader(version, defender.sha256)):
        # Whoever takes a champion away must not open the way for any other.
        trouble = discrepancy(campaign.home.mlflow_uri, settings.model, entries)
    base = None if leading else _measure_base(campaign, exam)
    items = _items(campaign, evaluation)
    figures = {f"challenger/{name}": value for name, value in evaluation.metrics.items()}
    for who, measured in (("champion", rival), ("base", base)):
        figures |= {f"{who}/{name}": value for name, value in measured.metrics.items()} if measured else {}
    attempt = attempt_number(entries, defender.sha256, sha256) if rival else 1
    common = {
        "model": settings.model,
        "challenger": version,
        "challenger_sha256": defender.sha256,
        "champion": "" if leading == version else leading,
        "champion_sha256": "" if leading == version else sha256,
        "settings": gate,
        "attempt": attempt,
        "figures": figures,
        "lineage": lineage,
    }
    records = [step.record for step in campaign.summary.steps]
    lessons = [store.fetch(record.artifact) for record in records if record.stage == "curate"]
    stops = (
        unreadable_answers(items, gate),
        missing_figures(figures),
        data_guard(store.fetch(exam.dataset)),
        lineage_gaps(records, _needed(campaign), gate),
        seen_in_training(
            store.fetch(exam.dataset), lessons, store.fetch(exam.bank) if exam.bank else None, _held_back(campaign)
        ),
        benchmarks_seen(evaluation.metrics),
    )
    if trouble:
        return Decision(**common, promote=False, reason=trouble, alpha=attempt_alpha(gate, attempt), stops=stops)
    suite = suite_questions(store.fetch(exam.bank)) if exam.bank else None
    mine = exam_of(items, suite)
    others: list[Exam | None] = [
        exam_of(_items(campaign, measured), suite) if measured else None for measured in (rival, base)
    ]
    if rival is not None and campaign.config.edition is not None and campaign.config.edition.exam is not None:
        leader = ArtifactRef(uri=tags[ARTIFACT_URI_TAG], sha256=sha256), pin_model(tags[registry.BASE_TAG])
        fixed = [
            right_throughout(_items(campaign, fixed_exam(campaign, course, *who)))
            for who in ((defender, campaign.defender_base), leader)
        ]
        mine, others[0] = mine | {FIXED_EXAM: fixed[0]}, dict(others[0] or {}) | {FIXED_EXAM: fixed[1]}
    outcome = decide(mine, others[0], gate, stops, attempt, base=others[1])
    reason = "it leads already" if leading == version else outcome.reason
    return Decision(
        **common,
        promote=outcome.promote,
        reason=reason,
        alpha=outcome.alpha,
        stops=outcome.stops,
        tests=outcome.tests,
    )


def _measure_champion(campaign: OpenCampaign, leading: str, tags: dict[str, str], exam: EvaluateInputs) -> StageRecord:
    """The champion's evaluation on this campaign's questions, against this campaign's Attackers."""
    rival = ArtifactRef(uri=tags[ARTIFACT_URI_TAG], sha256=tags[ARTIFACT_SHA_TAG])
    campaign.store.fetch(rival)
    campaign.say(f"measuring champion {leading} on the same questions")
    exam = exam.model_copy(update={"defender": rival, "defender_base": pin_model(tags[registry.BASE_TAG])})
    return tasks.evaluate(campaign, exam, recorded=False, label="evaluate the champion")


def _needed(campaign: OpenCampaign) -> tuple[StageName, ...]:
    """The stages whose records a promotion wants; who begins with another edition's Defender has no warm start."""
    plan = campaign.config.edition
    begun = plan is not None and plan.defender is not None
    names: tuple[StageName, ...] = get_args(StageName)
    return tuple(
        name for name in names if declaration(name).promoted_with and not (begun and name == "warm_start_defender")
    )


def _measure_base(campaign: OpenCampaign, exam: EvaluateInputs) -> StageRecord:
    """The base model's evaluation on the same questions but the benchmarks': the first champion's bar."""
    campaign.say("there is no champion yet; measuring the base on the same questions")
    exam = exam.model_copy(update={"defender": None, "benchmark_folder": None})
    return tasks.evaluate(campaign, exam, recorded=False, label="evaluate the base")


def _held_back(campaign: OpenCampaign) -> float:
    """The share of questions that the rounds kept out of their lessons."""
    config = campaign.config.stage_config("defender_round")
    assert isinstance(config, DefenderRoundConfig)
    return config.held_back


def _items(campaign: OpenCampaign, record: StageRecord) -> list[Item]:
    return read_items(campaign.store.fetch(record.artifact) / ITEMS_FILE)


def _lineage(campaign: OpenCampaign, defender: ArtifactRef, evaluation: StageRecord) -> dict[str, str]:
    """Where a Defender comes from: what a version's tags and its decision say."""
    records = [step.record for step in campaign.summary.steps]
    data = next(record for record in records if record.stage == "prepare_data")
    commits = sorted({record.git_commit for record in records if record.git_commit})
    images = sorted({record.image_digest for record in records if record.image_digest})
    return {
        "data": data.artifact.sha256,
        "defender": defender.uri,
        "evaluation": evaluation.artifact.uri,
        "base": f"{campaign.defender_base.name} {campaign.defender_base.sha256}".strip(),
        "commit": ", ".join(commits) or "unknown",
        "images": ", ".join(images) or "none",
    }


def _edition_tags(campaign: OpenCampaign) -> dict[str, str]:
    """Which edition of which series a version comes of, and what that began from."""
    plan = campaign.config.edition
    if plan is None:
        return {}
    begun_from = f"version {plan.defender_version}" if plan.defender_version else plan.lineage[0]
    return {
        "aot.series": plan.series,
        "aot.edition": str(plan.number),
        "aot.slot": plan.slot or "asked for by hand",
        BEGUN_FROM_TAG: begun_from,
    }


def _parent(home: Home, settings: PromotionSettings, defender: ArtifactRef) -> str:
    """The version that led when this Defender was registered: what its own version says, where it has one already."""
    known = registry.find_version(home.mlflow_uri, defender.sha256, settings.model)
    if known is None:
        leading = registry.get_champion(home.mlflow_uri, settings.model)
        return leading[0] if leading else "none"
    found = registry.get_version(home.mlflow_uri, known, settings.model)
    assert found is not None, "it has just been found"
    return found[1].get(f"{registry.LINEAGE_TAG}parent", "none")


def _publish(campaign: OpenCampaign, decision: Decision, exam: EvaluateInputs) -> None:
    """The decision for people: files of the campaign, MLflow artifacts and tags, a Prefect artifact. Beside it the
    inputs of the evaluation that it rests on, to measure again by."""
    folder, _, exam_file = registry.EXAM_FILE.partition("/")
    files = {
        "decision.json": decision.model_dump_json(indent=1),
        "decision.html": decision_page(decision),
        exam_file: exam.model_dump_json(indent=1),
    }
    uri = campaign.home.mlflow_uri
    for name, text in files.items():
        path = campaign.folder / name
        path.write_text(text, encoding="utf-8")
        tracking.log_artifact(uri, campaign.summary.mlflow_run_id, path, folder)
    tags = {
        "aot.gate": "passed" if decision.promote else "refused",
        "aot.gate.reason": decision.reason,
        "aot.gate.decision_sha256": decision.sha256,
        **{f"aot.gate.{test.name.replace('/', '.')}": test.note for test in decision.tests},
    }
    registry.tag_version(uri, decision.challenger, tags, decision.model)
    key = f"gate-{campaign.config.name}".replace("_", "-")
    told = f"Version {decision.challenger} {'may lead' if decision.promote else 'may not lead'}: the gate's tests."
    create_markdown_artifact(key=key, markdown=decision_markdown(decision), description=told)


def _aliases(home: Home, settings: PromotionSettings, version: str) -> tuple[str, ...]:
    """The aliases that point at a version."""
    names = (registry.CHAMPION, registry.CHALLENGER)
    found = {name: registry.get_alias(home.mlflow_uri, name, settings.model) for name in names}
    return tuple(name for name, held in found.items() if held and held[0] == version)
