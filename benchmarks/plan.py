"""Who is examined, when, where and how: a study is a function of its number.

`study` draws everything about the study of a number from that number, so that any range
of studies can be made without those before it.  The first three hold what the constants
name, in every hospital; the others follow the mix of a general one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import count as count_up

from ingester.model import PatientAttributes

ACCESSION_NUMBER = "A0004711"
PATIENT_ID = "P0000815"
PATIENT_NAME = "Müller^Anna"
BATCH = "CD_4711"
SOURCE = "CT1"
DAY = "2026-03-02"
STUDY_INSTANCE_UID = "1.2.276.0.37.1.354.20260302.4711"
#: Of that study; it lacks the slices `MISSING`.
SERIES_INSTANCE_UID = "1.3.12.2.1107.5.1.4.66042.20260302081207.2"
MISSING = (7, 8)

#: The site's clock is an hour before UTC, all year.
UTC_OFFSET = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Device:
    """What sends, and what it writes about itself."""

    source: str
    manufacturer: str
    model: str
    station: str
    uid_prefix: str
    has_random_uids: bool = False


@dataclass(frozen=True, slots=True)
class SeriesPlan:
    """A series: `kind` as in `headers.SOP_CLASSES`."""

    uid: str
    number: int
    kind: str
    description: str
    count: int
    missing: frozenset[int] = frozenset()

    @property
    def instances(self) -> int:
        """Return how many arrive."""
        return self.count - len(self.missing)


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """A study, and the way it comes in: live from a device, from the old PACS, or on CD."""

    number: int
    uid: str
    patient: PatientAttributes
    device: Device
    begun_at: datetime | None  # by the clock on the wall; None: no Study Date
    arrives_at: datetime  # UTC
    source: str
    batch: str
    is_on_cd: bool
    accession_number: str | None
    description: str
    body_part: str
    protocol: str
    physician: str
    operator: str
    series: tuple[SeriesPlan, ...]


@dataclass(frozen=True, slots=True)
class Calendar:
    """The days on which things arrive."""

    begins: date = date(2025, 9, 1)
    days: int = 212

    def live(self, chance: random.Random) -> datetime:
        """Return a moment of work, mostly on a weekday."""
        day = self.begins + timedelta(chance.randrange(self.days))
        if day.weekday() > 4 and chance.random() < 0.75:
            day -= timedelta(day.weekday() - 4)
        minutes = int(chance.triangular(7 * 60, 19 * 60, 10 * 60))
        return datetime.combine(day, time(minutes // 60, minutes % 60, chance.randrange(60)))

    def night(self, chance: random.Random) -> datetime:
        """Return a moment of a night in the first third."""
        day = self.begins + timedelta(chance.randrange(max(1, self.days // 3)))
        return datetime.combine(day, time()) + timedelta(seconds=chance.randrange(6 * 3600))


_DEVICES = {
    each.source: each
    for each in (
        Device("CT1", "SIEMENS", "SOMATOM Force", "CTAWP66042", "1.3.12.2.1107.5.1.4.66042"),
        Device("CT2", "GE MEDICAL SYSTEMS", "Revolution CT", "CT02_OC0", "1.2.840.113619.2.55.3"),
        Device("MR1", "SIEMENS", "MAGNETOM Vida", "MRC35162", "1.3.12.2.1107.5.2.32.35162"),
        Device("MR2", "Philips Medical Systems", "Ingenia", "INGENIA2", "1.3.46.670589.11.17240"),
        Device("US1", "GE Healthcare", "LOGIQ E10", "US01", "2.25", has_random_uids=True),
        Device("US2", "Philips Medical Systems", "EPIQ 7C", "EPIQ7", "2.25", has_random_uids=True),
        Device("XR1", "SIEMENS", "Ysio Max", "FLC5012", "1.3.12.2.1107.5.3.33.5012"),
        Device("CR1", "FUJIFILM Corporation", "FCR Prima", "CR1", "1.2.392.200036.9125.9.0"),
        Device("MG1", "HOLOGIC, Inc.", "Selenia Dimensions", "MAMMO1", "1.2.840.113681.2203"),
        Device("XA1", "SIEMENS", "ARTIS pheno", "AXIS01", "1.3.12.2.1107.5.4.5.135090"),
        Device("PT1", "GE MEDICAL SYSTEMS", "Discovery MI", "PETCT1", "1.2.840.113619.2.405.3"),
        Device("NM1", "SIEMENS NM", "Symbia Intevo", "INTEVO1", "1.3.12.2.1107.5.6.1.1510"),
    )
}
OLD_PACS, BY_HAND = "PACS2", "MANUAL"


@dataclass(frozen=True, slots=True)
class _Protocol:
    devices: tuple[str, ...]
    study: str
    body_part: str
    name: str
    series: tuple[tuple[str, str, float], ...]  # (kind, description, count in a study of 50)


_CTS, _MRS, _USS = ("CT1", "CT2"), ("MR1", "MR2"), ("US1", "US2")
_ABDOMEN = _Protocol(
    _CTS, "CT Abdomen mit KM", "ABDOMEN", "Abdomen_Venous",
    (("CT", "Topogramm", 1), ("CT", "Abdomen venös 5.0", 40), ("CT", "Abdomen venös 1.0", 52),
     ("CT", "Abdomen cor 3.0", 24), ("SR", "Dosisprotokoll", 1)),
)  # fmt: skip
_KNEE = _Protocol(
    _MRS, "MR Knie rechts", "KNEE", "Knie_Standard",
    tuple(("MR", name, 13) for name in ("localizer", "pd_tse_fs sag", "t1_tse cor", "pd_tse_fs tra",
                                        "t2_tse sag")),
)  # fmt: skip
_SONO = _Protocol(
    _USS, "Sonographie Abdomen", "ABDOMEN", "Abdomen",
    (("US", "Standbilder", 14), ("US cine", "Clips", 5)),
)  # fmt: skip
_PROTOCOLS = (
    _ABDOMEN,
    _KNEE,
    _SONO,
    _Protocol(
        _CTS, "CT Schädel nativ", "HEAD", "Schaedel_Nativ",
        (("CT", "Topogramm", 1), ("CT", "Schädel 5.0 H30s", 26), ("CT", "Schädel 1.0 H60s", 44),
         ("SR", "Dosisprotokoll", 1)),
    ),
    _Protocol(
        _CTS, "CT Thorax", "CHEST", "Thorax_LowDose",
        (("CT", "Topogramm", 1), ("CT", "Thorax 1.0 Lunge", 62), ("CT", "Thorax 5.0", 34),
         ("SR", "Dosisprotokoll", 1)),
    ),
    _Protocol(
        _MRS, "MR Schädel mit KM", "BRAIN", "Kopf_KM",
        tuple(("MR", name, 14) for name in ("localizer", "t2_tse tra", "t2_flair tra",
                                            "ep2d_diff tra", "t1_mprage sag", "t1_mprage KM sag")),
    ),
    _Protocol(("CR1",), "Thorax p.a./seitl.", "CHEST", "Thorax",
              (("CR", "p.a.", 1), ("CR", "seitl.", 1))),
    _Protocol(("XR1",), "Hand in 2 Ebenen", "HAND", "Hand", (("DX", "Hand", 2),)),
    _Protocol(("XR1",), "Becken a.p.", "PELVIS", "Becken", (("DX", "Becken", 1),)),
    _Protocol(("MG1",), "Mammographie beidseits", "BREAST", "Screening", (("MG", "MLO/CC", 4),)),
    _Protocol(
        ("XA1",), "Koronarangiographie", "HEART", "Coro_15fps",
        (("XA", "Koro links", 5), ("XA", "Koro rechts", 3), ("SR", "Dosisprotokoll", 1)),
    ),
    _Protocol(
        ("PT1",), "PET/CT Ganzkörper", "WHOLEBODY", "Ganzkoerper_FDG",
        (("CT", "CT WB 3.27", 120), ("PT", "PET WB AC", 120), ("PT", "PET WB NAC", 60)),
    ),
    _Protocol(("NM1",), "Skelettszintigraphie", "WHOLEBODY", "Knochen",
              (("NM", "Ganzkörper", 2), ("NM", "Spot", 2))),
)  # fmt: skip
# How often each comes, so that a few dozen studies hold every kind.
_MIX = (0, 1, 2, 6, 7, 3, 10, 9, 4, 5, 8, 6, 12, 0, 2, 7, 5, 11, 3, 6, 8, 4, 1, 7, 2, 0, 6, 1)

_FAMILY = (
    "Müller", "Schmidt", "Schröder", "Weiß", "Krüger", "Jäger", "Groß", "Böhm", "Yılmaz", "Öztürk",
    "Şahin", "Kowalski", "Wójcik", "Łukasz", "Novák", "Dvořák", "Nguyễn", "García", "Núñez",
    "Ferreira", "Åkesson", "Sørensen", "Mäkinen", "O'Brien", "Dubois", "Lefèvre", "Иванов",
    "Смирнова", "Παπαδόπουλος", "Άγγελου", "חביב", "לוי", "العلي", "حسن", "สมชาย", "Иваненко",
    "Popescu", "Horváth",
)  # fmt: skip
_GIVEN = (
    "Anna", "Jürgen", "Bärbel", "Günther", "Ayşe", "Mehmet", "Zofia", "Paweł", "Jiří", "Tomáš",
    "Linh", "José", "Inés", "João", "Elin", "Søren", "Aino", "Siobhán", "Zoé", "René", "Мария",
    "Алексей", "Ελένη", "Γιώργος", "דוד", "שרה", "محمد", "فاطمة", "มาลี", "Ion", "László",
    "Katalin", "Peter", "Maria", "Thomas", "Sabine", "Michael", "Petra", "Andreas", "Monika",
    "Stefan", "Ursula",
)  # fmt: skip
_IDEOGRAPHIC = (
    "Yamada^Tarou=山田^太郎=やまだ^たろう", "Suzuki^Hanako=鈴木^花子=すずき^はなこ",
    "Hong^Gildong=洪^吉洞=홍^길동", "Kim^Minji=金^敏智=김^민지", "Wang^XiaoDong=王^小东",
    "Zhang^Wei=张^伟",
)  # fmt: skip
_PHYSICIANS = "Hausmann^Ute^^Dr.", "Radtke^Jens^^Dr.", "Öztürk^Can^^PD Dr.", "Wójcik^Ewa"
_OPERATORS = "Lehmann^Katrin", "Vogel^Tim", "Şahin^Elif", "Brandt^Ole"


def studies(seed: int, first: int, count: int, calendar: Calendar, mean: int) -> list[StudyPlan]:
    """Return *count* studies from number *first*, together *count* x *mean* instances.

    They are more where no series can be made any shorter.
    """
    plans = [study(seed, number, calendar, mean / 50) for number in range(first, first + count)]
    excess = sum(each.instances for plan in plans for each in plan.series) - count * mean
    for turn in count_up(1):
        for number, plan in enumerate(plans):
            at = 1 + turn % 2
            if not excess or len(plan.series) <= at or plan.series[at].kind not in ("CT", "MR"):
                continue
            each = plan.series[at]
            if excess > 0 and each.count <= max({12, *each.missing}):
                continue
            step = 1 if excess < 0 else -1
            series = list(plan.series)
            series[at] = replace(each, count=each.count + step)
            plans[number] = replace(plan, series=tuple(series))
            excess += step
        if not excess or (excess > 0 and turn > 2 * mean):
            return plans
    raise AssertionError("the turns do not end")


def study(seed: int, number: int, calendar: Calendar, scale: float) -> StudyPlan:
    """Return the study of this number; *scale* stretches its series (1: 50 instances)."""
    chance = random.Random(f"{seed} study {number}")
    protocol = _PROTOCOLS[_MIX[number % len(_MIX)]]
    device = _DEVICES[chance.choice(protocol.devices)]
    begun_at, arrives_at, source, batch = _way_in(number, device, calendar, chance)
    uid = f"1.2.276.0.37.1.354.{begun_at:%Y%m%d}.{10_000 + number}"
    plan = StudyPlan(
        number=number,
        uid=uid,
        patient=_patient(seed, number),
        device=device,
        begun_at=begun_at if number % 97 != 96 else None,
        arrives_at=arrives_at,
        source=source,
        batch=batch,
        is_on_cd=source == BY_HAND,
        accession_number=f"A{1_000_000 + number}" if number % 53 != 52 else None,
        description=protocol.study,
        body_part=protocol.body_part,
        protocol=protocol.name,
        physician=chance.choice(_PHYSICIANS),
        operator=chance.choice(_OPERATORS),
        series=_series(protocol, device, begun_at, scale, chance),
    )
    return _NAMED[number](plan) if number in _NAMED else plan


def _way_in(
    number: int, device: Device, calendar: Calendar, chance: random.Random
) -> tuple[datetime, datetime, str, str]:
    way = chance.randrange(10) if number > 2 else 0
    if way < 6:
        begun_at = calendar.live(chance)
        seconds = int(begun_at.replace(tzinfo=UTC).timestamp())
        association = f"{seconds:016x}{chance.getrandbits(32):08x}"
        late = timedelta(minutes=chance.randrange(5, 30))
        return begun_at, begun_at - UTC_OFFSET + late, device.source, association
    day = calendar.begins - timedelta(chance.randrange(30, 4000))
    begun_at = datetime.combine(day, time(chance.randrange(7, 19), chance.randrange(60)))
    if way < 9:
        return begun_at, calendar.night(chance), OLD_PACS, f"PACS2_{day:%Y_%m}"
    return begun_at, calendar.live(chance), BY_HAND, f"CD_{10_000 + number}"


def _series(
    protocol: _Protocol,
    device: Device,
    begun_at: datetime,
    scale: float,
    chance: random.Random,
) -> tuple[SeriesPlan, ...]:
    found = []
    for number, (kind, description, usual) in enumerate(protocol.series, start=1):
        count = max(1, round(usual * scale * chance.uniform(0.7, 1.3)))
        missing: frozenset[int] = frozenset()
        if kind == "CT" and count > 20 and chance.random() < 0.05:
            first = chance.randrange(2, count - 4)
            missing = frozenset(range(first, first + chance.randrange(1, 4)))
        uid = f"{device.uid_prefix}.{begun_at:%Y%m%d%H%M%S}{chance.randrange(1000)}.{number}"
        if device.has_random_uids:
            uid = f"2.25.{chance.getrandbits(122)}"
        found.append(SeriesPlan(uid, number, kind, description, count, missing))
    return tuple(found)


def _patient(seed: int, number: int) -> PatientAttributes:
    # Five studies in a row belong to two patients, those of the first five to three.
    chance = random.Random(f"{seed} patient of {number}")
    person = 2 * (number // 5) + chance.choice((0, 0, 1))
    if number < 5:
        person = 0 if number < 3 else number - 2
    if person == 0:
        return PatientAttributes(PATIENT_ID, None, PATIENT_NAME, "1961-04-23", "F")
    chance = random.Random(f"{seed} person {person}")
    name = f"{chance.choice(_FAMILY)}^{chance.choice(_GIVEN)}"
    if chance.random() < 0.05:
        name = chance.choice(_IDEOGRAPHIC)
    if name == PATIENT_NAME:
        name = "Müller^Anne"
    born = date(1930, 1, 1) + timedelta(chance.randrange(90 * 365))
    sex = chance.choice(("F", "M"))
    return PatientAttributes(f"P{1_000_000 + person}", None, name, born.isoformat(), sex)


# -- the studies that are in every hospital ----------------------------------------------


def _named_ct(plan: StudyPlan) -> StudyPlan:
    begun_at = datetime.fromisoformat(f"{DAY}T08:12:07")
    device = _DEVICES[SOURCE]
    prefix = f"{device.uid_prefix}.{begun_at:%Y%m%d%H%M%S}"
    series = [replace(each, uid=f"{prefix}.{each.number}") for each in plan.series]
    count = max(series[1].count, 12)
    series[1] = replace(series[1], count=count, missing=frozenset(MISSING))
    return replace(
        plan, uid=STUDY_INSTANCE_UID, device=device, begun_at=begun_at, source=SOURCE,
        arrives_at=begun_at - UTC_OFFSET + timedelta(minutes=11),
        batch="0006610912a0c3801f2e3d4c", accession_number=ACCESSION_NUMBER, series=tuple(series),
    )  # fmt: skip


def _named_mr(plan: StudyPlan) -> StudyPlan:
    return replace(
        plan, begun_at=datetime.fromisoformat("2024-11-20T15:40:10"), source=BY_HAND, batch=BATCH,
        arrives_at=datetime.fromisoformat(f"{DAY}T13:05:00"), is_on_cd=True,
    )  # fmt: skip


def _named_us(plan: StudyPlan) -> StudyPlan:
    begun_at = datetime.fromisoformat("2026-01-14T10:02:51")
    return replace(
        plan, device=_DEVICES["US1"], begun_at=begun_at, source="US1",
        arrives_at=begun_at - UTC_OFFSET + timedelta(minutes=4), batch="000661091b2d51c03a4b5c6d",
    )  # fmt: skip


_NAMED: dict[int, Callable[[StudyPlan], StudyPlan]] = {0: _named_ct, 1: _named_mr, 2: _named_us}
