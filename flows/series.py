"""A series on top of campaigns: which edition runs, whom it begins with, what it may take, and how it ends.

What is decided here is decided from the plan (`aot_core.series.planning`), the store's records and the config, never
from the clock: a resumed edition decides the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from filelock import FileLock, Timeout

from aot_core.contracts.artifact import ArtifactRef, ExternalRef, StageRecord
from aot_core.contracts.bank import BankInputs
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.compare_data import CompareDataInputs, CompareDataOutputs
from aot_core.contracts.errors import StageBadInputError
from aot_core.contracts.evaluate import CLEAN, EvaluateInputs, EvaluateOutputs, adversary_condition
from aot_core.contracts.series import EditionEnd
from aot_core.contracts.terminal import counted
from aot_core.engine.identity import pin_model, pin_source
from aot_core.evaluation.statistics import Proportion, fell
from aot_core.home import Home
from aot_core.series.book import SeriesBook
from aot_core.series.planning import Surroundings, find_edition
from aot_core.store import open_store
from flows import tasks
from flows.campaign import CampaignBusyError, OpenCampaign
from flows.course import Course, Ended
from flows.events import tell_drift, tell_labels

_OF_A_ROUND = ("attacker_round", "curate", "defender_round")
_DROP_LEVEL = 0.01
"""Of the test that clean accuracy has fallen: a warning in a hundred sound editions, were each at the limit."""


class BudgetSpentError(Exception):
    """An edition has taken what it may take. The message says what."""


def edition_of(config: CampaignConfig, home: Home, asked: str) -> CampaignConfig:
    """The config of the edition asked for (`aot_core.series.planning.find_edition`), planned now if it is new.

    Raises SeriesError, and UnknownModelError for a base that is not there.
    """
    where = Surroundings(
        store=open_store(config.run.store or str(home.store), config.run.s3),
        mlflow_uri=home.mlflow_uri,
        attacker_base=pin_model(config.models.attacker),
        defender_base=pin_model(config.models.defender),
        source=pin_source(config.source_folder),
    )
    return find_edition(config, asked, where)


@contextmanager
def one_at_a_time(config: CampaignConfig, home: Home) -> Iterator[None]:
    """Hold the series while one of its editions runs on this home. Raises CampaignBusyError where another one does."""
    if config.edition is None:
        yield
        return
    lock = FileLock(home.lock_file(f"series-{config.edition.series}"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise CampaignBusyError(
            f"an edition of series {config.edition.series!r} is being run by another process on this home; wait "
            f"for it: edition {config.edition.number} begins from where that one ends"
        ) from error
    try:
        yield
    finally:
        lock.release()


def tell_plan(campaign: OpenCampaign) -> None:
    """Say on the terminal what this edition begins with."""
    plan = campaign.config.edition
    if plan is None:
        return
    slot = f" for {plan.slot}" if plan.slot else ""
    campaign.say(f"series [bold]{plan.series}[/], edition [bold]{plan.number}[/]{slot}, from {plan.lineage[0]}")
    for line in plan.told:
        campaign.warn(line)


def look_for_drift(campaign: OpenCampaign, data: ArtifactRef) -> None:
    """Compare an edition's data with the champion's. Raises StageBadInputError where the config stops at drift."""
    plan, series = campaign.config.edition, campaign.config.series
    if plan is None or series is None or plan.reference is None or series.on_drift == "ignore":
        return
    inputs = CompareDataInputs(dataset=data, reference=plan.reference)
    found = CompareDataOutputs.model_validate(tasks.compare_data(campaign, inputs).outputs)
    if not found.drifted:
        return
    columns = ", ".join(f"{name} ({found.divergence[name]:.2f})" for name in found.drifted)
    told = f"the data has drifted from the champion's (limit {campaign.config.compare_data.limit:g} nats): {columns}"
    tell_drift(campaign, told, {name: found.divergence[name] for name in found.drifted})
    if series.on_drift == "stop":
        raise StageBadInputError(
            f"{told}; look at drift.html in the stage's artifact, then mend the source, or set "
            'series.on_drift = "warn"'
        )
    campaign.warn(told)


def look_for_wrong_labels(campaign: OpenCampaign, course: Course) -> None:
    """Compare what the Defender that an edition begins with knows of this edition's clean questions and of the first
    edition's. Drift in columns does not show answers that are wrong; a Defender that was right on such questions does.

    Raises StageBadInputError where the config stops at drift.
    """
    plan, series = campaign.config.edition, campaign.config.series
    if plan is None or series is None or plan.defender is None or plan.exam is None or series.on_drift == "ignore":
        return
    known = fixed_exam(campaign, course, plan.defender, campaign.defender_base)
    before, now = (
        Proportion(outputs.strict[CLEAN], outputs.low[CLEAN], outputs.high[CLEAN], outputs.n[CLEAN])
        for outputs in (EvaluateOutputs.model_validate(record.outputs) for record in (known, course.evaluation))
    )
    if before.value - now.value < series.clean_drop or fell(before, now) >= _DROP_LEVEL:
        return
    told = (
        f"the Defender that this edition begins with is right on {now.value:.1%} of its {now.n} clean questions, but "
        f"on {before.value:.1%} of the first edition's {before.n}: labels may be wrong, or pictures of another kind"
    )
    tell_labels(campaign, told, before.value, now.value)
    if series.on_drift == "stop":
        raise StageBadInputError(f'{told}; mend the source (`aot data show`), or set series.on_drift = "warn"')
    campaign.warn(told)


def choose_pool(campaign: OpenCampaign, data: ArtifactRef, defender: ArtifactRef) -> list[StageRecord]:
    """The Attackers of other campaigns that are met: those that the config names, and those of the series' rule."""
    plan, series = campaign.config.edition, campaign.config.series
    pool = campaign.adversaries()
    if plan is None or series is None or not plan.pool:
        return pool
    candidates = campaign.attackers_at("series.pool", plan.pool)
    rule = series.pool
    if rule.rule != "hardest" or len(candidates) <= rule.count:
        return [*pool, *candidates[-rule.count :]]
    match = EvaluateInputs(
        dataset=data,
        defender=defender,
        defender_base=campaign.defender_base,
        attacker_base=campaign.attacker_base,
        adversaries=tuple(candidate.artifact for candidate in candidates),
        families=False,
        judge=campaign.judge(campaign.config.evaluate.validity),
    )
    campaign.say(f"measuring {counted(len(candidates), 'Attacker')} of earlier editions")
    measured = tasks.evaluate(campaign, match, recorded=False, label="evaluate the pool")
    strict = EvaluateOutputs.model_validate(measured.outputs).strict
    by_strict = sorted(
        range(len(candidates)), key=lambda i: strict.get(adversary_condition(i + 1), float("inf"))
    )  # An Attacker without a valid edit has no figure, and hurts nobody.
    chosen = sorted(by_strict[: rule.count])
    return [*pool, *(candidates[i] for i in chosen)]


def check_budget(campaign: OpenCampaign) -> None:
    """To be called after every stage of a round. Raises BudgetSpentError where the edition has taken what it may."""
    series = campaign.config.series
    if campaign.config.edition is None or series is None:
        return
    records = _own_records(campaign)
    hours = sum(record.seconds for record in records.values()) / 3600
    stages = sum(record.stage in _OF_A_ROUND for record in records.values())
    budget = series.budget
    if budget.hours is not None and hours >= budget.hours:
        raise BudgetSpentError(f"series.budget.hours = {budget.hours:g} is used up ({hours:.2f} h)")
    if budget.stages is not None and stages >= budget.stages:
        raise BudgetSpentError(f"series.budget.stages = {budget.stages} is used up")


def keep_in_bank(campaign: OpenCampaign, course: Course) -> ArtifactRef | None:
    """Take an edition's fooling edits into the series' bank; None where there is no bank."""
    plan, series = campaign.config.edition, campaign.config.series
    if plan is None or series is None or not series.bank:
        return None
    if not course.curated:
        return plan.bank
    inputs = BankInputs(
        bank=plan.bank,
        curated=tuple(course.curated),
        attackers=course.exam.attackers[: len(course.curated)],
        edition=f"{plan.series}/{plan.number}",
    )
    return tasks.bank(campaign, inputs, course.played).artifact


def end_edition(campaign: OpenCampaign, ended: Ended) -> None:
    """Enter into the series' book what came of an edition. The campaign may be closed by now."""
    plan = campaign.config.edition
    if plan is None:
        return
    course, records, summary = ended.course, _own_records(campaign), campaign.summary
    promoted = "champion" in summary.aliases
    end = EditionEnd(
        number=plan.number,
        campaign=campaign.key,
        outcome=f"{'promoted' if promoted else 'not promoted'}: {summary.promotion_reason}",
        version=ended.decision.challenger,
        model=ended.decision.model,
        defender=course.defender,
        attackers=course.exam.attackers,
        warm_attacker=course.warm_attacker,
        dataset=course.exam.dataset,
        bank=ended.bank,
        figures={name: value for name, value in course.evaluation.metrics.items() if _is_headline(name)},
        exam=ended.exam,
        rounds=course.played,
        seconds=sum(record.seconds for record in records.values()),
        stages=sum(record.stage in _OF_A_ROUND for record in records.values()),
        over_budget=course.over_budget,
        ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    SeriesBook(campaign.store, plan.series).write_end(end)


def sit_fixed_exam(campaign: OpenCampaign, course: Course) -> dict[str, float]:
    """The Defender's strict accuracy on the first edition's questions, asked with the same noise in every edition."""
    plan = campaign.config.edition
    if plan is None:
        return {}
    campaign.say("sitting the series' fixed exam")
    record = fixed_exam(campaign, course, course.defender, campaign.defender_base)
    return EvaluateOutputs.model_validate(record.outputs).strict


def fixed_exam(campaign: OpenCampaign, course: Course, defender: ArtifactRef, base: ExternalRef) -> StageRecord:
    """A Defender's evaluation on the first edition's questions; whoever sat it before is not asked again."""
    plan = campaign.config.edition
    assert plan is not None, "only a series has a fixed exam"
    inputs = EvaluateInputs(dataset=plan.exam or course.exam.dataset, defender=defender, defender_base=base)
    return tasks.evaluate(campaign, inputs, recorded=False, of_series=True, label="fixed exam")


def _is_headline(name: str) -> bool:
    return name in ("worst", "every_attack") or name.startswith(("strict/", "n/", "flips/")) or name == f"mean/{CLEAN}"


def _own_records(campaign: OpenCampaign) -> dict[str, StageRecord]:
    """What this edition has run itself, by key: what it took from earlier ones cost it nothing."""
    plan = campaign.config.edition
    assert plan is not None
    edition = SeriesBook(campaign.store, plan.series).edition(plan.number)
    planned = datetime.fromisoformat(edition.planned_at) if edition else datetime.min.replace(tzinfo=UTC)
    records = [step.record for step in campaign.summary.steps]
    return {record.key: record for record in records if datetime.fromisoformat(record.started_at) >= planned}
