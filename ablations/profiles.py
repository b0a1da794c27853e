"""Profiles: the budgets of study runs, a row for each. Budgets are iterations, never seconds.

Recipes and budgets are set only on the arm with corner pooling, before any contrast is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cornernet.config import CocoSource, Config, ConfigError, HourglassConfig, ShapesSource
from cornernet.config.checks import did_you_mean
from cornernet.config.recipes import hourglass_104, small, tiny
from cornernet.training.revision import TRAINING_REVISION

from .statistics.sequential import Looks, Schedule
from .studies import PROTOCOL

__all__ = ["PROFILES", "Profile", "find_profile"]

ALL_STUDIES = ("table1", "table2", "table3", "table6", "table6_error_types", "table7", "pooling_implementations")

PRESENT_STUDIES = (
    "table1",
    "table2",
    "table3",
    "table3_radius",
    "table4",
    "table5",
    "table6",
    "table6_error_types",
    "table7",
    "pooling_implementations",
)
"""The paper's tables, all with claims since protocol 2, and what comes with them from the same trainings."""

EXPLORATORY_STUDIES = (
    "table4",
    "table5",
    "backbone_size",
    "pull_push_weights",
    "feedback",
    "intermediate_supervision",
    "offset_loss",
    "embeddings",
    "focal_exponents",
    "heatmap_losses",
)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A budget: seeds, the studies that run by default, and the base configuration.

    The base configuration exists for the generated data and for a folder of photographs. It raises ``ConfigError`` for
    data that the profile is not meant for.
    """

    name: str
    purpose: str
    seeds: tuple[int, ...]
    studies: tuple[str, ...]
    on_shapes: Callable[[], Config]
    on_photographs: Callable[[], Config]
    minutes: str = "not stated"
    """How long a whole run takes, and on what machine."""
    publish: bool = False
    """Whether its records are committed in reports/records, where a store that lacks them finds them."""
    photograph_seeds: tuple[int, ...] | None = None
    """Used instead of ``seeds`` on a folder of photographs."""
    photograph_studies: tuple[str, ...] | None = None
    """Used instead of ``studies`` on a folder of photographs."""
    looks: Looks | None = None
    """After how many seeds the primary claims are judged, on generated data; None where all seeds run and are judged at
    once. Seeds run until every primary claim is settled (:mod:`ablations.running.looks`)."""
    photograph_looks: Looks | None = None
    """The same on a folder of photographs."""
    protocol: int | None = None
    """The number of the protocol (docs/protocol.md) that its runs follow; None where its runs are not confirmatory."""
    revision: int = TRAINING_REVISION
    """The revision of the training code that made its records. A profile of an older one is read and not run."""
    declarations: int = PROTOCOL
    """The number of the protocol whose declarations of studies (claims, metrics, arms) its runs follow."""
    workers: int = 2
    """Trainings side by side, by default."""
    gpus: int = 0
    """GPUs of one training, under torchrun where there are several. With 0 it also runs on a CPU."""

    def __post_init__(self) -> None:
        for photographs in (False, True):
            try:
                self.schedule(photographs)
            except ValueError as error:
                raise ValueError(f"profile {self.name}: {error}") from error

    def schedule(self, photographs: bool) -> Schedule | None:
        """Return the seeds with the looks at them, on photographs or on generated data; None without looks."""
        looks = self.photograph_looks if photographs else self.looks
        return None if looks is None else Schedule(seeds=self.planned(photographs)[1], looks=looks)

    def planned(self, photographs: bool) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Return the studies and the seeds that run by default, on photographs or on generated data."""
        studies, seeds = (self.photograph_studies, self.photograph_seeds) if photographs else (None, None)
        return self.studies if studies is None else studies, self.seeds if seeds is None else seeds

    def base(self, data: Path | CocoSource | None, *, classes: int | None = None, device: str | None = None) -> Config:
        """Return the base configuration on a COCO-format folder, or on ``shapes`` for None.

        ``classes`` and ``device`` are those of the data and of the machine; without them, the configuration's own. A
        training on a CPU has one thread, so that its bits do not depend on how many run side by side. Raises
        ``ConfigError`` for data that the profile is not for.
        """
        if data is None:
            config = self.on_shapes()
        else:
            source = data if isinstance(data, CocoSource) else CocoSource(root=str(data))
            config = self.on_photographs().with_("data.source", source)
        config = config.with_("training.threads", 1)
        if classes is not None:
            config = config.with_("model.num_classes", classes)
        return config if device is None else config.with_("training.device", device)


def _smoke_shapes() -> Config:
    config = tiny().with_("training.iterations", 8).with_("training.warmup", 2).with_("training.checkpoint_every", 4)
    config = config.with_("training.log_every", 1).with_("training.batch_size", 2)
    return config.with_("data.source.train_images", 16).with_("data.source.val_images", 8)


def _smoke_photographs() -> Config:
    return _quick_photographs().with_("training.iterations", 4).with_("training.warmup", 2)


def _quick_shapes() -> Config:
    return tiny().with_("training.iterations", 1500)


def _quick_photographs() -> Config:
    config = small().with_("data.input_size", (127, 159)).with_("data.fit", (128, 160))
    return config.with_("training.iterations", 300)


def _standard_shapes() -> Config:
    """Return a configuration with 48x48 heatmaps and objects of 3 to 36 cells: all quadrants, small and large radii."""
    config = tiny().with_(
        "model.backbone", HourglassConfig(stacks=1, stem_channels=16, channels=(16, 32, 32), blocks=(1, 1, 1))
    )
    source = ShapesSource(
        image_size=(191, 191), object_size=(0.05, 0.75), max_objects=4, train_images=800, val_images=400
    )
    config = config.with_("data.input_size", (191, 191)).with_("data.source", source)
    return config.with_("training.batch_size", 4).with_("training.iterations", 2000)


def _standard_photographs() -> Config:
    return small().with_("training.batch_size", 4).with_("training.iterations", 800)


def _gpu_network(config: Config) -> Config:
    """Return the configuration scaled up to one GPU: two stacks at 255x255, larger batches, bfloat16."""
    for path, value in (
        ("model.backbone.stacks", 2),
        ("model.backbone.stem_channels", 64),
        ("model.backbone.channels", (64, 64, 96, 128)),
        ("model.head.pool_channels", 64),
        ("data.input_size", (255, 255)),
        ("data.fit", (256, 256)),
        ("training.batch_size", 32),
        ("training.iterations", 600),
        ("training.precision", "bfloat16"),
        ("training.device", "cuda"),
        # loader processes, because one thread would keep the GPU waiting
        ("training.workers", 8),
        ("training.checkpoint_every", 200),
    ):
        config = config.with_(path, value)
    return config


def _gpu_shapes() -> Config:
    source = ShapesSource(
        image_size=(255, 255), object_size=(0.10, 0.80), max_objects=6, train_images=1000, val_images=200
    )
    return _gpu_network(small().with_("data.source", source))


def _gpu_photographs() -> Config:
    return _gpu_network(small())


def _paper_shapes() -> Config:
    raise ConfigError(
        "profile paper is the paper's own experiment, 250,000 iterations at 511x511 pixels on COCO (section 4). On the "
        "generated `shapes` it would cost as much, and its numbers would not compare with the paper's; give COCO's "
        "folder with --data, or use --profile gpu"
    )


def _paper_coco() -> Config:
    """Return the paper's training for its ablations: half of the iterations, so the learning rate never decays."""
    config = hourglass_104().with_("training.iterations", 250_000)
    return config.with_("training.device", "cuda").with_("training.workers", 8)


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke",
            purpose="every code path within a minute; its numbers mean nothing",
            declarations=1,
            seeds=(0, 1),
            studies=ALL_STUDIES,
            on_shapes=_smoke_shapes,
            on_photographs=_smoke_photographs,
            minutes="about 1 on two CPU cores",
        ),
        Profile(
            name="quick",
            purpose="a first look within minutes on two CPU cores; two seeds, no verdicts",
            declarations=1,
            seeds=(0, 1),
            studies=("table1",),
            on_shapes=_quick_shapes,
            on_photographs=_quick_photographs,
            minutes="at most 10 on two CPU cores",
        ),
        Profile(
            name="standard",
            purpose="the paper's tables with verdicts, about an hour on two CPU cores (docs/protocol.md)",
            declarations=1,
            seeds=(1, 2, 3, 4, 5),
            studies=ALL_STUDIES,
            on_shapes=_standard_shapes,
            on_photographs=_standard_photographs,
            minutes="at most 80 per call on two CPU cores, by --max-minutes",
            publish=True,
            # as protocol 1 declares for BCCD
            photograph_seeds=(1, 2, 3),
            photograph_studies=("table1", "table2", "table3", "table6"),
            protocol=1,
            revision=1,
        ),
        Profile(
            name="extended",
            purpose="exploratory studies under the budget of standard; no claims and no verdicts, in several calls",
            declarations=1,
            seeds=(1, 2, 3),
            studies=EXPLORATORY_STUDIES,
            photograph_studies=("table4", "table5"),
            on_shapes=_standard_shapes,
            on_photographs=_standard_photographs,
            minutes="at most 80 per call on two CPU cores, by --max-minutes 80; two calls on shapes",
            publish=True,
            revision=1,
        ),
        Profile(
            name="tuning",
            purpose="the search of learning rates and priors before table 4 of protocol 2; no claims and no verdicts",
            # none that a claim uses
            seeds=(101, 102),
            studies=("table4_search",),
            on_shapes=_standard_shapes,
            on_photographs=_standard_photographs,
            minutes="30 trainings of two stacks; by --max-minutes, in several calls",
            publish=True,
        ),
        Profile(
            name="sensitivity",
            purpose="table 1 of protocol 2 under other recipes; exploratory, no claims and no verdicts",
            seeds=(11, 12, 13, 14),
            studies=("table1_sensitivity",),
            on_shapes=_standard_shapes,
            on_photographs=_standard_photographs,
            minutes="24 trainings, a third of them twice as long; by --max-minutes, in several calls",
            publish=True,
        ),
        Profile(
            name="gpu",
            purpose="larger maps and networks on one GPU, in slices by --max-minutes",
            seeds=(0, 1, 2),
            studies=PRESENT_STUDIES,
            on_shapes=_gpu_shapes,
            on_photographs=_gpu_photographs,
            minutes="meant for 20 on one H100; not timed yet",
            publish=True,
            workers=1,
            gpus=1,
        ),
        Profile(
            name="paper",
            purpose="the paper's own experiment on COCO: Hourglass-104, batch 49, 250,000 iterations",
            seeds=(0, 1, 2),
            studies=PRESENT_STUDIES,
            on_shapes=_paper_shapes,
            on_photographs=_paper_coco,
            minutes="weeks on seven GPUs; not timed yet",
            publish=True,
            workers=1,
            # the authors' ten GPUs took 4 and nine times 5 images; here a batch is cut evenly, and 49 = 7 * 7
            gpus=7,
        ),
    )
}


def find_profile(name: str) -> Profile:
    """Return a profile by name. Raises ``ValueError`` that names the nearest for an unknown one."""
    if name not in PROFILES:
        raise ValueError(f"there is no profile {name!r}{did_you_mean(name, PROFILES)}")
    return PROFILES[name]
